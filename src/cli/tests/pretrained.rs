//! Files of weights that a recipe starts from: what is wrong with them is said before anything starts.

mod program;

use std::fs;
use std::path::Path;

use checkpoint::{Dtype, TensorData, save_safetensors};
use serde_json::Value;
use tempfile::TempDir;

use program::Ran;

/// A folder with a recipe whose stages 1a and 1b start from `w/a.safetensors`.
fn folder(arch: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    let training = format!("{{training: {{arch: {arch}, pretrained: w/a.safetensors}}}}");
    let text = format!(
        "name: small\ndevice: cpu\ndata: {{root: ., folds: 2}}\nstage1a: {training}\nstage1b: {training}\n"
    );
    fs::write(folder.path().join("spinectl.yaml"), text).unwrap();
    fs::create_dir(folder.path().join("w")).unwrap();
    folder
}

/// Weights of so many values.
fn weights(folder: &Path, values: usize) {
    let tensor = TensorData {
        name: "layer1.0.conv1.weight".into(),
        dtype: Dtype::F32,
        shape: vec![values],
        bytes: vec![0; 4 * values],
    };
    save_safetensors(&folder.join("w/a.safetensors"), &[tensor]).unwrap();
}

fn spinectl(folder: &Path, words: &[&str]) -> Ran {
    let mut command = program::spinectl(folder, words);
    // Where the files pass, the ranks are what fails.
    command.env("SPINECTL_RANK", "/bin/false");
    command.output().unwrap().into()
}

#[track_caller]
fn refused(folder: &Path, words: &[&str], parts: &[&str]) {
    let ran = spinectl(folder, &[&["launch"], words].concat());
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    for part in parts {
        assert!(ran.err.contains(part), "no `{part}` in\n{}", ran.err);
    }
    assert!(!folder.join("runs").exists(), "a run was begun");
}

#[test]
fn a_file_that_is_not_there_comes_with_the_way_to_get_it() {
    let folder = folder("resnest50d");
    refused(
        folder.path(),
        &[],
        &[
            "stage1a.training.pretrained, stage1b.training.pretrained: there is no file w/a.safetensors",
            "nothing is downloaded here",
            "timm.create_model(sys.argv[1], pretrained=True, num_classes=0)",
            "resnest50d w/a.safetensors\n",
            "https://huggingface.co/timm/resnest50d.in1k",
            "--set stage1a.training.pretrained= --set stage1b.training.pretrained=",
        ],
    );
    // A plan shows what would run, on whatever machine it is asked for.
    for words in [&["plan"][..], &["launch", "--dry-run"]] {
        let ran = spinectl(folder.path(), words);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(ran.out.contains("stage1a-resnest50d-fold1"), "{}", ran.out);
    }
}

#[test]
fn every_missing_file_is_told_at_once() {
    let folder = folder("resnest14d");
    let other = "stage1b.training.pretrained=w/b.safetensors";
    refused(
        folder.path(),
        &["--set", other],
        &[
            "stage1a.training.pretrained: there is no file w/a.safetensors",
            "stage1b.training.pretrained: there is no file w/b.safetensors",
        ],
    );
}

#[test]
fn a_file_that_is_no_weights_is_refused() {
    let folder = folder("resnest14d");
    let path = folder.path().join("w/a.safetensors");
    fs::write(&path, "PK\x03\x04 and what torch.save writes").unwrap();
    refused(
        folder.path(),
        &[],
        &["stage1a.training.pretrained", "PyTorch's pickle format"],
    );
    weights(folder.path(), 10);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 4]).unwrap();
    refused(folder.path(), &[], &["w/a.safetensors", "it is cut short"]);
}

#[test]
fn another_architectures_weights_are_refused() {
    let folder = folder("resnest14d");
    // As many values as resnest26d has without its first convolution.
    weights(folder.path(), 15_019_584);
    refused(
        folder.path(),
        &[],
        &["holds weights of resnest26d, and `arch` is resnest14d"],
    );
}

#[test]
fn a_stage_that_does_not_run_needs_no_file() {
    let folder = folder("resnest14d");
    let text = fs::read_to_string(folder.path().join("spinectl.yaml")).unwrap();
    let text = text.replace(
        "stage1a: {training: {arch: resnest14d, pretrained: w/a.safetensors}}",
        "stage1a: {training: {arch: resnest14d}}",
    );
    fs::write(folder.path().join("spinectl.yaml"), text).unwrap();
    let ran = spinectl(folder.path(), &["launch", "--stages", "1a"]);
    assert!(!ran.err.contains("pretrained"), "{}", ran.err);
    assert!(folder.path().join("runs").exists(), "{}", ran.err);
}

#[test]
fn the_plan_holds_the_hash_of_what_was_found() {
    let folder = folder("resnest14d");
    weights(folder.path(), 10);
    let plan = || -> Value {
        let ran = spinectl(folder.path(), &["launch", "--set", "retries=0"]);
        assert!(!ran.err.contains("pretrained"), "{}", ran.err);
        let text = fs::read(folder.path().join("runs/small/plan.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    let first = plan();
    let sha256 = checkpoint::file_sha256(&folder.path().join("w/a.safetensors")).unwrap();
    let job = &first["jobs"][1]["kind"]["train"];
    assert_eq!(job["pretrained_sha256"], sha256, "{job}");

    fs::remove_dir_all(folder.path().join("runs")).unwrap();
    weights(folder.path(), 11);
    assert_ne!(plan()["jobs"][1]["hash"], first["jobs"][1]["hash"]);
}
