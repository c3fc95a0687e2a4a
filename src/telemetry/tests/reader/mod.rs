//! TensorBoard's own reader, and the events that tests let it read.

use std::path::{Path, PathBuf};
use std::process::Command;

use event::{EventKind, RunEvent};
use serde_json::Value;
use telemetry::tensorboard::Board;

pub const JOB: &str = "stage2-resnest14d-fold0-seed0";

/// What `tests/python/read_tensorboard.py` prints of `directory`.
pub fn read(directory: &Path) -> Value {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = std::env::var_os("SPINECTL_PYTHON")
        .map_or_else(|| here.join("../../.venv/bin/python"), PathBuf::from);
    let output = Command::new(&python)
        .arg(here.join("tests/python/read_tensorboard.py"))
        .arg(directory)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}: run `make setup-tests`", python.display()));
    assert!(
        output.status.success(),
        "{}\n(is tensorboard installed there? run `make setup-tests`)",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// An event of the job's `attempt`, `seconds` after the run began.
pub fn event(attempt: u32, seconds: f64, kind: EventKind) -> RunEvent {
    RunEvent {
        time: 1_700_000_000.0 + seconds,
        job: Some(JOB.to_owned()),
        attempt: Some(attempt),
        rank: None,
        kind,
    }
}

pub fn record(board: &mut Board, events: impl IntoIterator<Item = RunEvent>) {
    for event in events {
        board.record(&event).unwrap();
    }
}
