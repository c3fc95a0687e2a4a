//! Whether probabilities are what they say: log loss, Brier score, bins of a calibration curve.

use serde::Serialize;

/// Probabilities are kept this far from 0 and 1 in logarithms, as the competition does.
const CLIP: f64 = 1e-15;

/// Negative log likelihood of one label.
pub fn log_loss(p: f64, positive: bool) -> f64 {
    let p = p.clamp(CLIP, 1.0 - CLIP);
    -if positive { p.ln() } else { (1.0 - p).ln() }
}

/// Squared error of one probability.
pub fn brier(p: f64, positive: bool) -> f64 {
    (p - f64::from(u8::from(positive))).powi(2)
}

/// Predictions of about the same probability.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bin {
    pub count: usize,
    /// Mean predicted probability.
    pub predicted: f64,
    /// Share of positives.
    pub observed: f64,
}

/// The predictions in `count` bins of equal width over 0..1 (the last one holds 1.0); bins without any are left out.
pub fn bins(scored: &[(f64, bool)], count: usize) -> Vec<Bin> {
    let count = count.max(1);
    let mut sums = vec![(0usize, 0.0, 0usize); count];
    for (p, positive) in scored {
        let place = ((p * count as f64) as usize).min(count - 1);
        let (n, predicted, positives) = &mut sums[place];
        *n += 1;
        *predicted += p;
        *positives += usize::from(*positive);
    }
    let filled = sums.into_iter().filter(|(n, ..)| *n > 0);
    filled
        .map(|(n, predicted, positives)| Bin {
            count: n,
            predicted: predicted / n as f64,
            observed: positives as f64 / n as f64,
        })
        .collect()
}

/// Mean over predictions of the distance between what their bin predicts and what is observed (Naeini et al., "Obtaining
/// Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015).
pub fn expected_calibration_error(bins: &[Bin]) -> Option<f64> {
    let total: usize = bins.iter().map(|bin| bin.count).sum();
    let off = |bin: &Bin| (bin.predicted - bin.observed).abs() * bin.count as f64;
    (total > 0).then(|| bins.iter().map(off).sum::<f64>() / total as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_hold_their_bounds_and_leave_empty_ones_out() {
        let scored = [
            (0.0, false),
            (0.1, true),
            (0.5, true),
            (0.99, false),
            (1.0, true),
        ];
        let found = bins(&scored, 2);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].count, found[1].count), (2, 3));
        assert!((found[1].predicted - 2.49 / 3.0).abs() < 1e-12);
        assert!((found[1].observed - 2.0 / 3.0).abs() < 1e-12);
        // |0.05 - 0.5| * 2 + |0.83 - 2/3| * 3, over 5.
        let error = expected_calibration_error(&found).unwrap();
        assert!((error - (0.9 + 0.49) / 5.0).abs() < 1e-12, "{error}");
        assert_eq!(bins(&scored, 10).len(), 4);
        assert_eq!(expected_calibration_error(&[]), None);
    }
}
