//! Weights in files: initial values as timm's, files that timm loads strictly, and wrong files that are refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use safetensors::tensor::{Dtype, TensorView};
use spinectl_tests::parity::{Array, Files, flags, model, read, reference};
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

/// A safetensors file of f32 tensors.
fn write(path: &Path, tensors: &[(&str, &[usize], Vec<f32>)]) {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, _, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap();
        ((*name).to_owned(), view)
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
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

    /// The initial weights of a model, as `final.<name>` in the file that is returned.
    fn initial(&self, arch: &str) -> PathBuf {
        let stage = arch.split_once(':').map_or("", |(stage, _)| stage);
        let (one, seven) = (vec![0.5; 2], vec![0.5; 14]);
        let image = vec![0.5; 2 * 3 * 32 * 32];
        let input = self.file("input.safetensors");
        let targets = self.file("targets.safetensors");
        let no_targets: &[(&str, &[usize], Vec<f32>)] = &[];
        match stage {
            "" | "stage1a" => write(&input, &[("image", &[1, 2, 3, 32, 32], image)]),
            "stage3" => write(
                &input,
                &[
                    ("image", &[1, 1, 2, 3, 32, 32], image),
                    ("mask", &[1, 1, 2], one.clone()),
                ],
            ),
            _ => write(
                &input,
                &[
                    ("image", &[1, 1, 2, 3, 32, 32], image),
                    ("position", &[1, 1, 2], one.clone()),
                ],
            ),
        }
        match stage {
            "stage1b" => write(&targets, &[("ratio", &[1, 1, 2, 7], seven)]),
            _ => write(&targets, no_targets),
        }
        let output = self.file(&format!("{}.safetensors", arch.replace(':', "-")));
        let words = [
            "step",
            "--arch",
            arch,
            "--steps",
            "0",
            "--lstm-hidden",
            "48",
            "--max-images",
            "20",
            "--seed",
            "4",
        ];
        let mut words = flags(words);
        for (flag, path) in [
            ("--input", &input),
            ("--targets", &targets),
            ("--output", &output),
        ] {
            words.extend([flag.to_owned(), path.display().to_string()]);
        }
        succeeds(&model(words));
        output
    }
}

#[track_caller]
fn succeeds(ended: &Output) -> String {
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
    said.into_owned()
}
