//! How good predictions are, on plain numbers: no file, no clock, no torch.
//!
//! Probabilities are f64 in 0..1. What has no value (an area under the curve of one class, a mean of nothing) is `None`.

mod baseline;
mod bootstrap;
mod boxes;
mod calibration;
mod competition;
mod quantity;
mod roc;
mod score_counts;

pub use baseline::means_of_other_folds;
pub use bootstrap::{Interval, Resamples, interval};
pub use boxes::{intersection_over_union, range_error};
pub use calibration::{Bin, bins, brier, expected_calibration_error, log_loss};
pub use competition::{LABELS, competition_score, study_loss};
pub use quantity::{Bootstrap, Estimate, Quantity, estimates};
pub use roc::{Ranked, RocPoint, area_under_roc, roc, sensitivity_at};
pub use score_counts::ScoreCounts;

/// Mean of `values`.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}
