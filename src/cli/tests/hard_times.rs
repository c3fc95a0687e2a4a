//! What a machine does to a launch: each ends in clear words and the documented exit code, and leaves no process.

mod fake_run;
mod program;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fake_run::{Running, command, folder, spinectl, wait_until};
use program::Ran;

/// A job that leaves its process id beside the program and waits.
const WAITS: &str = r#"echo $$ >"${0%/*}/pid.partial" && mv "${0%/*}/pid.partial" "${0%/*}/pid"
while [ ! -e "${0%/*}/go" ]; do sleep 0.02; done"#;

fn is_gone(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| stat.contains(") Z"))
}

/// A launch in whose first job `blow` hits the run directory: what it says, once it has ended with exit code 3 and its rank
/// with it.
fn struck(folder: &Path, blow: impl FnOnce(&Path)) -> String {
    let mut launch = Running(command(folder, &["launch", "-q"]).spawn().unwrap());
    let pid = folder.join("pid");
    wait_until("a job runs", || pid.exists());
    let rank = fs::read_to_string(&pid).unwrap();
    blow(&folder.join("runs/small"));
    wait_until("the launch ends by itself", || {
        launch.0.try_wait().unwrap().is_some()
    });
    let code = launch.0.wait().unwrap().code();
    let mut err = String::new();
    std::io::Read::read_to_string(launch.0.stderr.as_mut().unwrap(), &mut err).unwrap();
    assert_eq!(code, Some(3), "{err}");
    assert!(is_gone(rank.trim()), "{err}");
    err
}

#[test]
fn a_run_directory_that_is_deleted_ends_the_run() {
    let folder = folder(WAITS);
    let err = struck(folder.path(), |run| fs::remove_dir_all(run).unwrap());
    assert!(
        err.contains("runs/small is gone: it was deleted while the run was at work"),
        "{err}"
    );
    assert!(err.contains("launch again to begin anew"), "{err}");
    assert!(
        !folder.path().join("runs/small").exists(),
        "half a directory was made anew"
    );
}

