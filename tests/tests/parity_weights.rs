//! Weights in files: initial values as timm's, exports that timm and torch take, and wrong files that are refused.

use std::path::{Path, PathBuf};
use std::process::Output;

use checkpoint::{Checkpoint, Dtype, Meta, TensorData, load_safetensors, save_safetensors, write};
use spinectl_tests::parity::{Files, disagreements, flags, model, read, reference};
use spinectl_tests::spinectl;
use tempfile::TempDir;

const BACKBONES: [&str; 9] = [
    "resnest14d",
    "resnest26d",
    "resnest50d",
    "seresnext26d_32x4d",
    "seresnext50_32x4d",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnetv2_rw_s",
    "efficientnetv2_rw_m",
];

const STAGES: [&str; 4] = [
    "stage1a:resnest14d",
    "stage1b:resnest14d",
    "stage2:resnest14d",
    "stage3:resnest14d",
];

/// A tensor whose values repeat 0, 0.1, 0.2, ... 0.9.
fn tensor(name: &str, shape: &[usize]) -> TensorData {
    let values = (0..shape.iter().product::<usize>()).map(|i| (i % 10) as f32 / 10.0);
    TensorData {
        name: name.into(),
        dtype: Dtype::F32,
        shape: shape.into(),
        bytes: values.flat_map(f32::to_le_bytes).collect(),
    }
}

/// Files of one test.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Place(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A model's initial weights, as a step of no updates writes them: under `final.<name>`.
    fn initial(&self, arch: &str) -> PathBuf {
        let sequence = tensor("image", &[1, 1, 2, 3, 32, 32]);
        let input = match arch.split_once(':').map_or("", |(stage, _)| stage) {
            "stage3" => vec![sequence, tensor("mask", &[1, 1, 2])],
            "stage1b" | "stage2" => vec![sequence, tensor("position", &[1, 1, 2])],
            _ => vec![tensor("image", &[1, 2, 3, 32, 32])],
        };
        save_safetensors(&self.file("input.safetensors"), &input).unwrap();
        save_safetensors(
            &self.file("targets.safetensors"),
            &[tensor("features", &[1, 1])],
        )
        .unwrap();
        let output = self.file(&format!("{}.safetensors", arch.replace(':', "-")));
        let mut words = flags(["step", "--arch", arch, "--steps", "0", "--seed", "4"]);
        words.extend(flags(["--lstm-hidden", "48", "--max-images", "20"]));
        for (flag, path) in [
            ("--input", &self.file("input.safetensors")),
            ("--targets", &self.file("targets.safetensors")),
            ("--output", &output),
        ] {
            words.extend([flag.to_owned(), path.display().to_string()]);
        }
        succeeds(&model(words));
        output
    }

    /// The same as tensors under their own names.
    fn weights(&self, arch: &str) -> Vec<TensorData> {
        let tensors = load_safetensors(&self.initial(arch)).unwrap().into_iter();
        tensors
            .filter_map(|tensor| {
                let name = tensor.name.strip_prefix("final.")?.to_owned();
                Some(TensorData { name, ..tensor })
            })
            .collect()
    }
}

#[track_caller]
fn succeeds(ended: &Output) {
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
}

/// Keys, shapes and types equal timm's and those of the stages' models in PyTorch, in both directions; constants are the same,
/// and what is random has the same mean, spread and tails.
#[test]
fn initial_weights_are_timms() {
    let place = Place::new();
    let models = BACKBONES.iter().chain(&STAGES);
    for arch in models {
        place.initial(arch);
    }
    for file in ["input", "targets"] {
        std::fs::remove_file(place.file(&format!("{file}.safetensors"))).unwrap();
    }
    let said = reference("initial_weights.py", [place.0.path()]);
    let lines: Vec<&str> = said.lines().collect();
    // The nine state dicts and the stages', classifiers left out.
    assert_eq!(lines, ["compared 4980 tensors of 13 models"]);
}

