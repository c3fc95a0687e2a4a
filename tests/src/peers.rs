//! Programs of others that the tests check against: Python with its packages, and what a machine has installed.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use crate::root;

/// What a Python script of the repository prints, on one thread; it has to end well.
pub fn python<S: AsRef<OsStr>>(script: &str, arguments: impl IntoIterator<Item = S>) -> String {
    let ended = Command::new(interpreter())
        .arg(root().join(script))
        .args(arguments)
        .env("OMP_NUM_THREADS", "1")
        // Beside the sources no caches are left.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("Python starts");
    let error = String::from_utf8_lossy(&ended.stderr);
    assert!(
        ended.status.success(),
        "{script}: {error}\n(run `make setup-tests` where a package is missing)"
    );
    String::from_utf8_lossy(&ended.stdout).into_owned()
}

/// $SPINECTL_PYTHON, else the environment that `make setup-tests` links.
fn interpreter() -> PathBuf {
    let python = std::env::var_os("SPINECTL_PYTHON")
        .map_or_else(|| root().join(".venv/bin/python"), PathBuf::from);
    assert!(
        python.exists(),
        "no Python at {}: run `make setup-tests`",
        python.display()
    );
    python
}

/// Whether a program is on the PATH. Only CI insists: `make setup-programs` wants root, which a developer need not be.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !found {
        let missing = format!("{program} is not installed: run `make setup-programs` as root");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
        eprintln!("not tried: {missing}");
    }
    found
}
