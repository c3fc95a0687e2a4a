//! `spinectl plan` beside a run: what is done, what would be done again, and what it costs. Ranks are a program of bash.

#[expect(dead_code, reason = "other tests wait for what happens in a run")]
mod fake_run;
mod program;

use std::fs;
use std::path::Path;

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
    let refused = with("1.3");
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
        "at an assumed 54 TFLOP/s a GPU",
        "the competition's 2,019 studies",
        "critical path: ",
        "labels -> stage1a-resnest14d-fold",
        "speed-up",
    ] {
        assert!(ran.out.contains(part), "{part}: {}", ran.out);
    }
}

/// Four studies in two folds, without images: ranks of bash do not miss them.
fn write_data_set(folder: &Path, c1_of_the_last: u8) {
    let labels = format!(
        "StudyInstanceUID,patient_overall,C1,C2,C3,C4,C5,C6,C7\n1.1,0,0,0,0,0,0,0,0\n1.2,1,1,0,0,0,0,0,0\n\
         1.3,0,0,0,0,0,0,0,0\n1.4,{c1_of_the_last},{c1_of_the_last},0,0,0,0,0,0\n"
    );
    fs::write(folder.join("train.csv"), labels).unwrap();
    let split = "StudyInstanceUID,fold\n1.1,0\n1.2,0\n1.3,1\n1.4,1\n";
    fs::write(folder.join("folds.csv"), split).unwrap();
}

#[test]
fn a_changed_label_is_seen_by_its_content_and_a_data_set_that_has_vanished_is_waited_for() {
    let folder = folder(RANK);
    let place = folder.path();
    let launch = || spinectl(place, &["launch", "--json", "--set=data.split=folds.csv"]);
    let jobs = |ran: &Ran| ran.out.matches("\"job_started\"").count();
    write_data_set(place, 1);
    let first = launch();
    assert_eq!((first.code, jobs(&first)), (Some(0), 5), "{}", first.err);
    // The same labels, written otherwise.
    let train = fs::read_to_string(place.join("train.csv")).unwrap();
    fs::write(place.join("train.csv"), train.replace('\n', "\r\n")).unwrap();
    let same = launch();
    assert_eq!((same.code, jobs(&same)), (Some(0), 0), "{}", same.err);

    write_data_set(place, 0);
    let diff = json(spinectl(place, &["plan", "--json", "--diff", "runs/small"]));
    assert_eq!(diff["counts"], serde_json::json!({"kept": 3, "rerun": 2}));
    for id in ["labels", "summary"] {
        assert_eq!(job(&diff, id)["why"][0], "labels of fold 1 changed", "{id}");
    }
    let changed = launch();
    assert_eq!(
        (changed.code, jobs(&changed)),
        (Some(0), 2),
        "{}",
        changed.err
    );

    fs::remove_file(place.join("train.csv")).unwrap();
    let refused = launch();
    assert_eq!(
        (refused.code, jobs(&refused)),
        (Some(4), 0),
        "{}",
        refused.err
    );
    assert!(
        refused.err.contains("where it has moved"),
        "{}",
        refused.err
    );
    let told = json(spinectl(place, &["plan", "--json", "--diff", "runs/small"]));
    assert!(told["refused"].as_str().unwrap().contains("train.csv"));
    write_data_set(place, 0);
    let back = launch();
    assert_eq!((back.code, jobs(&back)), (Some(0), 0), "{}", back.err);
}