#[test]
fn a_run_directory_that_is_moved_ends_the_run_and_another_launch_goes_on_where_it_is_now() {
    let folder = folder(WAITS);
    let moved = folder.path().join("runs/moved");
    let err = struck(folder.path(), |run| fs::rename(run, &moved).unwrap());
    assert!(err.contains("runs/moved`, or move it back"), "{err}");
    assert!(
        !folder.path().join("runs/small").exists(),
        "half a directory was made anew"
    );
    // Its records have gone with it.
    let ran = spinectl(folder.path(), &["status", "runs/moved", "--json"]);
    assert!(ran.out.contains("is gone: it was moved to"), "{}", ran.out);
    fs::write(folder.path().join("go"), "").unwrap();
    let ran = spinectl(folder.path(), &["launch", "-q", "--run-dir", "runs/moved"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let ran = spinectl(folder.path(), &["status", "runs/moved"]);
    assert!(ran.out.contains("5 of 5 jobs done"), "{}", ran.out);
}

#[test]
fn a_run_directory_that_another_one_replaces_is_left_to_that_one() {
    let folder = folder(WAITS);
    let err = struck(folder.path(), |run| {
        fs::rename(run, run.with_file_name("old")).unwrap();
        fs::create_dir(run).unwrap();
        fs::write(run.join("plan.json"), "another's").unwrap();
    });
    assert!(err.contains("runs/small is gone: it was moved"), "{err}");
    let left: Vec<_> = fs::read_dir(folder.path().join("runs/small"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["plan.json"], "nothing of it is written there");
}

#[test]
fn a_launch_with_too_few_files_says_so() {
    let folder = folder("");
    // The program itself needs some to start at all.
    for limit in [12, 16, 20] {
        let launch = command(folder.path(), &["launch", "-q", "--ranks", "4"]);
        let mut limited = Command::new("bash");
        limited
            .args(["-c", &format!("ulimit -n {limit}; exec \"$@\""), "bash"])
            .arg(launch.get_program())
            .args(launch.get_args())
            .current_dir(folder.path())
            .env("SPINECTL_RANK", folder.path().join("rank"))
            .stdin(Stdio::null());
        let ran: Ran = limited.output().unwrap().into();
        assert_eq!(ran.code, Some(3), "{limit}: {}", ran.err);
        assert!(ran.err.contains("ulimit -n"), "{limit} files: {}", ran.err);
        assert!(!ran.err.contains("panicked"), "{}", ran.err);
    }
}

#[test]
fn eight_launches_at_once_do_not_collide() {
    let folder = folder("sleep 0.05");
    let runs: Vec<(String, Running)> = (0..8)
        .map(|number| {
            let run_dir = format!("runs/{number}");
            let words = ["launch", "--ranks", "2", "-q", "--run-dir", &run_dir];
            let launch = Running(command(folder.path(), &words).spawn().unwrap());
            (run_dir, launch)
        })
        .collect();
    for (run_dir, mut launch) in runs {
        let code = launch.0.wait().unwrap().code();
        assert_eq!(code, Some(0), "{run_dir}");
        let ran = spinectl(folder.path(), &["status", &run_dir]);
        assert!(ran.out.contains("5 of 5 jobs done"), "{}", ran.out);
    }
}

#[test]
fn of_eight_launches_on_one_run_directory_one_runs_and_the_others_are_told_who() {
    let folder = folder(WAITS);
    let mut launches: Vec<Running> = (0..8)
        .map(|_| Running(command(folder.path(), &["launch", "-q"]).spawn().unwrap()))
        .collect();
    wait_until("seven are refused", || {
        let ended = launches
            .iter_mut()
            .filter_map(|launch| launch.0.try_wait().unwrap());
        ended.filter(|status| status.code() == Some(3)).count() == 7
    });
    fs::write(folder.path().join("go"), "").unwrap();
    let mut codes = Vec::new();
    for launch in &mut launches {
        codes.push(launch.0.wait().unwrap().code());
        let mut err = String::new();
        std::io::Read::read_to_string(launch.0.stderr.as_mut().unwrap(), &mut err).unwrap();
        if codes.last() == Some(&Some(3)) {
            assert!(
                err.contains("is in use by the launch with process id"),
                "{err}"
            );
        }
    }
    assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 1);
}

/// A file system in memory, gone with the test; none where this user may not mount one.
struct Mount(PathBuf);

impl Mount {
    fn new(folder: &Path, options: &str) -> Option<Self> {
        let at = folder.join("disk");
        fs::create_dir(&at).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&at)
            .output();
        match mount {
            Ok(output) if output.status.success() => Some(Mount(at)),
            _ => {
                eprintln!("skipped: only root may mount a file system");
                None
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_is_read_only_is_told_with_what_to_do() {
    let folder = folder("");
    let Some(_mount) = Mount::new(folder.path(), "ro") else {
        return;
    };
    let ran = spinectl(folder.path(), &["launch", "-q", "--run-dir", "disk/run"]);
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    assert!(
        ran.err.contains("disk/run") && ran.err.contains("take a --run-dir that can be written"),
        "{}",
        ran.err
    );
}

#[test]
fn a_disk_that_is_full_is_told_with_what_to_do() {
    let folder = folder("");
    // From room for nothing to room for the records, but not for the ranks' files.
    for size in ["4k", "32k", "72k"] {
        let Some(mount) = Mount::new(folder.path(), &format!("size={size}")) else {
            return;
        };
        let ran = spinectl(folder.path(), &["launch", "-q", "--run-dir", "disk/run"]);
        assert_eq!(ran.code, Some(3), "{size}: {}", ran.err);
        assert!(
            ran.err.to_lowercase().contains("free some space") || ran.err.contains("Free space"),
            "{size}: {}",
            ran.err
        );
        drop(mount);
        fs::remove_dir(folder.path().join("disk")).unwrap();
    }
}

/// Both folds' trainings tell of more updates than the records of one find room for.
const TRAINS: &str = r#"
case $job in stage1a*)
    for step in $(seq 300); do
        say "\"event\":\"step\",\"step\":$step,\"total_steps\":300,\"epoch\":0,\"loss\":0.5,\"learning_rate\":0.1,
            \"gradient_norm\":1.0,\"samples\":8,\"images\":8,\"seconds\":0.01,\"phases\":{}"
    done
esac
"#;

#[test]
fn a_disk_that_tensorboard_has_filled_stops_no_training_and_is_told_once() {
    let folder = folder(TRAINS);
    let Some(_mount) = Mount::new(folder.path(), "size=32k") else {
        return;
    };
    let run = folder.path().join("runs/small");
    fs::create_dir_all(&run).unwrap();
    symlink(folder.path().join("disk"), run.join("tensorboard")).unwrap();
    let ran = spinectl(folder.path(), &["launch", "-q"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let told = ran.err.matches("No space left on device").count();
    assert_eq!(told, 1, "{}", ran.err);
    assert!(ran.err.contains("training goes on"), "{}", ran.err);
    let summary = fs::read_to_string(run.join("summary.md")).unwrap();
    assert!(summary.contains("No space left on device"), "{summary}");
    let events = fs::read_to_string(run.join("events.jsonl")).unwrap();
    assert_eq!(events.matches("\"event\":\"step\"").count(), 2 * 300);
}
