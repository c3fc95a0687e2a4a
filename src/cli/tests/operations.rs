//! What an operator types while a run is at work: logs, stop, status --watch.

mod fake_run;
mod program;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use fake_run::{Running, command, folder, spinectl, wait_until};
use program::Ran;

/// A training rank says where it is, waits for `go`, and saves when it is asked to stop.
const WAITS: &str = r#"
here=${0%/*}
echo "$job rank $RANK attempt $attempt"
case $job in stage1a*)
    trap 'say "\"event\":\"checkpoint_written\",\"step\":5,\"bytes\":1,\"seconds\":0.1"; exit 75' TERM
    say '"event":"heartbeat","phase":"all_reduce","step":4,"sequence":9'
    [ "$RANK" != 0 ] || say '"event":"step","step":4,"total_steps":10,"epoch":0,"loss":0.25,"learning_rate":0.1,
        "gradient_norm":1.0,"samples":8,"images":8,"seconds":0.5'
    touch "$here/waits-$RANK"
    while [ ! -e "$here/go" ]; do sleep 0.02; done
    printf 'the end of rank %s' "$RANK" ;;
esac
"#;

fn start(folder: &Path) -> Running {
    let running = Running(
        command(folder, &["launch", "--ranks", "2", "-q"])
            .spawn()
            .unwrap(),
    );
    wait_until("both ranks wait", || {
        [0, 1].map(|rank| folder.join(format!("waits-{rank}")).exists()) == [true; 2]
    });
    // The launcher has read what they said.
    wait_until("the step is on record", || {
        let events = fs::read_to_string(folder.join("runs/small/events.jsonl"));
        events.is_ok_and(|events| {
            events.contains("\"step\":4,\"total") && events.matches("all_reduce").count() == 2
        })
    });
    running
}

#[test]
fn logs_of_all_ranks_are_shown_with_their_names_and_followed_to_the_end_of_the_run() {
    let folder = folder(WAITS);
    let launch = start(folder.path());
    let now = spinectl(folder.path(), &["logs", "runs/small"]);
    assert_eq!(now.code, Some(0), "{}", now.err);
    let job = "stage1a-resnest14d-fold0-seed0";
    assert_eq!(
        now.out,
        format!("[fold0 r0] {job} rank 0 attempt 1\n[fold0 r1] {job} rank 1 attempt 1\n")
    );
    let follower = Running(
        command(folder.path(), &["logs", "runs/small", "-f"])
            .spawn()
            .unwrap(),
    );
    fs::write(folder.path().join("go"), "").unwrap();
    assert_eq!(Ran::from(launch).code, Some(0));
    let followed = Ran::from(follower);
    assert_eq!(followed.code, Some(0), "{}", followed.err);
    let lines: Vec<&str> = followed.out.lines().collect();
    for line in [
        "[stage1a fold0 r1] stage1a-resnest14d-fold0-seed0 rank 1 attempt 1",
        "[stage1a fold0 r1] the end of rank 1",
        "[stage1a fold1 r0] stage1a-resnest14d-fold1-seed0 rank 0 attempt 1",
        "[stage1a fold1 r0] the end of rank 0",
        "[study-boxes r0] study-boxes rank 0 attempt 1",
        "[summary r0] summary rank 0 attempt 1",
    ] {
        assert_eq!(
            lines.iter().filter(|l| **l == line).count(),
            1,
            "{line}\n{lines:#?}"
        );
    }
    // The labels were done before anybody looked.
    assert_eq!(lines.len(), 2 * 4 + 2, "{lines:#?}");

    let words = [
        "logs",
        "runs/small",
        job,
        "--rank",
        "1",
        "--tail",
        "0",
        "--json",
    ];
    let ran = spinectl(folder.path(), &words);
    let line: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(line["line"], "the end of rank 1");
    assert_eq!((&line["rank"], &line["attempt"]), (&1.into(), &1.into()));
}

#[test]
fn what_has_no_log_is_named_with_what_has() {
    let folder = folder("echo said");
    assert_eq!(spinectl(folder.path(), &["launch", "-q"]).code, Some(0));
    for (words, part) in [
        (vec!["stage9"], "no job `stage9`; it has:\n  labels\n"),
        (vec!["labels", "--rank", "4"], "rank 4 has no log in"),
        (
            vec!["labels", "--attempt", "2"],
            "labels has had no attempt 2; its newest is 1",
        ),
    ] {
        let mut all = vec!["logs", "runs/small"];
        all.extend(words);
        let ran = spinectl(folder.path(), &all);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""));
        assert!(ran.err.contains(part), "{}", ran.err);
    }
    let ran = spinectl(folder.path(), &["logs", "."]);
    assert_eq!(ran.code, Some(2), "{}", ran.err);
}

#[test]
fn a_log_of_control_characters_is_harmless_and_its_reader_may_go_away() {
    let folder = folder(
        r#"printf 'red \033[31m\033]0;title\007 end\n'
for i in $(seq 20000); do echo "line $i of a log that is long enough to fill the pipe"; done"#,
    );
    assert_eq!(spinectl(folder.path(), &["launch", "-q"]).code, Some(0));
    let mut child = command(folder.path(), &["logs", "runs/small", "labels"])
        .spawn()
        .unwrap();
    let mut first = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut first).unwrap();
    drop(out);
    assert_eq!(first, "[labels r0] red \\x1b[31m\\x1b]0;title\\x07 end\n");
    let mut err = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut err)
        .unwrap();
    assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(0), ""));
}

#[test]
fn a_stop_waits_for_the_end_and_says_what_was_saved() {
    let folder = folder(WAITS);
    let none = spinectl(folder.path(), &["stop", "runs/small"]);
    assert_eq!(none.code, Some(2), "{}", none.err);
    let launch = start(folder.path());
    let ran = spinectl(folder.path(), &["stop", "runs/small", "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let result: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(result["stopped"], true);
    assert_eq!(result["jobs"][0]["job"], "stage1a-resnest14d-fold0-seed0");
    assert_eq!(result["jobs"][0]["state"], "stopped");
    assert_eq!(Ran::from(launch).code, Some(75));

    let again = spinectl(folder.path(), &["stop", "runs/small"]);
    assert_eq!(again.code, Some(2));
    assert!(again.err.contains("nothing runs in runs/small"));
}

#[test]
fn one_that_does_not_end_in_time_is_told_and_now_ends_it() {
    // It hears the request, and takes its time.
    let folder = folder(&WAITS.replace("exit 75", ""));
    let launch = start(folder.path());
    let ran = spinectl(folder.path(), &["stop", "runs/small", "--wait", "0.3"]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains("--now` ends it at once"), "{}", ran.err);
    let ran = spinectl(folder.path(), &["stop", "runs/small", "--now"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(
        ran.out
            .contains("fold0-seed0: has no checkpoint yet: begins anew"),
        "{}",
        ran.out
    );
    let code = Ran::from(launch).code;
    assert!(matches!(code, Some(130 | 143)), "{code:?}");
}

#[test]
fn status_tells_what_each_rank_does_and_what_went_wrong() {
    let broken = folder(
        r#"case $job in stage1a*) echo gone
echo '{"failed_at":1.0,"class":"data","message":"slice 7 is torn"}' >"$run_dir/jobs/$job/attempt-$attempt/failure-rank$RANK.json"
say '"event":"rank_failed","failed_at":1.0,"class":"data",
"message":"slice 7 is torn","phase":"data_wait","step":3'; exit 4 ;; esac"#,
    );
    let ran = spinectl(broken.path(), &["launch", "-q"]);
    assert_eq!(ran.code, Some(4), "{}", ran.err);
    let status = spinectl(broken.path(), &["status", "runs/small", "--json"]);
    let status: Value = serde_json::from_str(&status.out).unwrap();
    assert_eq!(status["jobs"][1]["last_failure"]["rank"], 0, "{status:#}");
    let ran = spinectl(broken.path(), &["status", "runs/small"]);
    assert!(
        ran.out
            .contains("attempt 1 failed (data): rank 0, data wait at step 3: slice 7 is torn"),
        "{}",
        ran.out
    );

    let folder = folder(WAITS);
    let launch = start(folder.path());
    let ran = spinectl(folder.path(), &["status", "runs/small", "--json"]);
    let status: Value = serde_json::from_str(&ran.out).unwrap();
    let job = &status["jobs"][1];
    assert_eq!(job["state"], "running", "{status:#}");
    assert_eq!(job["ranks"][1]["phase"], "all_reduce");
    assert_eq!(job["ranks"][1]["step"], 4);
    assert_eq!(job["seconds_per_step"], 0.5);
    assert_eq!(job["remaining_seconds"], 3.0);
    let ran = spinectl(folder.path(), &["status", "runs/small"]);
    assert!(
        ran.out
            .contains("step 4/10, 0.5000 s/step, 16 images/s, 0:03 left"),
        "{}",
        ran.out
    );
    fs::write(folder.path().join("go"), "").unwrap();
    assert_eq!(Ran::from(launch).code, Some(0));
}

/// A terminal of 30 lines of 100 characters: the side of the person and that of the program.
fn terminal() -> (File, OwnedFd) {
    let size = libc::winsize {
        ws_row: 30,
        ws_col: 100,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let (mut person, mut program) = (-1, -1);
    let (name, as_it_is) = (std::ptr::null_mut(), std::ptr::null());
    // SAFETY: the outputs live across the call, and both descriptors are new.
    unsafe {
        let opened = libc::openpty(&raw mut person, &raw mut program, name, as_it_is, &size);
        assert_eq!(opened, 0);
        (File::from_raw_fd(person), OwnedFd::from_raw_fd(program))
    }
}

#[test]
fn a_watched_status_gives_the_terminal_back_at_a_signal_and_at_the_end_of_the_run() {
    for signal in [Some("INT"), Some("TERM"), None] {
        let folder = folder(WAITS);
        let launch = start(folder.path());
        let (mut person, program) = terminal();
        let mut watch = Command::new(env!("CARGO_BIN_EXE_spinectl"));
        watch
            .args(["status", "runs/small", "--watch", "0.1"])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(program);
        let mut watching = Running(watch.spawn().unwrap());
        drop(watch);
        let mut seen = Vec::new();
        let mut bytes = [0; 4096];
        while !String::from_utf8_lossy(&seen).contains("all-reduce") {
            let read = person.read(&mut bytes).unwrap();
            seen.extend_from_slice(&bytes[..read]);
        }
        match signal {
            Some(signal) => {
                let pid = watching.0.id().to_string();
                let sent = Command::new("kill").args(["-s", signal, &pid]).status();
                assert!(sent.unwrap().success());
            }
            None => fs::write(folder.path().join("go"), "").unwrap(),
        }
        // Its end closes the terminal's other side.
        while let Ok(read @ 1..) = person.read(&mut bytes) {
            seen.extend_from_slice(&bytes[..read]);
        }
        assert_eq!(watching.0.wait().unwrap().code(), Some(0));
        let seen = String::from_utf8_lossy(&seen);
        assert!(seen.starts_with("\x1b[?1049h"), "{seen:?}");
        let (_, after) = seen
            .split_once("\x1b[?25h\x1b[?1049l")
            .expect("the screen is not given back");
        assert!(after.contains("stage1a-resnest14d-fold0-seed0"), "{after}");
        fs::write(folder.path().join("go"), "").unwrap();
        assert_eq!(Ran::from(launch).code, Some(0), "watching stops nothing");
    }
}

#[test]
fn a_status_watched_through_a_pipe_is_printed_until_the_run_ends() {
    let folder = folder(WAITS);
    let launch = start(folder.path());
    let words = ["status", "runs/small", "--watch", "0.1", "--json"];
    let mut watching = Running(command(folder.path(), &words).spawn().unwrap());
    let mut out = BufReader::new(watching.0.stdout.take().unwrap());
    let mut line = String::new();
    for _ in 0..2 {
        line.clear();
        out.read_line(&mut line).unwrap();
    }
    fs::write(folder.path().join("go"), "").unwrap();
    assert_eq!(Ran::from(launch).code, Some(0));
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    let last: Value = serde_json::from_str(rest.lines().last().unwrap()).unwrap();
    assert_eq!(last["launcher_pid"], Value::Null);
    assert_eq!(last["jobs"][4]["state"], "succeeded");
    assert_eq!(watching.0.wait().unwrap().code(), Some(0));
}

/// A rank program that answers as one on a machine without GPUs does.
const PROBED: &str = r#"[ "$mode" != probe ] || echo '{"libtorch_version":"2.11.0","libtorch_folder":"/torch/lib","threads":2,
"gloo":{"Ok":null},"cuda":{"Err":"no GPU half"},"devices":{"Err":"no GPU half"},"nccl":{"Err":"no GPU half"}}'"#;

#[test]
fn a_doctor_tells_recipe_data_and_machine_apart() {
    let folder = folder(PROBED);
    let doctor = |words: &[&str]| {
        let mut all = vec!["doctor", "--json"];
        all.extend(words);
        let ran = spinectl(folder.path(), &all);
        let report: Value = serde_json::from_str(&ran.out).expect(&ran.err);
        let state = |name: &str| {
            let checks = report["checks"].as_array().unwrap();
            let check = checks.iter().find(|check| check["name"] == name);
            check.map_or("absent".to_owned(), |check| {
                check["state"].as_str().unwrap().to_owned()
            })
        };
        let names = [
            "recipe",
            "data set",
            "GPUs",
            "libtorch",
            "Gloo",
            "run directory",
        ];
        (ran.code, names.map(state).join(" "))
    };
    // There is no train_images/ yet.
    assert_eq!(doctor(&[]), (Some(4), "ok fail ok ok ok ok".into()));
    assert_eq!(
        doctor(&["--set", "stage1a.training.batch=lots"]),
        (Some(2), "fail absent warn ok ok ok".into())
    );
    assert_eq!(
        doctor(&["--gpus", "2"]),
        (Some(3), "ok fail fail ok ok ok".into())
    );
    assert_eq!(
        doctor(&["--run-dir", "/proc/runs"]),
        (Some(3), "ok fail ok ok ok fail".into())
    );
    let synth = [
        "data",
        "synth",
        "--out",
        "set",
        "--studies",
        "4",
        "--slices",
        "16",
        "--size",
        "32",
    ];
    assert_eq!(spinectl(folder.path(), &synth).code, Some(0));
    assert_eq!(
        doctor(&["--set", "data.root=set"]),
        (Some(0), "ok ok ok ok ok ok".into())
    );
    let before = fs::read_dir(folder.path()).unwrap().count();
    let ran = spinectl(folder.path(), &["doctor", "--gpus", "1"]);
    assert!(
        ran.out.contains("-> without GPUs, add `--device cpu"),
        "{}",
        ran.out
    );
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        before,
        "it changes nothing"
    );
}
