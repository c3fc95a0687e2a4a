//! Makes a library of `fake_nvml.cpp`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// In this folder; `trouble`: `HANG`, `LOST`.
pub fn make(folder: &Path, trouble: Option<&str>) -> PathBuf {
    let library = folder.join("libnvidia-ml.so.1");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/launch/fake_nvml.cpp");
    let made = Command::new("g++")
        .args(["-shared", "-fPIC", "-O1", source, "-o"])
        .arg(&library)
        .args(trouble.map(|trouble| format!("-D{trouble}")))
        .status();
    assert!(made.unwrap().success(), "g++ {source}");
    library
}
