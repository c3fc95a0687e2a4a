//! Weights on their way from one run into another: exported, loaded, and refused where they are not what they should be.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use checkpoint::{load_safetensors, save_safetensors};
use spinectl_tests::{launch_arguments, phantom, program, spinectl};

const JOB: &str = "stage1a-resnest14d-fold0-seed0";

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run(program: &mut Command) -> Ran {
    let ended = program.output().unwrap();
    Ran {
        code: ended.status.code(),
        out: String::from_utf8_lossy(&ended.stdout).into_owned(),
        err: String::from_utf8_lossy(&ended.stderr).into_owned(),
    }
}

/// Trains the localizers, from the CNN in a file where one is given.
fn launch(data: &Path, run_dir: &Path, pretrained: Option<&Path>) -> Ran {
    let set =
        pretrained.map(|path| format!("--set=stage1a.training.pretrained={}", path.display()));
    let mut more = vec!["--stages=1a"];
    more.extend(set.as_deref());
    let arguments = launch_arguments(data, run_dir, 1, &more);
    run(Command::new(program("spinectl")).args(arguments))
}

fn export(run_dir: &Path, out: &Path, more: &[&str]) -> PathBuf {
    let job = run_dir.join("jobs").join(JOB);
    let words = [job.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let ended = spinectl([&["checkpoint", "export"][..], &words, more].concat());
    let err = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{err}");
    out.to_owned()
}

#[test]
fn a_cnn_goes_from_one_run_into_another() {
    let folder = tempfile::tempdir().unwrap();
    let data = phantom(folder.path());
    let place = |name: &str| folder.path().join(name);
    let first = launch(&data, &place("first"), None);
    assert_eq!(first.code, Some(0), "{}", first.err);

    let cnn = export(
        &place("first"),
        &place("cnn.safetensors"),
        &["--part=backbone"],
    );
    let second = launch(&data, &place("second"), Some(&cnn));
    assert_eq!(second.code, Some(0), "{}", second.err);
    let events = fs::read_to_string(place("second").join("events.jsonl")).unwrap();
    let loaded = events
        .lines()
        .find(|line| line.contains("weights_loaded"))
        .unwrap();
    let sha256 = checkpoint::file_sha256(&cnn).unwrap();
    assert!(
        loaded.contains(&sha256) && loaded.contains("150 of 150 tensors loaded"),
        "{loaded}"
    );

    // The rank compares the module with the model before the file takes its name.
    let module = export(
        &place("first"),
        &place("cnn.pt"),
        &["--part=backbone", "--format=torchscript"],
    );
    assert!(fs::metadata(module).unwrap().len() > fs::metadata(&cnn).unwrap().len() / 2);

    // Values that the next update would spread over the whole model.
    let mut tensors = load_safetensors(&cnn).unwrap();
    let spoilt = tensors
        .iter_mut()
        .find(|tensor| tensor.name == "layer2.0.bn1.bias")
        .unwrap();
    spoilt.bytes[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
    let nan = place("nan.safetensors");
    save_safetensors(&nan, &tensors).unwrap();
    let refused = launch(&data, &place("third"), Some(&nan));
    assert!(refused.code.is_some_and(|code| code > 0), "{}", refused.err);
    assert!(
        refused.err.contains("first in `layer2.0.bn1.bias`"),
        "{}",
        refused.err
    );

    // The file becomes another one after the launch.
    tensors.retain(|tensor| !tensor.name.contains("num_batches_tracked"));
    for tensor in tensors
        .iter_mut()
        .filter(|tensor| tensor.name == "layer2.0.bn1.bias")
    {
        tensor.bytes.fill(0);
    }
    save_safetensors(&cnn, &tensors).unwrap();
    let changed = run(Command::new(program("spinectl-rank")).args([
        "job",
        "--run-dir",
        place("second").to_str().unwrap(),
        "--job",
        JOB,
        "--device=cpu",
        "--resume=never",
    ]));
    assert!(changed.code.is_some_and(|code| code > 0), "{}", changed.out);
    assert!(
        changed
            .err
            .contains("has changed since the run was launched"),
        "{}",
        changed.err
    );
}
