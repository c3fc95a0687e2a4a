//! `spinectl pause`, `resume` and `cancel`, while a launch runs and while none does.

mod fake_run;
mod program;

use std::fs;
use std::path::Path;

use serde_json::Value;

use fake_run::{Running, command, folder, spinectl, wait_until};
use program::Ran;

/// A training rank says that it waits, and does so until `go-<fold>` is there; asked to stop, it saves.
const WAITS: &str = r#"
here=${0%/*}
echo "$job $attempt" >>"$here/started"
case $job in stage1a*)
    trap 'say "\"event\":\"checkpoint_written\",\"step\":5,\"bytes\":1,\"seconds\":0.1"; exit 75' TERM
    fold=${job#*fold}; fold=${fold%%-*}
    touch "$here/waits-$fold-$attempt"
    while [ ! -e "$here/go-$fold" ]; do sleep 0.02; done ;;
esac
"#;
const FOLDS: [&str; 2] = [
    "stage1a-resnest14d-fold0-seed0",
    "stage1a-resnest14d-fold1-seed0",
];
const LAUNCH: [&str; 6] = [
    "launch",
    "--set=data.memory_mb=16",
    "--ranks=2",
    "--set=stage1a.training.gpus=1",
    "--json",
    "-q",
];

fn launch(folder: &Path) -> Running {
    Running(command(folder, &LAUNCH).spawn().unwrap())
}

fn appears(folder: &Path, names: &[&str]) {
    wait_until(&format!("{names:?} are there"), || {
        names.iter().all(|name| folder.join(name).exists())
    });
}

fn go(folder: &Path, fold: usize) {
    fs::write(folder.join(format!("go-{fold}")), "").unwrap();
}

fn status(folder: &Path) -> Value {
    let ran = spinectl(folder, &["status", "runs/small", "--json"]);
    serde_json::from_str(&ran.out).unwrap()
}

fn job(folder: &Path, name: &str) -> Value {
    let status = status(folder);
    let jobs = status["jobs"].as_array().unwrap();
    jobs.iter().find(|job| job["id"] == name).unwrap().clone()
}

/// The attempts at the trainings, in the order of their names.
fn started(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("started")).unwrap_or_default();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.retain(|line| line.starts_with("stage1a"));
    lines.sort();
    lines
}

#[test]
fn a_job_is_paused_and_resumed_while_another_runs_on() {
    let folder = folder(WAITS);
    let folder = folder.path();
    let launch = launch(folder);
    appears(folder, &["waits-0-1", "waits-1-1"]);
    let ran = spinectl(folder, &["pause", "runs/small", FOLDS[0], "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let result: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(result["jobs"][0]["held"], "paused", "{result:#}");
    assert_eq!(result["jobs"][0]["state"], "stopped", "{result:#}");
    assert_eq!(job(folder, FOLDS[1])["state"], "running");
    let shown = spinectl(folder, &["status", "runs/small"]).out;
    let line = shown.lines().find(|line| line.contains(FOLDS[0]));
    assert!(line.unwrap().contains(" paused "), "{shown}");

    let ran = spinectl(folder, &["resume", "runs/small", FOLDS[0]]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("goes on with it"), "{}", ran.out);
    appears(folder, &["waits-0-2"]);
    go(folder, 0);
    go(folder, 1);
    let out = Ran::from(launch);
    assert_eq!(out.code, Some(0), "{}", out.err);
    for word in ["job_paused", "job_stopped", "job_released"] {
        let of_job = |line: &&str| line.contains(word) && line.contains(FOLDS[0]);
        assert_eq!(out.out.lines().filter(of_job).count(), 1, "{word}");
    }
    let attempts = [
        format!("{} 1", FOLDS[0]),
        format!("{} 2", FOLDS[0]),
        format!("{} 1", FOLDS[1]),
    ];
    assert_eq!(started(folder), attempts);
}

#[test]
fn what_is_cancelled_skips_what_needs_it_also_in_the_next_launch() {
    let folder = folder(WAITS);
    let folder = folder.path();
    let first = launch(folder);
    appears(folder, &["waits-0-1", "waits-1-1"]);
    let ran = spinectl(folder, &["cancel", "runs/small", FOLDS[0]]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    for words in [
        "cancelled; it has no checkpoint",
        "skipped, as they need it: study-boxes, summary",
        "resume runs/small stage1a-resnest14d-fold0-seed0",
    ] {
        assert!(ran.out.contains(words), "{words}\n{}", ran.out);
    }
    go(folder, 1);
    let out = Ran::from(first);
    assert_eq!(out.code, Some(1), "{}", out.err);
    assert!(
        out.err.contains(&format!("cancelled: {}", FOLDS[0])),
        "{}",
        out.err
    );
    let shown = spinectl(folder, &["status", "runs/small"]).out;
    let skipped = "skipped, as they need it: study-boxes, summary";
    assert!(shown.contains(skipped), "{shown}");
    assert_eq!(job(folder, "summary")["skipped_for"], FOLDS[0]);

    let again = spinectl(folder, &LAUNCH);
    assert_eq!(again.code, Some(1), "{}", again.err);
    assert_eq!(started(folder).len(), 2, "nothing was run");
    let ran = spinectl(folder, &["resume", "runs/small", FOLDS[0]]);
    assert!(ran.out.contains("Go on: "), "{}", ran.out);
    go(folder, 0);
    let last = spinectl(folder, &LAUNCH);
    assert_eq!(last.code, Some(0), "{}", last.err);
    assert_eq!(job(folder, "summary")["state"], "succeeded");
}

#[test]
fn what_cannot_be_held_is_refused_by_name() {
    let folder = folder("");
    let folder = folder.path();
    let ran = spinectl(folder, &["pause", ".", "labels"]);
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert_eq!(spinectl(folder, &["launch", "-q"]).code, Some(0));
    for (words, part) in [
        (
            ["pause", "runs/small", "stage1a-resnest14d-fold0"],
            "did you mean `stage1a-resnest14d-fold0-seed0`",
        ),
        (
            ["cancel", "runs/small", "labels"],
            "job labels has succeeded: what is done cannot be cancelled",
        ),
        (
            ["resume", "runs/small", "labels"],
            "job labels is neither paused nor cancelled",
        ),
    ] {
        let ran = spinectl(folder, &words);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""));
        assert!(ran.err.contains(part), "{}", ran.err);
    }
}

#[test]
fn one_that_does_not_stop_in_time_is_told_and_stays_asked() {
    let folder = folder(&WAITS.replace("exit 75", ""));
    let folder = folder.path();
    let launch = launch(folder);
    appears(folder, &["waits-0-1", "waits-1-1"]);
    let ran = spinectl(folder, &["pause", "runs/small", FOLDS[0], "--wait", "0.1"]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains("has not stopped within"), "{}", ran.err);
    assert_eq!(job(folder, FOLDS[0])["held"], "paused");
    go(folder, 0);
    go(folder, 1);
    // It ends well before it heeds the request, so that nothing is paused any more.
    let out = Ran::from(launch);
    assert_eq!(out.code, Some(0), "{}", out.err);
    assert_eq!(job(folder, FOLDS[0])["held"], Value::Null);
}
