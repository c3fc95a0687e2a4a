//! The stages' models against their counterparts in PyTorch: every output in evaluation and in training, and the running
//! statistics after a pass in training.

use std::path::Path;

use spinectl_tests::parity::{Files, disagreements, flags, read, reference};

/// Of the largest value of a tensor.
const BOUND: f64 = 1e-5;

/// The models and cases of tests/python/parity/stage_cases.py.
const MODELS: [(&str, &str, &[&str]); 6] = [
    ("stage1a", "resnest14d", &["slices"]),
    ("stage1a", "efficientnet_b0", &["slices"]),
    ("stage1b", "resnest14d", &["sequences"]),
    ("stage2", "resnest14d", &["sequences"]),
    ("stage2", "efficientnet_b0", &["sequences"]),
    (
        "stage3",
        "resnest14d",
        &[
            "features-of-one-length",
            "features-too-many-and-too-few",
            "features-all-too-few",
            "images",
        ],
    ),
];

#[test]
fn outputs_and_statistics_are_pytorchs() {
    let folder = tempfile::tempdir().unwrap();
    reference("stage_cases.py", [folder.path()]);
    let mut faults = Vec::new();
    for (stage, arch, cases) in MODELS {
        let model = folder.path().join(format!("{stage}-{arch}"));
        for case in cases {
            for mode in ["eval", "train"] {
                let found = compare(&format!("{stage}:{arch}"), &model, case, mode);
                faults.extend(
                    found
                        .iter()
                        .map(|fault| format!("{stage}:{arch} {case} {mode}: {fault}")),
                );
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    control(folder.path());
}

/// What the bound is worth: stage 2's outputs in training are far outside of it around those in evaluation.
fn control(folder: &Path) {
    let place = folder.join("stage2-resnest14d/sequences");
    let [eval, mut train] =
        ["eval", "train"].map(|mode| read(&place.join(format!("{mode}.safetensors"))));
    train.retain(|name, _| !name.starts_with("state."));
    assert_eq!(train.len(), 3);
    assert_eq!(disagreements(&train, &eval, 100.0 * BOUND).len(), 3);
}

fn compare(name: &str, model: &Path, case: &str, mode: &str) -> Vec<String> {
    let place = model.join(case);
    let files = Files {
        weights: &model.join("weights.safetensors"),
        input: &place.join("input.safetensors"),
        output: &place.join("output.safetensors"),
    };
    let found = files.outputs("run", name, &flags(["--mode", mode]));
    let expected = read(&place.join(format!("{mode}.safetensors")));
    disagreements(&found, &expected, BOUND)
}
