//! For the parity tests: the reference in Python, the model commands, and how far two files of tensors are apart.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use safetensors::{Dtype, SafeTensors};

/// A tensor on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

impl Array {
    /// sqrt(sum of squares)
    pub fn norm(&self) -> f64 {
        self.values.iter().map(|v| v * v).sum::<f64>().sqrt()
    }

    pub fn minus(&self, other: &Array) -> Array {
        assert_eq!(self.shape, other.shape);
        let pairs = self.values.iter().zip(&other.values);
        Array {
            shape: self.shape.clone(),
            values: pairs.map(|(a, b)| a - b).collect(),
        }
    }
}

pub type Tensors = BTreeMap<String, Array>;

/// The tensors of a safetensors file by name.
pub fn read(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file =
        SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let tensors = file.tensors().into_iter();
    tensors
        .map(|(name, view)| {
            let data = view.data();
            let values = match view.dtype() {
                Dtype::F32 => numbers(data, |b| f64::from(f32::from_le_bytes(b))),
                Dtype::F64 => numbers(data, f64::from_le_bytes),
                Dtype::I64 => numbers(data, |b| i64::from_le_bytes(b) as f64),
                other => panic!("{name} is {other:?}"),
            };
            let shape = view.shape().to_vec();
            (name, Array { shape, values })
        })
        .collect()
}

fn numbers<const N: usize>(bytes: &[u8], of: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    let chunks = bytes.chunks_exact(N);
    chunks
        .map(|chunk| of(chunk.try_into().expect("N bytes")))
        .collect()
}

/// max |a - b| / max |b|; infinite where the shapes differ or something is not finite.
pub fn relative_error(found: &Array, expected: &Array) -> f64 {
    let all = found.values.iter().chain(&expected.values);
    if found.shape != expected.shape || !all.into_iter().all(|v| v.is_finite()) {
        return f64::INFINITY;
    }
    let largest = |values: &[f64]| values.iter().fold(0.0f64, |max, v| max.max(v.abs()));
    let difference = largest(&found.minus(expected).values);
    match largest(&expected.values) {
        0.0 if difference == 0.0 => 0.0,
        scale => difference / scale,
    }
}

/// One line for each tensor of `expected` that `found` lacks or has more than `bound` away from it.
pub fn disagreements(found: &Tensors, expected: &Tensors, bound: f64) -> Vec<String> {
    let judged = expected
        .iter()
        .filter_map(|(name, expected)| match found.get(name) {
            None => Some(format!("{name} is missing")),
            Some(found) if found.shape != expected.shape => Some(format!(
                "{name} has the shape {:?}, expected {:?}",
                found.shape, expected.shape
            )),
            Some(found) => {
                let error = relative_error(found, expected);
                (error > bound || error.is_nan()).then(|| format!("{name} is {error:.1e} off"))
            }
        });
    judged.collect()
}

/// What a script of tests/python/parity prints; it has to end well.
pub fn reference<S: AsRef<OsStr>>(script: &str, arguments: impl IntoIterator<Item = S>) -> String {
    crate::python(&format!("tests/python/parity/{script}"), arguments)
}

/// A `spinectl model` command to its end, on one thread as the reference: what is left of a difference is not the order in which
/// threads add, and tests that run side by side do not wait for each other's threads.
pub fn model<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    Command::new(crate::program("spinectl"))
        .arg("model")
        .args(arguments)
        .env("OMP_NUM_THREADS", "1")
        .output()
        .expect("spinectl starts")
}

/// The flags of `spinectl model run` or `step` that name files.
pub struct Files<'a> {
    pub weights: &'a Path,
    pub input: &'a Path,
    pub output: &'a Path,
}

impl Files<'_> {
    /// The command with these files and more flags, to its end.
    pub fn model(&self, command: &str, arch: &str, flags: &[String]) -> Output {
        let mut arguments = vec![command.to_owned(), "--arch".into(), arch.into()];
        for (flag, path) in [
            ("--weights", self.weights),
            ("--input", self.input),
            ("--output", self.output),
        ] {
            arguments.extend([flag.to_owned(), path.display().to_string()]);
        }
        arguments.extend_from_slice(flags);
        model(arguments)
    }

    /// What the command writes; it has to end well.
    #[track_caller]
    pub fn outputs(&self, command: &str, arch: &str, flags: &[String]) -> Tensors {
        let ended = self.model(command, arch, flags);
        assert!(
            ended.status.success(),
            "{arch} {flags:?} ended with {:?}: {}",
            ended.status.code(),
            String::from_utf8_lossy(&ended.stderr)
        );
        read(self.output)
    }
}

/// Flags from their words.
pub fn flags<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}
