//! `spinectl checkpoint` on runs, jobs and folders, whole and broken.

mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use checkpoint::{Checkpoint, Dtype, Meta, Share, TensorData, load_safetensors, write_part};
use serde_json::Value;
use tempfile::TempDir;

use program::Ran;

fn spinectl(folder: &Path, words: &[&str]) -> Ran {
    let words = [&["checkpoint"], words].concat();
    program::spinectl(folder, &words).output().unwrap().into()
}

/// A run's directory with two checkpoints of one job; the folder of each.
fn two_checkpoints(run: &Path) -> [PathBuf; 2] {
    [1, 2].map(|step| write(run, step, serde_json::json!({"step": step})))
}

/// Writes a checkpoint of the run's one job; its folder.
fn write(run: &Path, step: u64, trainer: Value) -> PathBuf {
    let root = run.join("jobs/labels/checkpoints");
    fs::create_dir_all(&root).unwrap();
    let checkpoint = Checkpoint {
        step,
        model: Vec::new(),
        optimizer: Vec::new(),
        trainer,
        meta: Meta {
            plan_hash: "p".into(),
            job: "labels".into(),
            world_size: 1,
        },
    };
    checkpoint::write(&root, &checkpoint).unwrap().path
}

#[test]
fn what_is_kept_though_there_are_newer_ones_is_marked() {
    let run = TempDir::new().unwrap();
    for step in [30, 40, 50, 60] {
        write(run.path(), step, serde_json::json!({"best": {"step": 50}}));
    }
    let path = run.path().to_str().unwrap();
    let marks = || {
        let ran = spinectl(Path::new("."), &["ls", path, "--json"]);
        let rows: Vec<Value> = serde_json::from_str(&ran.out).unwrap();
        let mark = |row: &Value| {
            row.get("kept")
                .map(|kept| kept.as_str().unwrap().to_owned())
        };
        rows.iter().map(mark).collect::<Vec<_>>()
    };
    let best = || Some("best".to_owned());
    assert_eq!(marks(), [None, None, best(), None]);

    let recipe = recipe::Source {
        name: "recipe".into(),
        text: "data: {root: d, folds: 2}\ncheckpoint: {every: 10, keep_every: 20}\nstage1a: {}"
            .into(),
    };
    let plan = plan::compile(&recipe::parse(&recipe, &[]).unwrap()).unwrap();
    plan::write(&run.path().join("plan.json"), &plan).unwrap();
    let for_good = || Some("for good".to_owned());
    assert_eq!(marks(), [None, for_good(), best(), for_good()]);
}

#[test]
fn checkpoints_are_found_from_run_job_and_folder() {
    let run = TempDir::new().unwrap();
    let folders = two_checkpoints(run.path());
    for (path, steps) in [
        (run.path(), &[1, 2][..]),
        (&run.path().join("jobs/labels"), &[1, 2]),
        (&run.path().join("jobs/labels/checkpoints"), &[1, 2]),
        (&folders[1], &[2]),
    ] {
        for command in ["ls", "verify"] {
            let ran = spinectl(Path::new("."), &[command, path.to_str().unwrap(), "--json"]);
            assert_eq!(ran.code, Some(0), "{}", ran.err);
            let rows: Vec<Value> = serde_json::from_str(&ran.out).unwrap();
            let found: Vec<u64> = rows
                .iter()
                .map(|row| row["step"].as_u64().unwrap())
                .collect();
            assert_eq!(found, steps, "{command} {}", path.display());
            assert!(rows.iter().all(|row| row.get("fault").is_none()));
        }
    }
}

