//! The metrics beside scikit-learn 1.9.1 and numpy, on 60 predictions with ties.
//!
//! ```python
//! import numpy as np
//! from sklearn.calibration import calibration_curve
//! from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score, roc_curve
//! i = np.arange(60)
//! p = ((i * 37) % 60 // 3 * 3 + 1.5) / 60
//! y = ((i * 7 + i // 5) % 9 < 3) | (p > 0.8)
//! w = (i * 11) % 5
//! roc_auc_score(y, p), log_loss(y, p), brier_score_loss(y, p)
//! roc_auc_score(y, p, sample_weight=w), log_loss(y, p, sample_weight=w)
//! f, t, thresholds = roc_curve(y, p, drop_intermediate=False)
//! max(t[1 - f >= 0.9]), max(t[1 - f >= 0.5])
//! calibration_curve(y, p, n_bins=7)
//! ```

use metrics::{Quantity, Ranked, area_under_roc, bins, brier, log_loss, mean, roc, sensitivity_at};

fn scored() -> Vec<(f64, bool)> {
    (0..60u32)
        .map(|i| {
            let p = (f64::from((i * 37) % 60 / 3 * 3) + 1.5) / 60.0;
            (p, (i * 7 + i / 5) % 9 < 3 || p > 0.8)
        })
        .collect()
}

fn weights() -> Vec<u32> {
    (0..60).map(|i| (i * 11) % 5).collect()
}

fn close(found: Option<f64>, expected: f64) {
    let found = found.expect("it has a value");
    assert!((found - expected).abs() < 1e-12, "{found} {expected}");
}

#[test]
fn areas_and_losses() {
    let scored = scored();
    let losses: Vec<f64> = scored.iter().map(|(p, y)| log_loss(*p, *y)).collect();
    let briers: Vec<f64> = scored.iter().map(|(p, y)| brier(*p, *y)).collect();
    close(area_under_roc(&scored), 0.67853170189099);
    close(mean(&losses), 0.7093781819320442);
    close(mean(&briers), 0.24395833333333336);
    close(Ranked::new(&scored).area(&weights()), 0.6979977753058954);
    close(
        Quantity::mean(losses.clone()).value(&weights()),
        0.6621131637832428,
    );
}

#[test]
fn the_curve_and_its_sensitivities() {
    let points = roc(&scored());
    assert_eq!(points.len(), 21);
    close(Some(points[7].false_positive_rate), 0.20689655172413793);
    close(Some(points[7].true_positive_rate), 0.4838709677419355);
    close(points[7].threshold, 0.675);
    close(sensitivity_at(&points, 0.9), 0.41935483870967744);
    close(sensitivity_at(&points, 0.5), 0.6451612903225806);
}

#[test]
fn the_calibration_curve() {
    let found = bins(&scored(), 7);
    let observed = [
        4.0 / 9.0,
        1.0 / 3.0,
        4.0 / 9.0,
        1.0 / 3.0,
        4.0 / 9.0,
        5.0 / 9.0,
        1.0,
    ];
    let predicted = [0.075, 0.225, 0.375, 0.5, 0.625, 0.775, 0.925];
    assert_eq!(found.len(), 7);
    for (bin, (observed, predicted)) in found.iter().zip(observed.into_iter().zip(predicted)) {
        close(Some(bin.observed), observed);
        close(Some(bin.predicted), predicted);
    }
}
