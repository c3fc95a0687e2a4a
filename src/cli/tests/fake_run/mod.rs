//! Runs in a folder of their own, whose ranks are a program of bash.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::program::{self, Ran};

const RECIPE: &str = "name: small\ndevice: cpu\nretries: 0\ndata: {root: ., folds: 2}\n\
    stage1a: {training: {arch: resnest14d, batch: 8, micro_batch: 4}}\n";

/// A folder with a recipe and a rank program whose body is bash.
pub fn folder(body: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("spinectl.yaml"), RECIPE).unwrap();
    let program = folder.path().join("rank");
    let head = r#"#!/bin/bash
mode=$1
while [ $# -gt 0 ]; do
    case $1 in --run-dir) run_dir=$2 ;; --job) job=$2 ;; --attempt) attempt=$2 ;; --out) out=$2 ;; esac
    shift
done
say() {
    local about="\"job\":\"$job\",\"attempt\":$attempt,"
    [ "$mode" = job ] || about=
    echo "{\"time\":$EPOCHREALTIME,$about\"rank\":$RANK,$1}" | tr '\n' ' ' >&"$SPINECTL_EVENT_FD"
    echo >&"$SPINECTL_EVENT_FD"
}
"#;
    fs::write(&program, format!("{head}{body}")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

pub fn command(folder: &Path, words: &[&str]) -> Command {
    let mut command = program::spinectl(folder, words);
    command.env("SPINECTL_RANK", folder.join("rank"));
    // Telemetry is a test's own affair.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OTEL_") {
            command.env_remove(name);
        }
    }
    command
}

pub fn spinectl(folder: &Path, words: &[&str]) -> Ran {
    command(folder, words).output().unwrap().into()
}

/// Kills what a failed test leaves running.
pub struct Running(pub Child);

/// Its end and all that it said since.
impl From<Running> for Ran {
    fn from(mut running: Running) -> Self {
        let code = running.0.wait().unwrap().code();
        let read = |from: &mut dyn Read| {
            let mut text = String::new();
            from.read_to_string(&mut text).unwrap();
            text
        };
        Ran {
            code,
            out: read(running.0.stdout.as_mut().unwrap()),
            err: read(running.0.stderr.as_mut().unwrap()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for it; only what hangs takes that long.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "hangs: {what}");
        sleep(Duration::from_millis(5));
    }
}
