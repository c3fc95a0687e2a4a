//! The competition's metric.

use crate::calibration::log_loss;

/// Labels of a study: patient_overall, C1..C7.
pub const LABELS: usize = 8;

/// Weighted multi-label log loss of one study (PIPELINE.md, "Task"): `sum_j w_j BCE(p_j, y_j) / sum_j w_j` with p clipped
/// to 1e-15..1-1e-15 and w = 14 or 7 (fractured or not) for patient_overall, 2 or 1 for C1..C7.
pub fn study_loss(probabilities: &[f64; LABELS], labels: &[u8; LABELS]) -> f64 {
    let (mut sum, mut weights) = (0.0, 0.0);
    for (j, (p, label)) in probabilities.iter().zip(labels).enumerate() {
        let weight = if j == 0 { 7.0 } else { 1.0 } * if *label > 0 { 2.0 } else { 1.0 };
        sum += weight * log_loss(*p, *label > 0);
        weights += weight;
    }
    sum / weights
}

/// Mean of [`study_loss`] over studies; 0 of none.
pub fn competition_score(studies: &[([f64; LABELS], [u8; LABELS])]) -> f64 {
    let losses = studies.iter().map(|(p, labels)| study_loss(p, labels));
    losses.sum::<f64>() / studies.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_of_one_study_by_hand() {
        let p = [0.5; LABELS];
        let y = [1, 0, 1, 0, 0, 0, 0, 0];
        // Every term is ln 2, so the weighted mean is ln 2.
        assert!((competition_score(&[(p, y)]) - 2f64.ln()).abs() < 1e-12);
        let mut sure = [0.0; LABELS];
        sure[0] = 1.0;
        sure[2] = 1.0;
        assert!(competition_score(&[(sure, y)]) < 1e-12);
        // Wrong about C1 only: weight 1 of 14 + 2 + 6.
        sure[1] = 0.5;
        assert!((competition_score(&[(sure, y)]) - 2f64.ln() / 22.0).abs() < 1e-12);
        // Sure and wrong about everything costs no more than the clip: 15 digits.
        let wrong = y.map(|y| f64::from(1 - y));
        assert!((study_loss(&wrong, &y) - 15.0 * 10f64.ln()).abs() < 0.1);
    }
}
