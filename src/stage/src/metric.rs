//! The competition's metric and the area under the ROC curve, on plain numbers.

/// Labels of a study: patient_overall, C1..C7.
pub(crate) const LABELS: usize = 8;

/// Weighted multi-label log loss, mean over studies (PIPELINE.md, "Task"): for one study,
/// `sum_j w_j BCE(p_j, y_j) / sum_j w_j` with p clipped to 1e-15..1-1e-15 and w = 14 or 7 (fractured or not) for
/// patient_overall, 2 or 1 for C1..C7.
pub fn competition_score(studies: &[([f64; LABELS], [u8; LABELS])]) -> f64 {
    let of_study = |(probabilities, labels): &([f64; LABELS], [u8; LABELS])| {
        let (mut sum, mut weights) = (0.0, 0.0);
        for (j, (p, label)) in probabilities.iter().zip(labels).enumerate() {
            let p = p.clamp(1e-15, 1.0 - 1e-15);
            let weight = if j == 0 { 7.0 } else { 1.0 } * if *label > 0 { 2.0 } else { 1.0 };
            sum -= weight * if *label > 0 { p.ln() } else { (1.0 - p).ln() };
            weights += weight;
        }
        sum / weights
    };
    studies.iter().map(of_study).sum::<f64>() / studies.len().max(1) as f64
}

/// Probability that a positive scores above a negative, ties counting half (Mann-Whitney); none without both.
pub fn area_under_roc(scored: &[(f64, bool)]) -> Option<f64> {
    let mut sorted: Vec<&(f64, bool)> = scored.iter().collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let positives = scored.iter().filter(|(_, positive)| *positive).count();
    let negatives = scored.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    // Mean rank of each run of equal scores.
    let (mut rank_sum, mut from) = (0.0, 0);
    while from < sorted.len() {
        let to = from
            + sorted[from..]
                .iter()
                .take_while(|(s, _)| *s == sorted[from].0)
                .count();
        let rank = (from + 1 + to) as f64 / 2.0;
        rank_sum += rank
            * sorted[from..to]
                .iter()
                .filter(|(_, positive)| *positive)
                .count() as f64;
        from = to;
    }
    let p = positives as f64;
    Some((rank_sum - p * (p + 1.0) / 2.0) / (p * negatives as f64))
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
    }

    #[test]
    fn the_area_counts_pairs() {
        assert_eq!(area_under_roc(&[(0.1, false), (0.9, true)]), Some(1.0));
        assert_eq!(area_under_roc(&[(0.9, false), (0.1, true)]), Some(0.0));
        assert_eq!(area_under_roc(&[(0.5, false), (0.5, true)]), Some(0.5));
        let scored = [
            (0.1, false),
            (0.4, true),
            (0.35, false),
            (0.8, true),
            (0.4, false),
        ];
        // Pairs: 0.4 beats 0.1, 0.35, ties 0.4; 0.8 beats all three: 5.5 of 6.
        assert_eq!(area_under_roc(&scored), Some(5.5 / 6.0));
        assert_eq!(area_under_roc(&[(0.5, true)]), None);
    }
}
