//! The tensors that a model expects against those that a file holds.

use std::collections::BTreeMap;
use std::fmt;

use crate::{Dtype, TensorData};

/// Names shown of each kind of difference; the rest is counted.
const SHOWN: usize = 5;

/// What a model expects under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
}

/// How a file's tensors differ from the expected ones, each list in the order of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyReport {
    /// Expected and not there.
    pub missing: Vec<String>,
    /// There and not expected.
    pub unexpected: Vec<String>,
    /// There with another type or shape.
    pub mismatched: Vec<Mismatch>,
}

/// A tensor of another type or shape than expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    pub name: String,
    pub expected: (Dtype, Vec<usize>),
    pub found: (Dtype, Vec<usize>),
}

/// Compares the names, types and shapes of `found` with those of `expected`.
pub fn diff(expected: &[TensorSpec], found: &[TensorData]) -> KeyReport {
    let mut unmet: BTreeMap<&str, &TensorSpec> = expected
        .iter()
        .map(|spec| (spec.name.as_str(), spec))
        .collect();
    let mut report = KeyReport::default();
    for tensor in found {
        match unmet.remove(tensor.name.as_str()) {
            None => report.unexpected.push(tensor.name.clone()),
            Some(spec) if (spec.dtype, &spec.shape) != (tensor.dtype, &tensor.shape) => {
                report.mismatched.push(Mismatch {
                    name: tensor.name.clone(),
                    expected: (spec.dtype, spec.shape.clone()),
                    found: (tensor.dtype, tensor.shape.clone()),
                });
            }
            Some(_) => {}
        }
    }
    report.missing = unmet.into_keys().map(str::to_owned).collect();
    report.unexpected.sort();
    report.mismatched.sort_by(|a, b| a.name.cmp(&b.name));
    report
}

impl KeyReport {
    /// Whether every tensor is there as expected and no other.
    pub fn is_match(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.mismatched.is_empty()
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mismatch {
            name,
            expected,
            found,
        } = self;
        write!(
            f,
            "{name} (expected {} {:?}, found {} {:?})",
            expected.0, expected.1, found.0, found.1
        )
    }
}

impl fmt::Display for KeyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = [
            list("missing", &self.missing),
            list("unexpected", &self.unexpected),
            list("mismatched", &self.mismatched),
        ];
        let lists: Vec<String> = lists.into_iter().flatten().collect();
        match lists.is_empty() {
            true => f.write_str("all tensors match"),
            false => f.write_str(&lists.join("; ")),
        }
    }
}

/// `2 missing: a, b`, or nothing of nothing.
fn list(kind: &str, items: &[impl fmt::Display]) -> Option<String> {
    let shown: Vec<String> = items.iter().take(SHOWN).map(ToString::to_string).collect();
    let rest = match items.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!items.is_empty()).then(|| format!("{} {kind}: {}{rest}", items.len(), shown.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, dtype: Dtype, shape: &[usize]) -> TensorData {
        let bytes = vec![0; shape.iter().product::<usize>() * dtype.size()];
        TensorData {
            name: name.into(),
            dtype,
            shape: shape.into(),
            bytes,
        }
    }

    fn spec(name: &str, dtype: Dtype, shape: &[usize]) -> TensorSpec {
        TensorSpec {
            name: name.into(),
            dtype,
            shape: shape.into(),
        }
    }

    #[test]
    fn every_kind_of_difference_is_told() {
        let expected = [
            spec("head.weight", Dtype::F32, &[7, 4]),
            spec("head.bias", Dtype::F32, &[7]),
            spec("rnn.weight", Dtype::F32, &[2]),
        ];
        let found = [
            tensor("rnn.weight", Dtype::F16, &[2]),
            tensor("head.weight", Dtype::F32, &[8, 4]),
            tensor("head_any.bias", Dtype::F32, &[1]),
        ];
        let report = diff(&expected, &found);
        assert!(!report.is_match());
        assert_eq!(
            report.to_string(),
            "1 missing: head.bias; 1 unexpected: head_any.bias; 2 mismatched: head.weight (expected f32 [7, 4], \
             found f32 [8, 4]), rnn.weight (expected f32 [2], found f16 [2])"
        );
    }

    #[test]
    fn equal_lists_match_in_any_order() {
        let expected = [spec("a", Dtype::I64, &[]), spec("b", Dtype::Bool, &[0])];
        let found = [tensor("b", Dtype::Bool, &[0]), tensor("a", Dtype::I64, &[])];
        let report = diff(&expected, &found);
        assert!(report.is_match());
        assert_eq!(report.to_string(), "all tensors match");
    }

    #[test]
    fn a_long_list_is_cut_and_counted() {
        let expected: Vec<_> = (0..476)
            .map(|i| spec(&format!("k{i:03}"), Dtype::F32, &[]))
            .collect();
        assert_eq!(
            diff(&expected, &[]).to_string(),
            "476 missing: k000, k001, k002, k003, k004 and 471 more"
        );
    }
}
