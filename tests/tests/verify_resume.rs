//! `launch --verify-resume`, end to end: a resume is proved to be exact, and what is not the same is found.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use spinectl_tests::{launch_arguments, phantom, processes, program};

/// Two small training jobs and their tables, a checkpoint after every other update.
const RECIPE: [&str; 6] = [
    "--stages=1a",
    "--set=checkpoint.every=2",
    "--set=stage1a.training.epochs=5",
    "--set=stage1a.training.micro_batch=3",
    "--set=stall_timeout=60",
    "--json",
];

/// Between two jobs of the disturbed run, one of each thing that must be the same is changed.
const SPOILS: &str = r#"#!/bin/bash
case "$* " in */disturbed\ *summary\ *)
    for word; do case $word in */disturbed) run=$word ;; esac; done
    job=$(echo "$run"/jobs/stage1a-*-fold0-*)
    echo >>"$job/out_of_fold.csv"
    sed -i 's/"step":2,/"step":3,/' "$job/ledger.jsonl"
    newest=$(ls -d "$job"/checkpoints/step-* | tail -n 1)
    echo >>"$newest/model.safetensors"
    # In place: the launcher appends to it.
    sed '/"step":2,.*"loss":/s/"loss":/"loss":1/' "$run/events.jsonl" >"$run/changed"
    cat "$run/changed" >"$run/events.jsonl" ;;
esac
exec "$REAL_RANK" "$@"
"#;

/// The exit code, what was found, and what was said.
fn verify(command: &mut Command) -> (Option<i32>, Value, String) {
    let ran = command.output().unwrap();
    let said = String::from_utf8_lossy(&[&ran.stdout[..], &ran.stderr].concat()).into_owned();
    let found = serde_json::from_slice(&ran.stdout).unwrap_or_else(|_| panic!("{said}"));
    (ran.status.code(), found, said)
}

fn command(data: &Path, folder: &Path, more: &[&str]) -> Command {
    let more: Vec<&str> = RECIPE.iter().chain(more).copied().collect();
    let mut command = Command::new(program("spinectl"));
    command.args(launch_arguments(data, folder, 2, &more));
    command
}

#[test]
fn a_run_that_is_killed_in_each_way_is_proved_to_be_the_undisturbed_one() {
    let folder = tempfile::tempdir().unwrap();
    let data = phantom(folder.path());
    let verification = folder.path().join("verification");
    let (code, found, said) = verify(&mut command(&data, &verification, &["--verify-resume"]));
    assert_eq!(code, Some(0), "{said}");
    println!("--verify-seed {}", found["seed"]);
    assert_eq!(
        (&found["proved"], &found["identical"]),
        (&true.into(), &true.into())
    );

    let blows = found["blows"].as_array().unwrap();
    let weapons: Vec<_> = blows.iter().map(|blow| blow["weapon"].clone()).collect();
    assert_eq!(weapons, ["kill_rank", "kill_launcher", "stop"]);
    let dealt = blows.iter().filter(|blow| blow["dealt"] == true);
    assert_eq!(found["dealt"], dealt.count());
    for late in blows.iter().filter(|blow| blow["dealt"] == false) {
        let outcome = late["outcome"].as_str().unwrap();
        assert!(outcome.starts_with("came too late"), "{late}");
    }

    for part in found["compared"].as_array().unwrap() {
        assert!(part["count"].as_u64().unwrap() > 0, "{part}");
    }
    for audit in found["audits"].as_array().unwrap() {
        assert!(audit["proved"].as_u64().unwrap() > 0, "{audit}");
        assert_eq!(audit["proved"], audit["total"], "{audit}");
    }
    for name in ["undisturbed", "disturbed"] {
        let run = verification.join(name);
        assert!(run.join("summary.json").is_file());
        assert!(processes(&run).is_empty(), "{name}");
    }
    // What repeats is what the events of the disturbed run say of it.
    let repeated: u64 = blows
        .iter()
        .filter_map(|blow| blow["repeated"].as_u64())
        .sum();
    assert_eq!(repeated, steps_done_again(&verification.join("disturbed")));
}

fn steps_done_again(run: &Path) -> u64 {
    let mut done = std::collections::BTreeSet::new();
    let events = fs::read_to_string(run.join("events.jsonl")).unwrap();
    let events = events.lines().map(serde_json::from_str::<Value>);
    let steps = events
        .filter_map(Result::ok)
        .filter(|event| event["event"] == "step");
    let again =
        steps.filter(|event| !done.insert((event["job"].to_string(), event["step"].as_u64())));
    again.count() as u64
}

#[test]
fn what_is_not_the_same_is_named_with_its_file_and_step() {
    let folder = tempfile::tempdir().unwrap();
    let data = phantom(folder.path());
    let spoils = folder.path().join("rank");
    fs::write(&spoils, SPOILS).unwrap();
    fs::set_permissions(&spoils, fs::Permissions::from_mode(0o755)).unwrap();
    let verification = folder.path().join("verification");
    let mut command = command(&data, &verification, &["--verify-resume", "1"]);
    command
        .env("SPINECTL_RANK", &spoils)
        .env("REAL_RANK", program("spinectl-rank"));
    let (code, found, said) = verify(&mut command);
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(
        (&found["proved"], &found["identical"]),
        (&false.into(), &false.into())
    );

    let of = |what: &str| {
        let parts = found["compared"].as_array().unwrap();
        let part = parts.iter().find(|part| part["what"] == what).unwrap();
        part["differences"].to_string()
    };
    let job = "stage1a-resnest14d-fold0-seed0";
    for (differences, part) in [
        (of("weights"), "model.safetensors"),
        (of("tables"), "out_of_fold.csv line"),
        (of("losses"), "step 2: loss is "),
        (
            found["audits"][1]["faults"].to_string(),
            "is not what was written",
        ),
    ] {
        assert!(differences.contains(job), "{differences}");
        assert!(differences.contains(part), "{differences}");
    }
    // The undisturbed run was left alone.
    assert_eq!(found["audits"][0]["faults"], serde_json::json!([]));
}
