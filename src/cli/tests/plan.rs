//! `spinectl plan` beside a run: what is done, what would be done again, and what it costs. Ranks are a program of bash.

mod fake_run;
mod program;

use serde_json::Value;

use fake_run::{folder, spinectl};
use program::Ran;

/// Each rank says three updates of half a second.
const RANK: &str = r#"
for step in 1 2 3; do
    say '"event":"step","step":'$step',"total_steps":3,"epoch":0,"loss":0.25,"learning_rate":0.001,
        "gradient_norm":1.0,"samples":8,"images":8,"seconds":0.5'
done
"#;

const JOB: &str = "stage1a-resnest14d-fold0-seed0";

fn json(ran: Ran) -> Value {
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    serde_json::from_str(&ran.out).unwrap()
}

fn job<'v>(plan: &'v Value, id: &str) -> &'v Value {
    let mut jobs = plan["jobs"].as_array().unwrap().iter();
    jobs.find(|job| job["id"] == id).unwrap()
}

#[test]
fn a_run_says_what_is_done_and_how_long_it_takes() {
    let folder = folder(RANK);
    let plan = |words: &[&str]| {
        let words = [&["plan", "--json"][..], words].concat();
        json(spinectl(folder.path(), &words))
    };
    let assumed = plan(&[]);
    assert_eq!(job(&assumed, JOB)["seconds_from"], "assumed");
    assert_eq!(job(&assumed, JOB)["done"], false);
    let faster = plan(&["--tflops", "0.1"]);
    let seconds = |plan: &Value| job(plan, JOB)["seconds"].as_f64().unwrap();
    assert!((seconds(&assumed) / seconds(&faster) - 2.0).abs() < 1e-9);

    let ran = spinectl(folder.path(), &["launch"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let known = plan(&["--run", "runs/small"]);
    assert_eq!(job(&known, JOB)["seconds_from"], "ran");
    assert_eq!(job(&known, JOB)["done"], true);
    assert_eq!(known["device_hours_left"], 0.0);
    // Another stage-1a job is another one, and takes as long as those that ran.
    let other = plan(&["--run", "runs/small", "--set", "stage1a.training.batch=16"]);
    assert_eq!(job(&other, JOB)["seconds_from"], "measured");
    assert_eq!(job(&other, JOB)["done"], false);
    assert!(seconds(&other) < seconds(&assumed));
    assert_eq!(other["device_hours_left"], other["device_hours"]);

    let drawn = spinectl(
        folder.path(),
        &["plan", "--format=mermaid", "--run", "runs/small"],
    );
    assert!(drawn.out.contains("    classDef done"), "{}", drawn.out);
    assert!(drawn.out.contains("rank-hours\"]"), "{}", drawn.out);
}

#[test]
fn a_diff_names_each_jobs_fate_and_the_reason() {
    let folder = folder(RANK);
    let ran = spinectl(folder.path(), &["launch"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let kept = json(spinectl(
        folder.path(),
        &["plan", "--json", "--diff", "runs/small"],
    ));
    assert_eq!(kept["counts"], serde_json::json!({"kept": 5}));

    let set = [
        "plan",
        "--diff",
        "runs/small",
        "--set",
        "stage1a.training.learning_rate=0.5",
    ];
    let changed = json(spinectl(folder.path(), &[&set[..], &["--json"]].concat()));
    assert_eq!(job(&changed, "labels")["fate"], "kept");
    assert_eq!(job(&changed, JOB)["fate"], "rerun");
    let why = job(&changed, JOB)["why"][0].as_str().unwrap();
    assert!(
        why.starts_with("stage1a.training.learning_rate ") && why.ends_with("-> 0.5"),
        "{why}"
    );
    let summary = &job(&changed, "summary")["why"][0];
    assert_eq!(summary, "study-boxes is done again");
    let shown = spinectl(folder.path(), &set);
    assert!(shown.out.contains("1 kept, 4 rerun"), "{}", shown.out);
    // Nothing was run, and a launch does what was foretold.
    let again = spinectl(
        folder.path(),
        &[
            "launch",
            "--json",
            "--set",
            "stage1a.training.learning_rate=0.5",
        ],
    );
    let starts = again.out.matches("\"job_started\"").count();
    assert_eq!((again.code, starts), (Some(0), 4), "{}", again.err);
}

#[test]
fn what_does_not_fit_a_gpu_is_refused() {
    let folder = folder(RANK);
    let words = [
        "plan",
        "--gpus=1",
        "--set=stage1a.training.image_size=512",
        "--gpu-memory",
    ];
    let with = |gb: &'static str| spinectl(folder.path(), &[&words[..], &[gb]].concat());
    assert_eq!(with("80").code, Some(0), "{}", with("80").err);
    let refused = with("2");
    assert_eq!(refused.code, Some(3), "{}", refused.out);
    assert!(
        refused.err.contains(JOB) && refused.err.contains("stage1a.training.micro_batch: 2"),
        "{}",
        refused.err
    );
    assert_eq!(with("-1").code, Some(2));
    assert!(
        with("1").err.contains("gradient_checkpointing"),
        "{}",
        with("1").err
    );
}

#[test]
fn the_sums_stand_below_the_table() {
    let folder = folder(RANK);
    let ran = spinectl(folder.path(), &["plan", "--gpus=2"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    for part in [
        "GPU-hours: ",
        "at an assumed 158 TFLOP/s a GPU",
        "the competition's 2,019 studies",
        "critical path: ",
        "labels -> stage1a-resnest14d-fold",
        "speed-up",
    ] {
        assert!(ran.out.contains(part), "{part}: {}", ran.out);
    }
}
