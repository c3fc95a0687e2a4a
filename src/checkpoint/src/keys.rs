//! The tensors that a model expects against those that a file holds.

use std::collections::BTreeMap;
use std::fmt;

use crate::{Dtype, TensorData};

/// Lists up to this long are shown in full.
const SHOWN: usize = 5;
/// Of longer ones so many names are shown, and the rest counted by module.
const SHOWN_OF_MANY: usize = 3;
/// Modules that are counted by name; further ones are lumped together.
const MODULES: usize = 6;

/// A tensor's name, type and shape.
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
    pub missing: Vec<TensorSpec>,
    /// There and not expected.
    pub unexpected: Vec<TensorSpec>,
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
pub fn diff(expected: &[TensorSpec], found: &[TensorSpec]) -> KeyReport {
    let mut unmet: BTreeMap<&str, &TensorSpec> = expected
        .iter()
        .map(|spec| (spec.name.as_str(), spec))
        .collect();
    let mut report = KeyReport::default();
    for tensor in found {
        match unmet.remove(tensor.name.as_str()) {
            None => report.unexpected.push(tensor.clone()),
            Some(spec) if spec != tensor => {
                report.mismatched.push(Mismatch {
                    name: tensor.name.clone(),
                    expected: (spec.dtype, spec.shape.clone()),
                    found: (tensor.dtype, tensor.shape.clone()),
                });
            }
            Some(_) => {}
        }
    }
    report.missing = unmet.into_values().cloned().collect();
    report.unexpected.sort_by(|a, b| a.name.cmp(&b.name));
    report.mismatched.sort_by(|a, b| a.name.cmp(&b.name));
    report
}

impl KeyReport {
    /// Whether every tensor is there as expected and no other.
    pub fn is_match(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.mismatched.is_empty()
    }
}

impl TensorData {
    /// What it is, without its values.
    pub fn spec(&self) -> TensorSpec {
        TensorSpec {
            name: self.name.clone(),
            dtype: self.dtype,
            shape: self.shape.clone(),
        }
    }
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:?}", self.name, self.dtype, self.shape)
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
            list("missing", &self.missing, |spec| &spec.name),
            list("unexpected", &self.unexpected, |spec| &spec.name),
            list("mismatched", &self.mismatched, |mismatch| &mismatch.name),
        ];
        let lists: Vec<String> = lists.into_iter().flatten().collect();
        match lists.is_empty() {
            true => f.write_str("all tensors match"),
            false => f.write_str(&lists.join("; ")),
        }
    }
}

/// `2 missing: a f32 [1], b f32 [2]`, or nothing of nothing.
fn list<T: fmt::Display>(kind: &str, items: &[T], name: impl Fn(&T) -> &str) -> Option<String> {
    let shown = match items.len() {
        0 => return None,
        n if n <= SHOWN => n,
        _ => SHOWN_OF_MANY,
    };
    let (shown, rest) = items.split_at(shown);
    let shown: Vec<String> = shown.iter().map(ToString::to_string).collect();
    let rest = match rest.len() {
        0 => String::new(),
        more => format!(" and {more} more{}", modules(rest.iter().map(name))),
    };
    Some(format!(
        "{} {kind}: {}{rest}",
        items.len(),
        shown.join(", ")
    ))
}

/// `1 tensor`, `2 tensors`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

/// ` (layer1 12, layer2 30)`: how many of the names are in each module; nothing where that tells no more than the
/// names do.
pub(crate) fn modules<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut total = 0;
    for name in names {
        *counts.entry(module(name)).or_default() += 1;
        total += 1;
    }
    if counts.len() == total {
        return String::new();
    }
    let beyond: usize = counts.values().skip(MODULES).sum();
    let mut parts: Vec<String> = counts
        .iter()
        .take(MODULES)
        .map(|(module, count)| format!("{module} {count}"))
        .collect();
    if beyond > 0 {
        parts.push(format!("others {beyond}"));
    }
    format!(" ({})", parts.join(", "))
}

/// `layer1` of `layer1.0.bn1.bias`, `backbone.layer1` of the same inside a model.
fn module(name: &str) -> &str {
    let inner = name.strip_prefix("backbone.").unwrap_or(name);
    let end = inner.find('.').unwrap_or(inner.len());
    name.get(..name.len() - inner.len() + end).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            spec("rnn.weight", Dtype::F16, &[2]),
            spec("head.weight", Dtype::F32, &[8, 4]),
            spec("head_any.bias", Dtype::F32, &[1]),
        ];
        let report = diff(&expected, &found);
        assert!(!report.is_match());
        assert_eq!(
            report.to_string(),
            "1 missing: head.bias f32 [7]; 1 unexpected: head_any.bias f32 [1]; 2 mismatched: head.weight (expected \
             f32 [7, 4], found f32 [8, 4]), rnn.weight (expected f32 [2], found f16 [2])"
        );
    }

    #[test]
    fn equal_lists_match_in_any_order() {
        let expected = [spec("a", Dtype::I64, &[]), spec("b", Dtype::Bool, &[0])];
        let found = [spec("b", Dtype::Bool, &[0]), spec("a", Dtype::I64, &[])];
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
            "476 missing: k000 f32 [], k001 f32 [], k002 f32 [] and 473 more"
        );
    }

    #[test]
    fn the_rest_of_a_long_list_is_counted_by_module() {
        let names = (1..9).flat_map(|l| (0..4).map(move |i| format!("backbone.layer{l}.{i}.bias")));
        let expected: Vec<_> = names.map(|name| spec(&name, Dtype::F32, &[8])).collect();
        let text = diff(&expected, &[]).to_string();
        let rest = text.split_once(" and ").unwrap().1;
        assert_eq!(
            rest,
            "29 more (backbone.layer1 1, backbone.layer2 4, backbone.layer3 4, backbone.layer4 4, backbone.layer5 4, \
             backbone.layer6 4, others 8)"
        );
        assert_eq!((module("head.bias"), module("weight")), ("head", "weight"));
    }
}