#[test]
fn a_broken_checkpoint_is_named_with_its_file() {
    let run = TempDir::new().unwrap();
    let folders = two_checkpoints(run.path());
    // The same size, another content: only the hash can tell.
    let file = folders[0].join("trainer.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace('1', "7")).unwrap();
    let path = run.path().to_str().unwrap();

    let ran = spinectl(Path::new("."), &["verify", path]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(
        ran.err.contains("1 of 2 checkpoints are broken"),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("step-00000001: trainer.json has changed"));
    assert!(ran.out.contains("valid") && ran.out.contains("broken"));

    fs::remove_file(&file).unwrap();
    let ran = spinectl(Path::new("."), &["ls", path]);
    assert_eq!(ran.code, Some(0));
    assert!(
        ran.out.contains("broken") && ran.out.contains("complete"),
        "{}",
        ran.out
    );
}

#[test]
fn what_holds_no_checkpoints_is_wrong_use() {
    let folder = TempDir::new().unwrap();
    for command in ["ls", "verify"] {
        for path in [".", "nowhere", "step-00000001"] {
            let ran = spinectl(folder.path(), &[command, path]);
            assert_eq!(ran.code, Some(2), "{}", ran.err);
        }
    }
}

fn tensor(name: &str, value: f32) -> TensorData {
    TensorData {
        name: name.into(),
        dtype: Dtype::F32,
        shape: vec![1],
        bytes: value.to_le_bytes().to_vec(),
    }
}

/// A run with two checkpoints of a model with a CNN; the job's folder.
fn trained(run: &Path) -> PathBuf {
    let job = run.join("jobs/stage2-a-fold0-seed0");
    fs::create_dir_all(&job).unwrap();
    for step in [1, 2] {
        let checkpoint = Checkpoint {
            step,
            model: vec![
                tensor("backbone.conv1.weight", step as f32),
                tensor("head.bias", 0.5),
            ],
            optimizer: Vec::new(),
            trainer: serde_json::json!({}),
            meta: Meta {
                plan_hash: "p".into(),
                job: "stage2-a-fold0-seed0".into(),
                world_size: 1,
            },
        };
        checkpoint::write(&job.join("checkpoints"), &checkpoint).unwrap();
    }
    job
}

fn export(folder: &Path, path: &Path, words: &[&str]) -> Ran {
    let words = [&["export", path.to_str().unwrap()], words].concat();
    spinectl(folder, &words)
}

#[test]
fn the_newest_model_is_exported_whole_or_as_its_cnn() {
    let folder = TempDir::new().unwrap();
    let job = trained(folder.path());
    let ran = export(folder.path(), &job, &["--out", "m.safetensors"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("after step 2, 2 tensors"), "{}", ran.out);
    let whole = [
        tensor("backbone.conv1.weight", 2.0),
        tensor("head.bias", 0.5),
    ];
    let path = folder.path().join("m.safetensors");
    assert_eq!(load_safetensors(&path).unwrap(), whole);

    let first = job.join("checkpoints/step-00000001");
    let words = ["--part", "backbone", "--out", "cnn.safetensors", "--json"];
    let ran = export(folder.path(), &first, &words);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let told: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&told["step"], &told["tensors"]), (&1.into(), &1.into()));
    let path = folder.path().join("cnn.safetensors");
    assert_eq!(
        load_safetensors(&path).unwrap(),
        [tensor("conv1.weight", 1.0)]
    );
}

#[test]
fn an_export_replaces_a_file_only_when_told_to() {
    let folder = TempDir::new().unwrap();
    let job = trained(folder.path());
    let out = folder.path().join("m.safetensors");
    fs::write(&out, "mine").unwrap();
    let ran = export(folder.path(), &job, &["--out", "m.safetensors"]);
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert!(ran.err.contains("--force"), "{}", ran.err);
    assert_eq!(fs::read(&out).unwrap(), b"mine");
    let ran = export(folder.path(), &job, &["--out", "m.safetensors", "--force"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(load_safetensors(&out).unwrap().len(), 2);
}

#[test]
fn a_broken_checkpoint_is_not_exported() {
    let folder = TempDir::new().unwrap();
    let job = trained(folder.path());
    let newest = job.join("checkpoints/step-00000002");
    let model = newest.join("model.safetensors");
    let mut bytes = fs::read(&model).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&model, bytes).unwrap();
    let out = ["--out", "m.safetensors"];
    let ran = export(folder.path(), &newest, &out);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(
        ran.err.contains("model.safetensors has changed"),
        "{}",
        ran.err
    );
    assert!(!folder.path().join("m.safetensors").exists());
    // The job has an older one, and says what was passed over.
    let ran = export(folder.path(), &job, &out);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("skipped step 2"), "{}", ran.err);
    assert!(ran.out.contains("after step 1"), "{}", ran.out);
}

/// A third checkpoint of the job, in two parts.
fn trained_in_parts(job: &Path) -> PathBuf {
    let root = job.join("checkpoints");
    // The first completes it, and finds the other done.
    for (part, own) in [(1, "head.bias"), (0, "backbone.conv1.weight")] {
        let checkpoint = Checkpoint {
            step: 3,
            model: vec![tensor(own, 3.0)],
            optimizer: Vec::new(),
            trainer: serde_json::json!({}),
            meta: Meta {
                plan_hash: "p".into(),
                job: "stage2-a-fold0-seed0".into(),
                world_size: 2,
            },
        };
        let share = Share {
            part,
            parts: 2,
            token: 1,
            patience: Duration::from_secs(60),
        };
        write_part(&root, &checkpoint, &share).unwrap();
    }
    root.join("step-00000003")
}

#[test]
fn one_in_shards_is_as_good_as_one_in_a_piece() {
    let folder = TempDir::new().unwrap();
    let job = trained(folder.path());
    let newest = trained_in_parts(&job);
    let path = job.to_str().unwrap();
    let ran = spinectl(folder.path(), &["verify", path]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let ran = export(folder.path(), &job, &["--out", "m.safetensors"]);
    assert!(ran.out.contains("after step 3, 2 tensors"), "{}", ran.out);
    let whole = [
        tensor("backbone.conv1.weight", 3.0),
        tensor("head.bias", 3.0),
    ];
    let exported = load_safetensors(&folder.path().join("m.safetensors"));
    assert_eq!(exported.unwrap(), whole);

    // A part is gone: it is named, and the job has an older one.
    let part = "model-00002-of-00002.safetensors";
    fs::remove_file(newest.join(part)).unwrap();
    let missing = format!("{part} is missing");
    let ran = spinectl(folder.path(), &["verify", path]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains(&missing), "{}", ran.err);
    let ran = export(folder.path(), &job, &["--out", "n.safetensors"]);
    assert!(ran.err.contains(&missing), "{}", ran.err);
    assert!(ran.out.contains("after step 2"), "{}", ran.out);
}

#[test]
fn torchscript_needs_a_plan_or_flags() {
    let folder = TempDir::new().unwrap();
    let job = trained(folder.path());
    let script = ["--format", "torchscript", "--out", "m.pt"];
    let told = |words: &[&str]| {
        let ran = export(folder.path(), &job, words);
        assert_eq!(ran.code, Some(2), "{}", ran.err);
        ran.err
    };
    assert!(told(&script).contains("write --arch"));
    let arch = ["--arch", "stage2:resnest14d"];
    assert!(told(&[&script[..], &arch].concat()).contains("write --images S"));
    let images = ["--images", "4"];
    let words = [&script[..], &arch, &images].concat();
    assert!(told(&words).contains("write --image-size PX"));
    let words = [&["--out", "m.safetensors"][..], &images].concat();
    assert!(told(&words).contains("for --format torchscript"));
    assert!(!folder.path().join("m.pt").exists());
}

#[test]
fn what_has_no_model_to_export_is_wrong_use() {
    let run = TempDir::new().unwrap();
    let job = trained(run.path());
    let out = ["--out", "m.safetensors"];
    let ran = export(run.path(), run.path(), &out);
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert!(
        ran.err.contains("is a whole run") && ran.err.contains(job.to_str().unwrap()),
        "{}",
        ran.err
    );
    for path in ["nowhere", "jobs"] {
        let ran = export(run.path(), &run.path().join(path), &out);
        assert_eq!(ran.code, Some(2), "{}", ran.err);
    }
    let folders = two_checkpoints(&run.path().join("other"));
    let ran = export(
        run.path(),
        &folders[0],
        &["--part", "backbone", "--out", "x"],
    );
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert!(ran.err.contains("has no CNN"), "{}", ran.err);
}
