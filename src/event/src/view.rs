//! What a training lets people see beside its numbers: settings, pictures, scores, histograms.

use serde::{Deserialize, Serialize};

/// The value of a setting that models are compared by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Setting {
    Flag(bool),
    Number(f64),
    Text(String),
}

/// A picture that is complete on disk. Its name says what it shows, and not of whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Picture {
    /// Updates done when it was made.
    pub step: u64,
    /// Such as `inputs/0`: the same name shows the same study, or the same sample, at every step.
    pub name: String,
    /// A PNG, relative to the run directory.
    pub path: String,
    /// What it shows, in words; of the patient no more than the StudyInstanceUID.
    pub caption: String,
}

/// How many scores of positives and of negatives lie where, between 0 and 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    pub step: u64,
    /// Whose scores: `held_out`, `out_of_fold`.
    pub set: String,
    /// What a positive is: `fracture`, `C3`.
    pub name: String,
    /// With n bins, bin i counts scores from i / (n - 1) on, up to the next; the last one those of exactly 1.
    pub positives: Vec<u64>,
    pub negatives: Vec<u64>,
}

/// How the values of a tensor are spread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    pub step: u64,
    /// Such as `weights/backbone.conv1.0.weight`.
    pub name: String,
    /// Ends of the bins, rising: one more than there are counts.
    pub edges: Vec<f64>,
    pub counts: Vec<u64>,
}
