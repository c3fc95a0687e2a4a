//! How good a run's models are on the studies that they did not see, stage by stage.

mod measure;
mod tables;

use std::collections::BTreeMap;

use data::StudyUid;
use metrics::{Bin, Bootstrap, Interval, RocPoint};
use serde::Serialize;

pub use measure::evaluate;
pub use tables::{RunTables, Slice, read};

/// All of it, as evaluation.json holds it.
#[derive(Debug, Serialize)]
pub struct Evaluation {
    /// The recipe's name.
    pub run: String,
    pub plan_hash: String,
    pub bootstrap: Bootstrap,
    /// What is drawn: patients, or studies where the data set names no patients.
    pub drawn: &'static str,
    /// What is not there yet, in words; empty where the run is complete.
    pub missing: Vec<String>,
    /// Of what the gate against leaks could not hold against the folds, in words; empty where it has checked all.
    pub unchecked: Vec<String>,
    /// By name: stage1a, stage1b, stage2, stage3; those that there are tables of.
    pub stages: BTreeMap<&'static str, Stage>,
    /// By label; empty before stage 3.
    pub labels: Vec<Label>,
    /// Calibration of all vertebrae together; empty before stage 3.
    pub vertebra_bins: Vec<Bin>,
    /// Worst first; empty before stage 3.
    pub studies: Vec<Study>,
}

/// Metrics of a stage out of fold.
#[derive(Debug, Serialize)]
pub struct Stage {
    /// Studies that have a prediction and truth.
    pub studies: usize,
    pub overall: BTreeMap<&'static str, Metric>,
    /// Each fold by itself: its studies, by the models that hold it out.
    pub folds: BTreeMap<u32, Fold>,
}

#[derive(Debug, Serialize)]
pub struct Fold {
    pub studies: usize,
    pub metrics: BTreeMap<&'static str, Metric>,
}

/// A value, the interval of its bootstrap, and what a constant reaches that knows the other folds' mean.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Metric {
    pub value: Option<f64>,
    pub interval: Option<Interval>,
    pub baseline: Option<f64>,
}

/// One label of stage 3.
#[derive(Debug, Serialize)]
pub struct Label {
    pub name: &'static str,
    pub positives: usize,
    pub negatives: usize,
    pub metrics: BTreeMap<&'static str, Metric>,
    pub roc: Vec<RocPoint>,
    pub bins: Vec<Bin>,
}

/// One study of stage 3.
#[derive(Clone, Debug, Serialize)]
pub struct Study {
    pub study: StudyUid,
    pub fold: u32,
    pub loss: f64,
    /// In the order of the task's labels.
    pub truth: [u8; metrics::LABELS],
    pub probabilities: [f64; metrics::LABELS],
}
