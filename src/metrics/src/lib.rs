//! How good predictions are, on plain numbers: no file, no clock, no torch.
//!
//! Probabilities are f64 in 0..1. What has no value (an area under the curve of one class, a mean of nothing) is `None`.

mod bootstrap;
mod boxes;
mod calibration;
mod competition;
mod roc;

pub use bootstrap::{Interval, Resamples, interval};
pub use boxes::{intersection_over_union, range_error};
pub use calibration::{Bin, bins, brier, expected_calibration_error, log_loss};
pub use competition::{LABELS, competition_score, study_loss};
pub use roc::{Ranked, RocPoint, area_under_roc, roc, sensitivity_at};

/// Mean of `values`, each counted `weights[i]` times.
pub fn weighted_mean(values: &[f64], weights: &[u32]) -> Option<f64> {
    let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    let sum: f64 = values
        .iter()
        .zip(weights)
        .map(|(value, weight)| value * f64::from(*weight))
        .sum();
    (total > 0.0).then(|| sum / total)
}

/// Mean of `values`.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}
