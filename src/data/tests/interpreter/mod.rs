//! The Python that holds the reference implementations.

use std::path::{Path, PathBuf};

/// The repository.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// $SPINECTL_PYTHON, else the workspace's virtual environment.
pub fn python() -> PathBuf {
    let python = std::env::var_os("SPINECTL_PYTHON")
        .map_or_else(|| workspace().join(".venv/bin/python"), PathBuf::from);
    assert!(
        python.exists(),
        "no Python at {}: run `make setup-tests`",
        python.display()
    );
    python
}
