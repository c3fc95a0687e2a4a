//! Files of weights, right and wrong.

use std::fs;
use std::path::{Path, PathBuf};

use checkpoint::{
    Dtype, Error, FitOptions, Part, TensorData, TensorSpec, file_sha256, load_safetensors,
    read_weights, safetensors_specs, save_safetensors,
};
use tempfile::TempDir;

const STRICT: FitOptions = FitOptions {
    part: Part::Whole,
    strict: true,
    allow_non_finite: false,
};

fn floats(name: &str, values: &[f32]) -> TensorData {
    TensorData {
        name: name.into(),
        dtype: Dtype::F32,
        shape: vec![values.len()],
        bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}

fn specs(tensors: &[TensorData]) -> Vec<TensorSpec> {
    tensors.iter().map(TensorData::spec).collect()
}

fn written(folder: &TempDir, tensors: &[TensorData]) -> PathBuf {
    let path = folder.path().join("w.safetensors");
    save_safetensors(&path, tensors).unwrap();
    path
}

fn refused(path: &Path) -> String {
    let told = load_safetensors(path).unwrap_err().to_string();
    assert!(told.contains(path.to_str().unwrap()), "{told}");
    // Whoever reads the header alone finds the same.
    assert_eq!(safetensors_specs(path).unwrap_err().to_string(), told);
    told
}

#[test]
fn a_file_is_read_with_its_hash_and_says_that_it_is_pytorchs() {
    let folder = TempDir::new().unwrap();
    let tensors = [floats("a", &[1.0]), floats("b", &[2.0, 3.0])];
    let path = written(&folder, &tensors);
    let file = read_weights(&path).unwrap();
    assert_eq!(file.tensors, tensors);
    assert_eq!(file.sha256, file_sha256(&path).unwrap());
    assert_eq!(safetensors_specs(&path).unwrap(), specs(&tensors));
    let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
    assert!(text.contains(r#""__metadata__":{"format":"pt"}"#), "{text}");
}

#[test]
fn a_failed_write_leaves_the_old_file_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    let path = written(&folder, &[floats("a", &[1.0])]);
    let twice = [floats("a", &[1.0]), floats("a", &[2.0])];
    save_safetensors(&path, &twice).unwrap_err();
    let nowhere = folder.path().join("no/w.safetensors");
    let error = save_safetensors(&nowhere, &[]).unwrap_err().to_string();
    assert!(error.contains("no/w.safetensors"), "{error}");
    assert_eq!(load_safetensors(&path).unwrap(), [floats("a", &[1.0])]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn what_is_no_safetensors_file_is_told_as_what_it_is() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("w.safetensors");
    for (bytes, reason) in [
        (&b""[..], "it is empty"),
        (b"abc", "it has 3 bytes"),
        (
            b"a text that is no weights",
            "the file has 25: it is cut short, or of another format",
        ),
        (b"\x02\0\0\0\0\0\0\0{]", "its header is wrong"),
        (b"<!DOCTYPE html><html>", "it is a web page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
            "it is a Git LFS pointer",
        ),
    ] {
        fs::write(&path, bytes).unwrap();
        let told = refused(&path);
        assert!(
            told.contains(reason) && told.contains("make or fetch it again"),
            "{told}"
        );
    }
    assert!(refused(folder.path()).contains("it is not a file"));
    assert!(refused(&folder.path().join("no")).contains("cannot open"));
}

#[test]
fn a_file_that_is_cut_short_or_too_long_says_by_how_much() {
    let folder = TempDir::new().unwrap();
    let path = written(&folder, &[floats("a", &[1.0; 100])]);
    let whole = fs::read(&path).unwrap();
    let size = whole.len();
    fs::write(&path, &whole[..size - 1]).unwrap();
    let told = refused(&path);
    assert!(
        told.contains(&format!(
            "describes {size} bytes, the file has {}: it is cut short",
            size - 1
        )),
        "{told}"
    );
    fs::write(&path, &whole[..20]).unwrap();
    assert!(refused(&path).contains("it is cut short"));
    fs::write(&path, [&whole[..], b"more"].concat()).unwrap();
    assert!(refused(&path).contains("there is more than tensors in it"));
}

#[test]
fn pytorchs_own_format_is_refused_with_the_line_that_converts_it() {
    let folder = TempDir::new().unwrap();
    for (name, bytes, into) in [
        (
            "resnet.pth",
            &b"PK\x03\x04\0\0\x08\x08\0\0"[..],
            "resnet.safetensors",
        ),
        (
            "it's old.bin",
            b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P",
            "old.safetensors'",
        ),
        (
            "w.safetensors",
            b"PK\x03\x04\0\0\x08\x08\0\0",
            "w.converted.safetensors",
        ),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        assert!(matches!(
            load_safetensors(&path),
            Err(Error::PyTorchFile { .. })
        ));
        let told = refused(&path);
        let line = told.lines().last().unwrap();
        assert!(
            line.contains("weights_only=True") && line.ends_with(into),
            "{told}"
        );
    }
}

#[test]
fn a_type_that_is_not_supported_is_named_with_its_tensor() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("w.safetensors");
    let header = br#"{"conv1.0.weight":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}"#;
    let length = (header.len() as u64).to_le_bytes();
    fs::write(&path, [&length[..], header, b"\0\0"].concat()).unwrap();
    let told = refused(&path);
    assert!(
        told.contains("tensor `conv1.0.weight` is of type F8_E4M3, which is not supported"),
        "{told}"
    );
}

#[test]
fn values_that_are_not_finite_are_refused_unless_asked_for() {
    let folder = TempDir::new().unwrap();
    let tensors = [
        floats("a", &[1.0, 2.0]),
        floats("b", &[f32::NAN, 0.0, f32::INFINITY]),
        floats("c", &[f32::NEG_INFINITY]),
    ];
    let file = read_weights(&written(&folder, &tensors)).unwrap();
    let told = file.fit(&specs(&tensors), &STRICT).unwrap_err().to_string();
    assert!(
        told.contains("has 3 values that are NaN or infinite, in 2 tensors, first in `b`"),
        "{told}"
    );
    let allowed = FitOptions {
        allow_non_finite: true,
        ..STRICT
    };
    let fit = file.fit(&specs(&tensors), &allowed).unwrap();
    assert!(
        fit.report.to_string().contains("3 values NaN or infinite"),
        "{}",
        fit.report
    );
    // What is not used may hold anything.
    let loose = FitOptions {
        strict: false,
        ..STRICT
    };
    assert!(file.fit(&specs(&tensors[..1]), &loose).is_ok());
}

#[test]
fn not_finite_is_told_in_every_float_type() {
    let tensor = |dtype, bytes: &[u8]| TensorData {
        name: "t".into(),
        dtype,
        shape: vec![bytes.len() / Dtype::size(dtype)],
        bytes: bytes.to_vec(),
    };
    // 65504 (the largest), infinity, -NaN; 1, -infinity; 1e300, which is infinite in f32, and 1e30.
    assert_eq!(
        tensor(Dtype::F16, &[0xff, 0x7b, 0x00, 0x7c, 0x01, 0xfe]).non_finite(),
        2
    );
    assert_eq!(
        tensor(Dtype::Bf16, &[0x80, 0x3f, 0x80, 0xff]).non_finite(),
        1
    );
    let doubles = [1e300f64.to_le_bytes(), 1e30f64.to_le_bytes()].concat();
    assert_eq!(tensor(Dtype::F64, &doubles).non_finite(), 1);
    assert_eq!(tensor(Dtype::I64, &[0xff; 16]).non_finite(), 0);
}

/// Weights of which only sizes count, as (name, shape).
fn zeros(shapes: &[(&str, &[usize])]) -> Vec<TensorData> {
    let tensor = |(name, shape): &(&str, &[usize])| {
        floats(name, &vec![0.0; shape.iter().product()]).reshaped(shape)
    };
    shapes.iter().map(tensor).collect()
}

trait Reshaped {
    fn reshaped(self, shape: &[usize]) -> Self;
}

impl Reshaped for TensorData {
    fn reshaped(mut self, shape: &[usize]) -> Self {
        self.shape = shape.into();
        self
    }
}

#[test]
fn another_architectures_weights_are_refused_with_what_they_lack_and_bring() {
    let folder = TempDir::new().unwrap();
    // The sum of the sizes is what resnet18 has without its first convolution: 11,167,104.
    let theirs = zeros(&[
        ("backbone.conv1.weight", &[64, 3, 7, 7]),
        ("backbone.layer1.0.conv1.weight", &[11_167_040]),
        ("backbone.bn1.weight", &[64]),
        ("head.bias", &[7]),
    ]);
    let ours = zeros(&[
        ("bn1.weight", &[32]),
        ("conv1.weight", &[64, 3, 7, 7]),
        ("layer1.0.bn3.bias", &[8]),
    ]);
    let file = read_weights(&written(&folder, &theirs)).unwrap();
    let told = file.fit(&specs(&ours), &STRICT).unwrap_err().to_string();
    assert!(
        told.contains(
            "1 of its 3 tensors are there as they should be; 1 missing: layer1.0.bn3.bias f32 [8]; 1 unexpected: \
             backbone.layer1.0.conv1.weight f32 [11167040]; 1 mismatched: bn1.weight (expected f32 [32], found f32 [64])"
        ),
        "{told}"
    );
    assert!(told.contains("looks like weights of resnet18"), "{told}");

    let loose = FitOptions {
        strict: false,
        ..STRICT
    };
    let fit = file.fit(&specs(&ours), &loose).unwrap();
    assert_eq!(fit.assignments.len(), 1);
    assert!(
        fit.report.to_string().contains("1 mismatched"),
        "{}",
        fit.report
    );
    // Nothing at all is an error however loose.
    let none = file.fit(&specs(&zeros(&[("x", &[1])])), &loose);
    assert!(matches!(none, Err(Error::Misfit { .. })));
}

#[test]
fn integers_for_floats_are_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let mut theirs = zeros(&[("bn1.weight", &[4]), ("conv1.weight", &[2])]);
    let ours = specs(&theirs);
    theirs[0].dtype = Dtype::I32;
    let file = read_weights(&written(&folder, &theirs)).unwrap();
    let told = file.fit(&ours, &STRICT).unwrap_err().to_string();
    assert!(
        told.contains("bn1.weight (expected f32 [4], found i32 [4])"),
        "{told}"
    );
}

#[test]
fn a_cnn_alone_is_told_where_a_whole_model_is_asked_for() {
    let folder = TempDir::new().unwrap();
    let theirs = zeros(&[("bn1.weight", &[4])]);
    let ours = zeros(&[("backbone.bn1.weight", &[4]), ("head.bias", &[2])]);
    let file = read_weights(&written(&folder, &theirs)).unwrap();
    let told = file.fit(&specs(&ours), &STRICT).unwrap_err().to_string();
    assert!(
        told.contains("1 missing: head.bias f32 [2]")
            && told.contains("The file holds a CNN alone"),
        "{told}"
    );
}
