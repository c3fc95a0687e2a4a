//! What an operator relies on, with the real programs: a private run is closed to strangers, and doctor asks the real libtorch.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use spinectl_tests::{Launch, kill, launch_arguments, phantom, processes, ranks, spinectl};

/// The user that owns nothing.
const NOBODY: u32 = 65534;

/// A command as another user; none where this one may not become anybody.
fn as_stranger(program: &str, arguments: &[&Path]) -> Option<Output> {
    // SAFETY: the call takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("skipped: only root may become another user");
        return None;
    }
    let mut command = Command::new(program);
    command.args(arguments).current_dir("/");
    // std drops the groups of root with its user.
    command.uid(NOBODY).gid(NOBODY);
    Some(command.output().unwrap())
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        }
        found.push(path);
    }
    found
}

/// The local addresses, as the kernel writes them, on which these processes listen.
fn listening(pids: &[i32]) -> Vec<String> {
    let mut sockets = Vec::new();
    for pid in pids {
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten()
        {
            if let Ok(target) = fs::read_link(entry.path()) {
                sockets.push(target.display().to_string());
            }
        }
    }
    let mut addresses = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let inode = format!("socket:[{}]", fields[9]);
            // 0A: it listens.
            if fields[3] == "0A" && sockets.contains(&inode) {
                addresses.push(fields[1].to_owned());
            }
        }
    }
    addresses
}

#[test]
fn a_private_run_cannot_be_read_by_another_user_and_listens_on_loopback_alone() {
    let folder = tempfile::tempdir().unwrap();
    // Nothing but the run directory itself stands in the way.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let data = phantom(folder.path());
    let run = folder.path().join("run");
    // One that is there, and open to all.
    fs::create_dir(&run).unwrap();
    fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
    let more = ["--stages=1a", "--set=private=true"];
    let arguments = launch_arguments(&data, &run, 2, &more);
    let mut launch = Launch::start(&arguments, &run);
    launch.wait_for(&["\"event\":\"step\"", "stage1a"]);

    let addresses = listening(&ranks(&run));
    assert!(
        !addresses.is_empty(),
        "ranks that train listen for each other"
    );
    for address in &addresses {
        assert!(
            address.starts_with("0100007F:"),
            "{address} is not 127.0.0.1"
        );
    }
    for (program, path) in [
        ("ls", run.clone()),
        ("cat", run.join("plan.json")),
        ("cat", run.join("events.jsonl")),
    ] {
        if let Some(tried) = as_stranger(program, &[&path]) {
            let said = String::from_utf8_lossy(&tried.stderr).into_owned();
            assert!(!tried.status.success(), "{program} {}", path.display());
            assert!(said.contains("Permission denied"), "{said}");
        }
    }
    // The same stranger reads what is not private.
    if let Some(tried) = as_stranger("cat", &[&data.join("train.csv")]) {
        assert!(tried.status.success());
    }
    assert_eq!(launch.finish(), Some(0), "{}", launch.log());

    assert_eq!(fs::metadata(&run).unwrap().mode() & 0o7777, 0o700);
    let files = files_below(&run);
    assert!(files.len() > 20, "{files:?}");
    for file in files {
        let mode = fs::symlink_metadata(&file).unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", file.display());
    }
}

#[test]
fn ranks_that_train_end_with_their_run_directory_and_make_none_anew() {
    let folder = tempfile::tempdir().unwrap();
    let data = phantom(folder.path());
    // More than any machine does before the blow, and writing all the time.
    let more = [
        "--stages=1a",
        "--set=checkpoint.every=1",
        "--set=stage1a.training.epochs=10000",
    ];
    for moved in [false, true] {
        let run = folder.path().join("run");
        let elsewhere = folder.path().join("elsewhere");
        let mut launch = Launch::start(&launch_arguments(&data, &run, 2, &more), &run);
        launch.wait_for(&["\"event\":\"checkpoint_written\"", "stage1a"]);
        let alive = processes(&run);
        assert_eq!(alive.len(), 4, "launcher, guardian, ranks");
        match moved {
            true => fs::rename(&run, &elsewhere).unwrap(),
            // What is written meanwhile can make it fail, as `rm -rf` does.
            false => while fs::remove_dir_all(&run).is_err() && run.exists() {},
        }
        assert_eq!(launch.finish(), Some(3), "{}", launch.log());
        let log = launch.log();
        // The launcher may look while it is being deleted.
        let told = ["run is gone: it was", "run is torn: its plan.json"];
        assert!(told.iter().any(|words| log.contains(words)), "{log}");
        assert!(processes(&run).is_empty(), "{:?}", processes(&run));
        assert!(!run.exists(), "half a directory was made anew");
        fs::remove_file(run.with_extension("log")).unwrap();
    }
    // What was moved goes on where it is now: its checkpoints and records are whole.
    let elsewhere = folder.path().join("elsewhere");
    let mut launch = Launch::start(&launch_arguments(&data, &elsewhere, 2, &more), &elsewhere);
    launch.wait_for(&["\"event\":\"job_resumed\"", "stage1a"]);
    kill(launch.pid(), libc::SIGTERM);
    assert_eq!(launch.finish(), Some(75), "{}", launch.log());
}

#[test]
fn a_doctor_asks_the_libtorch_that_ranks_are_linked_to() {
    let doctor = spinectl(["doctor", "--device=cpu", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let found = |name: &str| {
        let checks = report["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["name"] == name);
        check
            .unwrap_or_else(|| panic!("no {name} in {report:#}"))
            .clone()
    };
    assert_eq!(found("Gloo")["state"], "ok", "{report:#}");
    let libtorch = found("libtorch")["found"].as_str().unwrap().to_owned();
    assert!(libtorch.starts_with("2.11"), "{libtorch}");
}
