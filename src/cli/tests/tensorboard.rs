//! `spinectl tensorboard`: which program it starts, with what, and what it says where there is none.

mod program;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use program::{Ran, spinectl};
use tempfile::TempDir;

/// A folder with a run, and a folder `bin` for what is to be in PATH.
fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::create_dir_all(folder.path().join("my run/tensorboard")).unwrap();
    fs::write(folder.path().join("my run/plan.json"), "{}").unwrap();
    fs::create_dir(folder.path().join("bin")).unwrap();
    folder
}

fn put(folder: &Path, name: &str, body: &str) {
    let file = folder.join("bin").join(name);
    fs::write(&file, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
}

fn run(folder: &Path, words: &[&str]) -> Ran {
    let mut command = spinectl(folder, &[&["tensorboard"][..], words].concat());
    command.env("PATH", folder.join("bin"));
    command.output().unwrap().into()
}

#[test]
fn the_program_of_the_path_takes_its_place() {
    let folder = folder();
    put(
        folder.path(),
        "tensorboard",
        "for word in \"$@\"; do echo \"<$word>\"; done; exit 7",
    );
    let ran = run(folder.path(), &["my run", "--port", "7007"]);
    assert_eq!(ran.code, Some(7), "{}", ran.err);
    assert_eq!(
        ran.out,
        "<--logdir>\n<my run/tensorboard>\n<--host>\n<127.0.0.1>\n<--port>\n<7007>\n<--load_fast>\n<false>\n"
    );
    assert!(ran.err.contains("http://127.0.0.1:7007/"), "{}", ran.err);
}

#[test]
fn a_python_that_has_it_will_do_and_one_that_has_not_is_passed_over() {
    let folder = folder();
    // As interpreters that are asked for the module with -c, and started with -m.
    put(folder.path(), "python3", "[ \"$1\" != -c ] || exit 1");
    put(folder.path(), "python", "[ \"$1\" = -c ] || echo \"$1 $2\"");
    let ran = run(folder.path(), &["my run"]);
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (Some(0), "-m tensorboard.main\n")
    );
}

#[test]
fn the_command_is_shown_quoted_and_as_json() {
    let folder = folder();
    put(folder.path(), "tensorboard", "echo \"$2 $9\"; exit 9");
    let program = folder.path().join("bin/tensorboard");
    let ran = run(folder.path(), &["my run", "--dry-run"]);
    let expected = format!(
        "{} --logdir 'my run/tensorboard' --host 127.0.0.1 --port 6006 --load_fast false\n",
        program.display()
    );
    assert_eq!((ran.code, &ran.out), (Some(0), &expected));
    // As the help says it is added to.
    let added = Command::new("/bin/sh")
        .args([
            "-c",
            "eval \"$1 --reload_interval 5\"",
            "sh",
            ran.out.trim_end(),
        ])
        .output()
        .unwrap();
    assert_eq!(added.status.code(), Some(9));
    assert_eq!(added.stdout, b"my run/tensorboard --reload_interval\n");
    let ran = run(folder.path(), &["my run", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(shown["command"][2], "my run/tensorboard");
    assert_eq!(shown["url"], "http://127.0.0.1:6006/");
}

#[test]
fn without_one_it_says_how_to_get_it_and_without_a_run_what_is_wrong() {
    let folder = folder();
    // Neither a folder of that name nor a link to nothing is a program.
    fs::create_dir(folder.path().join("bin/tensorboard")).unwrap();
    symlink("nothing", folder.path().join("bin/python3")).unwrap();
    let ran = run(folder.path(), &["my run"]);
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    assert!(ran.err.contains("pip install tensorboard"), "{}", ran.err);
    let ran = run(folder.path(), &["bin"]);
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert!(ran.err.contains("no run in bin"), "{}", ran.err);
}
