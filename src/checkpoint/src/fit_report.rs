//! What was done to make a file of weights fit a model, and what does not fit, in words.

use std::fmt;

use crate::Dtype;
use crate::keys::{KeyReport, TensorSpec, counted, modules};
use crate::matching::BACKBONE;

/// How a file fits a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FitReport {
    /// Tensors that the file brings.
    pub loaded: usize,
    /// Tensors that it should bring.
    pub expected: usize,
    /// What was done to them.
    pub notes: Vec<Note>,
    /// What does not fit.
    pub keys: KeyReport,
}

/// Something that was done to make a file fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A wrapper's prefix was taken off so many names.
    Unwrapped { prefix: &'static str, names: usize },
    /// `backbone.` was put before so many names.
    IntoBackbone { names: usize },
    /// Of a model's file the CNN alone is wanted; the names of the others.
    BackboneOf { others: Vec<String> },
    /// A classifier that the model has no place for.
    Classifier { dropped: Vec<TensorSpec> },
    /// So many tensors are of another type than the model's.
    Converted {
        from: Dtype,
        to: Dtype,
        tensors: usize,
    },
    /// The first convolution was brought from three channels to so many.
    Channels { name: String, to: usize },
    /// So many counters of batches are not in the file, as before PyTorch 0.4.1.
    NoCounters { names: usize },
    /// Tensors that the file need not bring, by their names in the model.
    Initial { names: Vec<String> },
    /// So many values are NaN or infinite, which was asked to be let through.
    NotFinite { values: usize },
}

impl FitReport {
    /// Whether all of a model's CNN is there, and of the rest nothing.
    pub(crate) fn lacks_heads_only(&self) -> bool {
        let into_backbone = |note: &Note| matches!(note, Note::IntoBackbone { .. });
        let keys = &self.keys;
        let in_backbone = |spec: &TensorSpec| spec.name.starts_with(BACKBONE);
        self.notes.iter().any(into_backbone)
            && keys.unexpected.is_empty()
            && keys.mismatched.is_empty()
            && !keys.missing.iter().any(in_backbone)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Unwrapped { prefix, names } => {
                write!(f, "`{prefix}` taken off {}", counted(*names, "name"))
            }
            Note::IntoBackbone { names } => {
                write!(f, "`backbone.` put before {}", counted(*names, "name"))
            }
            Note::BackboneOf { others } if others.is_empty() => {
                f.write_str("the file holds a model's `backbone.` alone")
            }
            Note::BackboneOf { others } => write!(
                f,
                "of the file only `backbone.` is used, without {}{}",
                counted(others.len(), "other tensor"),
                named(others)
            ),
            Note::Classifier { dropped } => {
                let specs: Vec<String> = dropped.iter().map(ToString::to_string).collect();
                write!(f, "classifier dropped: {}", specs.join(", "))
            }
            Note::Converted { from, to, tensors } => {
                write!(
                    f,
                    "{} converted from {from} to {to}",
                    counted(*tensors, "tensor")
                )
            }
            Note::Channels { name, to: 1 } => {
                write!(f, "{name} made for 1 channel: the sum over its 3")
            }
            Note::Channels { name, to } => write!(
                f,
                "{name} made for {to} channels: its 3 repeated and scaled by 3/{to}"
            ),
            Note::NoCounters { names } => write!(
                f,
                "the file has no num_batches_tracked: {} as they were",
                counted(*names, "counter")
            ),
            Note::Initial { names } => write!(
                f,
                "{} at initial values{}",
                counted(names.len(), "other tensor"),
                named(names)
            ),
            Note::NotFinite { values } => write!(
                f,
                "{} NaN or infinite, let through as asked",
                counted(*values, "value")
            ),
        }
    }
}

fn named(names: &[String]) -> String {
    modules(names.iter().map(String::as_str))
}

impl fmt::Display for FitReport {
    /// `473 of 473 tensors loaded; classifier dropped: fc.bias f32 [1000], ...`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} tensors loaded", self.loaded, self.expected)?;
        for note in &self.notes {
            write!(f, "; {note}")?;
        }
        match self.keys.is_match() {
            true => Ok(()),
            false => write!(f, "; {}", self.keys),
        }
    }
}
