//! Launches with a rank program of bash: what a user sees of progress, end, failure and stop.

mod fake_run;
mod program;

use std::fs;
use std::process::Command;

use serde_json::Value;

use fake_run::{Running, command, folder, spinectl, wait_until};
use program::Ran;

/// Says one step, writes a line to its log, and a summary where that is its job.
const GOOD: &str = r#"
echo "a line of the log"
say '"event":"step","step":3,"total_steps":3,"epoch":0,"loss":0.25,"learning_rate":0.001,
    "gradient_norm":1.0,"samples":8,"images":8,"seconds":0.5'
[ "$job" != summary ] || echo '{"stage1a": {"study_box_iou": 0.75}}' >"$run_dir/summary.json"
"#;

#[test]
fn an_elastic_launch_says_how_many_ranks_it_takes_and_takes_them() {
    let folder = folder(
        r#"[ "$job" != stage1a-resnest14d-fold0-seed0 ] || echo "$WORLD_SIZE" >"${0%/*}/world-$RANK""#,
    );
    let recipe = folder.path().join("spinectl.yaml");
    let text = fs::read_to_string(&recipe).unwrap();
    fs::write(&recipe, format!("{text}elastic: {{min: 2, max: 8}}\n")).unwrap();
    let ran = spinectl(folder.path(), &["launch", "--ranks", "3"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(
        ran.err.contains("stage1a trains on 2 of 3 ranks"),
        "{}",
        ran.err
    );
    let worlds = (0..3).map(|rank| fs::read_to_string(folder.path().join(format!("world-{rank}"))));
    let worlds: Vec<Option<String>> = worlds.map(Result::ok).collect();
    assert_eq!(worlds, [Some("2\n".into()), Some("2\n".into()), None]);
}

#[test]
fn a_run_is_shown_recorded_and_summed_up() {
    let folder = folder(GOOD);
    let ran = spinectl(folder.path(), &["launch", "--ranks", "2"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let metric: Vec<&str> = ran
        .out
        .lines()
        .find(|line| line.contains("stage1a.study_box_iou"))
        .unwrap()
        .split_whitespace()
        .collect();
    assert_eq!(metric, ["stage1a.study_box_iou", "0.7500", "-"]);
    assert!(ran.out.contains("spinectl tensorboard runs/small"));
    let steps: Vec<&str> = ran
        .err
        .lines()
        .filter(|line| line.contains("stage1a-resnest14d-fold0-seed0: step 3/3"))
        .collect();
    assert_eq!(steps.len(), 1, "one line for both ranks\n{}", ran.err);
    assert!(steps[0].contains("loss 0.2500") && steps[0].contains("16 images/s"));
    let board = folder
        .path()
        .join("runs/small/tensorboard/stage1a-resnest14d-fold1-seed0");
    // Its event file, and the same over samples.
    assert_eq!(fs::read_dir(board).unwrap().count(), 2);

    let status = spinectl(folder.path(), &["status", "runs/small"]);
    assert_eq!(status.code, Some(0), "{}", status.err);
    assert!(status.out.contains("5 of 5 jobs done"), "{}", status.out);
    assert!(status.out.contains("stage1a.study_box_iou"));
    let status = spinectl(folder.path(), &["status", "runs/small", "--json"]);
    let status: Value = serde_json::from_str(&status.out).unwrap();
    assert_eq!(status["jobs"][4]["state"], "succeeded");

    let summary = fs::read_to_string(folder.path().join("runs/small/summary.md")).unwrap();
    for part in [
        "# small\n\ndone\n",
        "| stage1a-resnest14d-fold1-seed0 | succeeded | 1 | 3 |",
        "| stage1a.study_box_iou | 0.7500 | - |",
        "spinectl tensorboard runs/small`",
    ] {
        assert!(summary.contains(part), "no `{part}` in\n{summary}");
    }
}

#[test]
fn ranks_are_told_to_start_before_they_say_anything() {
    let folder = folder(r#"say '"event":"heartbeat","phase":"start_up","step":0,"sequence":0'"#);
    let ran = spinectl(folder.path(), &["launch", "--ranks", "8", "-q"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let events = fs::read_to_string(folder.path().join("runs/small/events.jsonl")).unwrap();
    let events: Vec<Value> = events
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |kind: &str, job: &Value| {
        let found = events
            .iter()
            .filter(|it| it["event"] == kind && it["job"] == *job);
        let times = found.map(|event| event["time"].as_f64().unwrap());
        times.reduce(f64::min)
    };
    let mut jobs = 0;
    for event in events.iter().filter(|it| it["event"] == "job_started") {
        let said = of("heartbeat", &event["job"]).unwrap();
        let started = event["time"].as_f64().unwrap();
        assert!(started <= said, "{}: {started} {said}", event["job"]);
        jobs += 1;
    }
    assert_eq!(jobs, 5);
}

#[test]
fn events_as_json_are_all_that_stdout_gets() {
    let folder = folder(GOOD);
    let ran = spinectl(folder.path(), &["launch", "--json"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let events: Vec<Value> = ran
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(events[0]["event"], "run_started");
    assert_eq!(events.last().unwrap()["event"], "run_finished");
    assert!(events.iter().any(|event| event["event"] == "step"));
}

#[test]
fn a_failure_is_told_with_cause_log_and_the_way_on() {
    let folder = folder(
        r#"echo "reading slice 7"
say '"event":"rank_failed","failed_at":1.0,"class":"data","message":"slice 7 is torn"'
exit 4"#,
    );
    let ran = spinectl(folder.path(), &["launch", "--quiet", "--run-dir", "my run"]);
    assert_eq!(ran.code, Some(4), "{}", ran.err);
    for part in [
        "labels failed on rank 0, attempt 1 (bad data)",
        "slice 7 is torn",
        "my run/jobs/labels/attempt-1/rank0.log, its end:\n  | reading slice 7",
        "data.exclude",
        "launch 'my run/recipe.yaml' --run-dir 'my run'",
    ] {
        assert!(ran.err.contains(part), "no `{part}` in\n{}", ran.err);
    }
    let summary = fs::read_to_string(folder.path().join("my run/summary.md")).unwrap();
    assert!(summary.contains("failed: labels: ") && summary.contains("| labels | failed | 1 |"));
    assert_eq!(ran.out, "");
}

#[test]
fn a_stop_says_how_to_go_on_and_that_command_does() {
    let folder = folder(&format!(
        r#"trap 'exit 75' TERM
touch "${{0%/*}}/started"
while [ ! -e "${{0%/*}}/proceed" ]; do sleep 0.02; done
{GOOD}"#
    ));
    let mut running = Running(command(folder.path(), &["launch"]).spawn().unwrap());
    let started = folder.path().join("started");
    wait_until("no rank was started", || started.exists());
    let pid = running.0.id().to_string();
    let signalled = Command::new("kill").args(["-s", "TERM", &pid]).status();
    assert!(signalled.unwrap().success());
    let code = running.0.wait().unwrap().code();
    let mut err = String::new();
    std::io::Read::read_to_string(running.0.stderr.as_mut().unwrap(), &mut err).unwrap();
    assert_eq!(code, Some(75), "{err}");

    let (_, go_on) = err.split_once("Go on: ").unwrap();
    fs::write(folder.path().join("proceed"), "").unwrap();
    let ran: Ran = Command::new("bash")
        .args(["-c", go_on])
        .current_dir(folder.path())
        .env("SPINECTL_RANK", folder.path().join("rank"))
        .output()
        .unwrap()
        .into();
    assert_eq!(ran.code, Some(0), "{go_on}\n{}", ran.err);
}

#[test]
fn a_prediction_shows_what_was_written() {
    let folder = folder(&format!(
        r#"if [ "$mode" = predict ]; then
    say '"event":"warning","message":"one slice was left out"'
    {{ echo row_id,fractured; for label in patient_overall C1 C2 C3 C4 C5 C6 C7; do echo "1.2.3_$label,0.125"; done; }} >"$out"
    case "$out" in
        *bad.csv) more=',{{"study":"empty","failure":"holds no slice"}}' ;;
        *) more= ;;
    esac
    echo '{{"models":[],"flip":false,"studies":[{{"study":"1.2.3"}}'"$more]}}" >"$out.report.json"
    exit 0
fi
{GOOD}"#
    ));
    let predict = ["predict", "runs/small", "--images", ".", "--out", "s.csv"];
    let early = spinectl(folder.path(), &predict);
    assert_eq!(early.code, Some(2), "there is no run yet: {}", early.err);

    assert_eq!(spinectl(folder.path(), &["launch", "-q"]).code, Some(0));
    let ran = spinectl(folder.path(), &predict);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(ran.out.matches("0.125").count(), 8, "{}", ran.out);
    assert!(ran.out.contains("wrote s.csv: 1 study"), "{}", ran.out);
    assert!(ran.out.contains("warning: one slice was left out"));
    assert!(!ran.err.contains("left out:"), "{}", ran.err);

    let ran = spinectl(
        folder.path(),
        &["predict", "runs/small", "--images", ".", "--out", "bad.csv"],
    );
    assert_eq!(ran.code, Some(4), "{}", ran.err);
    assert!(ran.out.contains("wrote bad.csv: 1 study"), "{}", ran.out);
    assert!(
        ran.err
            .contains("1 study left out:\n  empty: holds no slice"),
        "{}",
        ran.err
    );
}