/// timm takes an exported CNN strictly, torch an exported model, and both give what spinectl gives.
#[test]
fn exports_are_timms_and_torchs() {
    let place = Place::new();
    let job = place.file("stage2-resnest14d-fold0-seed0");
    let checkpoint = Checkpoint {
        step: 1,
        model: place.weights("stage2:resnest14d"),
        optimizer: vec![tensor("exp_avg", &[2])],
        trainer: serde_json::json!({}),
        meta: Meta {
            plan_hash: "plan".into(),
            job: "stage2-resnest14d-fold0-seed0".into(),
            world_size: 1,
        },
    };
    std::fs::create_dir(&job).unwrap();
    write(&job.join("checkpoints"), &checkpoint).unwrap();
    save_safetensors(&place.file("weights.safetensors"), &checkpoint.model).unwrap();
    let input = [
        tensor("image", &[1, 3, 3, 64, 64]),
        tensor("position", &[1, 3]),
    ];
    save_safetensors(&place.file("input.safetensors"), &input).unwrap();

    let export = |out: &str, more: &[&str]| {
        let (job, out) = (
            job.display().to_string(),
            place.file(out).display().to_string(),
        );
        let words = ["checkpoint", "export", &job, "--out", &out];
        succeeds(&spinectl([&words[..], more].concat()));
    };
    export("cnn.safetensors", &["--part", "backbone"]);
    let arch = ["--arch", "stage2:resnest14d"];
    let sizes = ["--batch", "1", "--images", "3", "--image-size", "64"];
    let format = ["--format", "torchscript"];
    export("model.pt", &[&format[..], &arch, &sizes].concat());
    reference("exported.py", [place.0.path()]);
    let found = read(&place.file("found.safetensors"));

    let mut expected = Files {
        weights: &place.file("weights.safetensors"),
        input: &place.file("input.safetensors"),
        output: &place.file("output.safetensors"),
    }
    .outputs("run", "stage2:resnest14d", &[]);
    let flat = [TensorData {
        shape: vec![3, 3, 64, 64],
        ..input[0].clone()
    }];
    save_safetensors(&place.file("flat.safetensors"), &flat).unwrap();
    expected.extend(
        Files {
            weights: &place.file("cnn.safetensors"),
            input: &place.file("flat.safetensors"),
            output: &place.file("output.safetensors"),
        }
        .outputs("run", "resnest14d", &[]),
    );
    assert_eq!(found.len(), 4);
    assert_eq!(disagreements(&found, &expected, 1e-5), [""; 0]);
}

/// What `spinectl model run` says of a file of weights for resnest14d; it ends with 2.
struct Refusals {
    place: Place,
    good: Vec<TensorData>,
}

impl Refusals {
    fn run(&self, weights: &Path, more: &[&str]) -> Output {
        let image = tensor("image", &[1, 3, 32, 32]);
        save_safetensors(&self.place.file("x.safetensors"), &[image]).unwrap();
        let files = Files {
            weights,
            input: &self.place.file("x.safetensors"),
            output: &self.place.file("y.safetensors"),
        };
        let more: Vec<String> = more.iter().map(|word| (*word).to_owned()).collect();
        files.model("run", "resnest14d", &more)
    }

    #[track_caller]
    fn refused(&self, weights: &Path, parts: &[&str]) {
        let ended = self.run(weights, &[]);
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(2), "{said}");
        for part in parts {
            assert!(said.contains(part), "{part:?} is not in:\n{said}");
        }
        assert!(!self.place.file("y.safetensors").exists());
    }

    /// The good weights, spoilt.
    fn spoilt(&self, spoil: impl FnOnce(&mut Vec<TensorData>)) -> PathBuf {
        let mut tensors = self.good.clone();
        spoil(&mut tensors);
        let path = self.place.file("spoilt.safetensors");
        save_safetensors(&path, &tensors).unwrap();
        path
    }
}

fn named<'a>(tensors: &'a mut [TensorData], name: &str) -> &'a mut TensorData {
    let mut all = tensors.iter_mut();
    all.find(|tensor| tensor.name == name).unwrap()
}

#[test]
fn wrong_files_are_refused_by_their_keys() {
    const KEY: &str = "layer2.0.conv1.weight";
    let place = Place::new();
    let good = place.weights("resnest14d");
    let refusals = Refusals { place, good };

    let path = refusals.spoilt(|_| ());
    succeeds(&refusals.run(&path, &[]));
    std::fs::remove_file(refusals.place.file("y.safetensors")).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1000]).unwrap();
    refusals.refused(&path, &["spoilt.safetensors", "make or fetch it again"]);

    let path = refusals.spoilt(|tensors| {
        let tensor = named(tensors, KEY);
        tensor.dtype = Dtype::I32;
    });
    refusals.refused(&path, &["spoilt.safetensors", KEY, "i32"]);

    let path = refusals.spoilt(|tensors| {
        let tensor = named(tensors, KEY);
        tensor.shape.swap(0, 1);
    });
    refusals.refused(&path, &[KEY, "[128, 256, 1, 1]", "[256, 128, 1, 1]"]);

    let path = refusals.spoilt(|tensors| tensors.retain(|tensor| tensor.name != KEY));
    refusals.refused(&path, &["missing", KEY]);

    let path = refusals.spoilt(|tensors| tensors.push(tensor("layer5.weight", &[2])));
    refusals.refused(&path, &["unexpected", "layer5.weight"]);

    let other = refusals.place.weights("resnest26d");
    let path = refusals.spoilt(|tensors| *tensors = other);
    refusals.refused(&path, &["resnest26d", "layer1.1.bn1.bias"]);

    let path = refusals.spoilt(|tensors| {
        let nan = f32::NAN.to_le_bytes();
        named(tensors, KEY).bytes[..4].copy_from_slice(&nan);
    });
    refusals.refused(&path, &[KEY, "NaN"]);
    // Asked for, they are taken, and what comes of them is seen.
    succeeds(&refusals.run(&path, &["--allow-non-finite"]));
    let output = read(&refusals.place.file("y.safetensors"));
    assert!(output["features"].values.iter().any(|v| v.is_nan()));
}
