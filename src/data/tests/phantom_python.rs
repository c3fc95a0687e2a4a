//! A phantom is read back by the reference implementations, pydicom and nibabel (tests/python/read_phantom.py).

mod interpreter;

use std::process::Command;

use data::phantom::{SynthOptions, synthesize};

use interpreter::{python, workspace};

#[test]
fn pydicom_and_nibabel_agree_with_the_tables() {
    let python = python();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("phantom");
    let options = SynthOptions {
        out: out.clone(),
        studies: 8,
        slices: 40,
        size: 96,
        seed: 3,
        segmented: 0.75,
        ..SynthOptions::default()
    };
    synthesize(&options, &|_, _| ()).unwrap();
    let result = Command::new(python)
        .arg(workspace().join("tests/python/read_phantom.py"))
        .arg(&out)
        .output()
        .unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&result.stdout),
        String::from_utf8_lossy(&result.stderr),
    );
    assert!(
        !stderr.contains("ModuleNotFoundError"),
        "{stderr}\nrun `make setup-tests`"
    );
    assert!(result.status.success(), "{stdout}{stderr}");
    assert_eq!(stdout.lines().count(), 8, "one line a study:\n{stdout}");
}
