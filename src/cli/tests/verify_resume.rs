//! `launch --verify-resume` with ranks of bash: what it refuses, what it finds, how it is stopped. With real ones:
//! `tests/tests/verify_resume.rs`.

mod fake_run;
mod program;

use std::fs;
use std::path::Path;
use std::process::Child;

use serde_json::Value;

use fake_run::{Running, command, folder, spinectl, wait_until};

/// One update, whose loss is another one in the disturbed run; no checkpoints, no ledger.
const ANOTHER_LOSS: &str = r#"
case $job in stage1a-resnest14d-fold0*)
    case $run_dir in */undisturbed) loss=0.1 ;; *) loss=0.2 ;; esac
    say "\"event\":\"step\",\"step\":1,\"total_steps\":1,\"epoch\":0,\"loss\":$loss,\"learning_rate\":0.1,
        \"gradient_norm\":1.0,\"samples\":8,\"images\":8,\"seconds\":0.5" ;;
summary) echo "{\"stage1a\": {\"study_box_iou\": 0.5}}" >"$run_dir/summary.json" ;;
esac
"#;

/// Waits for ever. The first rank says so.
const WAITS: &str = r#"
here=${0%/*}
trap 'exit 75' TERM
[ ! -e "$here/stubborn" ] || trap 'touch "$here/asked"' TERM
echo $$ >"$here/pid.partial"
mv "$here/pid.partial" "$here/pid"
while :; do sleep 0.02; done
"#;

/// The recipe of these tests has none: a killed rank would be the end.
const RETRIES: [&str; 2] = ["--set", "retries=2"];

#[test]
fn what_cannot_go_together_is_refused_before_anything_is_made() {
    let folder = folder("exit 1");
    for (words, part) in [
        (vec!["--verify-resume", "--resume", "never"], "'--resume"),
        (vec!["--verify-resume", "--dry-run"], "'--dry-run'"),
        (vec!["--verify-resume", "--nodes", "2"], "'--nodes"),
        (vec!["--verify-resume", "0"], "how often to kill, 1 to 1000"),
        (
            vec!["--verify-resume", "spinectl.yaml"],
            "write the recipe before it",
        ),
        (vec!["--verify-seed", "3"], "--verify-resume"),
        (
            vec!["--verify-resume", "--cluster", "slurm"],
            "leave --cluster slurm out",
        ),
        (vec!["--verify-resume"], "add --set retries=1"),
    ] {
        let all: Vec<&str> = ["launch"].into_iter().chain(words).collect();
        let ran = spinectl(folder.path(), &all);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{all:?}");
        assert!(ran.err.contains(part), "{all:?}: {}", ran.err);
        assert!(!folder.path().join("runs").exists(), "{all:?}");
    }
}

#[test]
fn a_folder_that_holds_a_run_or_an_earlier_verification_is_refused() {
    let folder = folder("[ $job != summary ] || echo {} >\"$run_dir/summary.json\"");
    assert_eq!(spinectl(folder.path(), &["launch", "-q"]).code, Some(0));
    let verify = |run_dir: &str| {
        let words = ["launch", "--verify-resume", "--run-dir", run_dir];
        let words: Vec<&str> = words.into_iter().chain(RETRIES).collect();
        spinectl(folder.path(), &words)
    };
    let ran = verify("runs/small");
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert!(ran.err.contains("runs/small holds a run"), "{}", ran.err);
    assert!(!folder.path().join("runs/small/undisturbed").exists());

    fs::create_dir_all(folder.path().join("there/disturbed")).unwrap();
    let ran = verify("there");
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert!(ran.err.contains("there/disturbed is there already"));
}

#[test]
fn a_run_that_fails_ends_it_with_that_runs_code_and_log() {
    let folder = folder("echo the slice is torn; exit 4");
    let words = ["launch", "--verify-resume"].into_iter().chain(RETRIES);
    let ran = spinectl(folder.path(), &words.collect::<Vec<_>>());
    assert_eq!((ran.code, ran.out.as_str()), (Some(4), ""), "{}", ran.err);
    for part in [
        "the undisturbed run ended with exit status: 4",
        "nothing is proved",
        "undisturbed.log, its end:",
        "labels failed",
    ] {
        assert!(ran.err.contains(part), "{part}: {}", ran.err);
    }
}

#[test]
fn a_loss_that_differs_is_named_and_what_was_not_saved_proves_nothing() {
    let folder = folder(ANOTHER_LOSS);
    let words = ["launch", "--verify-resume", "1", "--verify-seed", "7"];
    let words = words.into_iter().chain(RETRIES).chain(["--json"]);
    let ran = spinectl(folder.path(), &words.collect::<Vec<_>>());
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    let found: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(
        (&found["proved"], &found["seed"]),
        (&false.into(), &7.into())
    );
    assert_eq!(found["identical"], false);
    assert_eq!(found["blows"][0]["weapon"], "kill_rank");
    let losses = found["compared"].as_array().unwrap().last().unwrap();
    assert_eq!(losses["what"], "losses");
    let job = "stage1a-resnest14d-fold0-seed0";
    assert_eq!(
        losses["differences"][0],
        format!("{job} step 1: loss is 0.1 and 0.2")
    );
    let weights = &found["compared"][0];
    let difference = format!("{job}: undisturbed has no checkpoint");
    assert_eq!(weights["differences"][0], difference);
    let faults = found["audits"][1]["faults"].to_string();
    assert!(faults.contains("ledger.jsonl"), "{faults}");
}

/// Begins a verification, and waits until a rank of its first run is at work; the rank's pid.
fn begin(folder: &Path) -> (Running, i32) {
    let words = ["launch", "--verify-resume"].into_iter().chain(RETRIES);
    let started = command(folder, &words.collect::<Vec<_>>()).spawn();
    let running = Running(started.unwrap());
    let pid = folder.join("pid");
    wait_until("a rank waits", || pid.exists());
    let pid = fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    (running, pid)
}

fn signal(child: &Child, signal: i32) {
    let pid = child.id().try_into().unwrap();
    // SAFETY: a plain system call on a child that was not waited for.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

/// Neither the rank nor its launcher is left.
fn assert_gone(folder: &Path, rank: i32) {
    wait_until("the rank is gone", || {
        let stat = fs::read_to_string(format!("/proc/{rank}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    });
    wait_until("the launcher is gone", || {
        let run = "runs/small-verify-resume/undisturbed";
        let status = spinectl(folder, &["status", run, "--json"]);
        let status: Value = serde_json::from_str(&status.out).unwrap();
        status["launcher_pid"].is_null()
    });
}

#[test]
fn ctrl_c_ends_it_with_all_that_it_started() {
    let folder = folder(WAITS);
    let (mut running, rank) = begin(folder.path());
    signal(&running.0, libc::SIGINT);
    assert_eq!(running.0.wait().unwrap().code(), Some(130));
    assert!(!Path::new(&format!("/proc/{rank}")).exists());
    assert_gone(folder.path(), rank);
}

#[test]
fn a_second_ctrl_c_does_not_wait_for_ranks_that_do_not_listen() {
    let folder = folder(WAITS);
    fs::write(folder.path().join("stubborn"), "").unwrap();
    let (mut running, rank) = begin(folder.path());
    signal(&running.0, libc::SIGTERM);
    wait_until("the rank was asked to stop", || {
        folder.path().join("asked").exists()
    });
    signal(&running.0, libc::SIGINT);
    assert_eq!(running.0.wait().unwrap().code(), Some(143));
    assert_gone(folder.path(), rank);
}

#[test]
fn what_it_started_dies_with_it() {
    let folder = folder(WAITS);
    let (mut running, rank) = begin(folder.path());
    running.0.kill().unwrap();
    running.0.wait().unwrap();
    assert_gone(folder.path(), rank);
}
