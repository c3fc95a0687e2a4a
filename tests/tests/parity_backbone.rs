//! The backbones against timm: pooled features and running statistics of random weights and images, for each architecture in
//! evaluation and in training, with 3, 1 and 6 channels.

use std::path::Path;

use spinectl_tests::parity::{Files, Tensors, disagreements, flags, read, reference};

/// Of the largest value of a tensor.
const BOUND: f64 = 1e-5;

/// A case of tests/python/parity/backbone_cases.py, B x C x H x W.
const DROP_CASE: &str = "2x3x96x96";
const DROP: [&str; 6] = ["--drop-path", "0.4", "--drop-rate", "0.25", "--seed", "11"];

const CASES: [&str; 9] = [
    "2x3x96x96",
    "2x1x96x96",
    "2x6x96x96",
    "1x3x160x128",
    "1x1x160x128",
    "1x6x160x128",
    "2x3x160x128",
    "2x1x160x128",
    "2x6x160x128",
];

/// One architecture in a folder of its own.
struct Parity<'a> {
    arch: &'a str,
    folder: &'a Path,
    faults: Vec<String>,
    compared: usize,
}

impl Parity<'_> {
    /// Runs the case and holds it against the file of that name.
    fn compare(&mut self, case: &str, expected: &str, words: &[String]) -> Tensors {
        let place = self.folder.join(case);
        let files = Files {
            weights: &self.folder.join("weights.safetensors"),
            input: &place.join("input.safetensors"),
            output: &place.join("output.safetensors"),
        };
        let found = files.outputs("run", self.arch, words);
        let expected_file = place.join(format!("{expected}.safetensors"));
        let expected_tensors = read(&expected_file);
        let faults = disagreements(&found, &expected_tensors, BOUND);
        self.faults.extend(
            faults
                .iter()
                .map(|fault| format!("{case} {expected}: {fault}")),
        );
        self.compared += 1;
        found
    }

    /// Where PyTorch refuses a batch in training, so does spinectl.
    fn refused(&mut self, case: &str) {
        let place = self.folder.join(case);
        let files = Files {
            weights: &self.folder.join("weights.safetensors"),
            input: &place.join("input.safetensors"),
            output: &place.join("refused.safetensors"),
        };
        let ended = files.model("run", self.arch, &flags(["--mode", "train"]));
        let said = String::from_utf8_lossy(&ended.stderr);
        if ended.status.success() || !said.contains("one value") || files.output.exists() {
            self.faults.push(format!("{case} in training: {said}"));
        }
    }
}

/// All cases of an architecture; `modules` are the maps that `--taps` has to hold.
fn agrees_with_timm(arch: &str, modules: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    reference(
        "backbone_cases.py",
        [folder.path().as_os_str(), arch.as_ref()],
    );
    let mut parity = Parity {
        arch,
        folder: folder.path(),
        faults: Vec::new(),
        compared: 0,
    };
    for case in CASES {
        let has = |name: &str| folder.path().join(case).join(name).exists();
        if has("eval.safetensors") {
            parity.compare(case, "eval", &[]);
        }
        if has("train.safetensors") {
            let found = parity.compare(case, "train", &flags(["--mode", "train"]));
            assert_ne!(states(&found), 0, "{case}: no running statistics");
        } else if has("input.safetensors") {
            parity.refused(case);
        }
    }
    let dropping = [&flags(["--mode", "train"])[..], &flags(DROP)[..]].concat();
    let dropped = parity.compare(DROP_CASE, "drop", &dropping);
    let zeros = dropped["features"].values.iter().filter(|v| **v == 0.0);
    assert!(zeros.count() > 100, "dropout has dropped nothing");
    tapped(&mut parity, modules);
    control(&parity);
    // Two shapes with three numbers of channels in both modes, the drop case and the taps.
    assert_eq!(parity.compared, 2 * 3 * 2 + 2);
    assert!(parity.faults.is_empty(), "{}", parity.faults.join("\n"));
}

/// What the bound is worth: the features in training are far outside of it around those in evaluation.
fn control(parity: &Parity) {
    let place = parity.folder.join(DROP_CASE);
    let [eval, mut train] =
        ["eval", "train"].map(|mode| read(&place.join(format!("{mode}.safetensors"))));
    train.retain(|name, _| name == "features");
    assert_eq!(disagreements(&train, &eval, 1000.0 * BOUND).len(), 1);
}

fn states(found: &Tensors) -> usize {
    let names = found.keys();
    names.filter(|name| name.starts_with("state.")).count()
}

/// Every map that is written is timm's, and none of `modules` is missing.
fn tapped(parity: &mut Parity, modules: &[&str]) {
    let place = parity.folder.join(DROP_CASE);
    let files = Files {
        weights: &parity.folder.join("weights.safetensors"),
        input: &place.join("input.safetensors"),
        output: &place.join("output.safetensors"),
    };
    let mut found = files.outputs("run", parity.arch, &flags(["--taps"]));
    found.remove("features");
    for module in modules {
        assert!(
            found.contains_key(&format!("taps.{module}")),
            "{module} is not tapped, only {:?} are",
            found.keys().collect::<Vec<_>>()
        );
    }
    let mut expected = read(&place.join("taps.safetensors"));
    expected.retain(|name, _| found.contains_key(name));
    assert_eq!(expected.len(), found.len(), "timm has no such module");
    parity
        .faults
        .extend(disagreements(&found, &expected, BOUND));
    parity.compared += 1;
}

const RESNET: &[&str] = &["act1", "maxpool", "layer1", "layer2", "layer3", "layer4"];
const EFFICIENTNET: &[&str] = &[
    "bn1", "blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4", "blocks.5", "bn2",
];

macro_rules! architectures {
    ($($arch:ident: $modules:expr;)*) => {
        $(
            #[test]
            fn $arch() {
                agrees_with_timm(stringify!($arch), $modules);
            }
        )*
    };
}

architectures! {
    resnest14d: RESNET;
    resnest26d: RESNET;
    resnest50d: RESNET;
    seresnext26d_32x4d: RESNET;
    seresnext50_32x4d: RESNET;
    efficientnet_b0: EFFICIENTNET;
    efficientnet_b1: EFFICIENTNET;
    efficientnetv2_rw_s: EFFICIENTNET;
    efficientnetv2_rw_m: EFFICIENTNET;
}
