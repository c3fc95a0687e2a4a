//! The receiver operating characteristic: its points, the area below it, sensitivities.

use serde::Serialize;

/// Scores in ascending order, sorted once for any number of weightings.
#[derive(Clone, Debug)]
pub struct Ranked {
    /// Place among the scores as they were given, whether positive, whether the next one has another score.
    order: Vec<(usize, bool, bool)>,
}

impl Ranked {
    pub fn new(scored: &[(f64, bool)]) -> Self {
        let mut places: Vec<usize> = (0..scored.len()).collect();
        places.sort_by(|a, b| scored[*a].0.total_cmp(&scored[*b].0));
        let entry = |(i, place): (usize, &usize)| {
            let (score, positive) = scored[*place];
            let next = places.get(i + 1).map(|next| scored[*next].0);
            (*place, positive, next != Some(score))
        };
        Ranked {
            order: places.iter().enumerate().map(entry).collect(),
        }
    }

    /// Probability that a positive scores above a negative, ties counting half (Mann-Whitney), where the score that was
    /// given at place i counts `weights[i]` times; none without both classes.
    pub fn area(&self, weights: &[u32]) -> Option<f64> {
        // Counts are whole numbers: pairs are doubled, so that the halves of ties are whole too.
        let (mut below, mut pairs, mut positives) = (0u64, 0u64, 0u64);
        let (mut tied_positives, mut tied_negatives) = (0u64, 0u64);
        for (place, positive, last) in &self.order {
            let weight = u64::from(weights.get(*place).copied().unwrap_or(0));
            match positive {
                true => tied_positives += weight,
                false => tied_negatives += weight,
            }
            if *last {
                pairs += tied_positives * (2 * below + tied_negatives);
                positives += tied_positives;
                below += tied_negatives;
                (tied_positives, tied_negatives) = (0, 0);
            }
        }
        let all = positives * below;
        (all > 0).then(|| pairs as f64 / (2 * all) as f64)
    }
}

/// [`Ranked::area`] where each score counts once.
pub fn area_under_roc(scored: &[(f64, bool)]) -> Option<f64> {
    Ranked::new(scored).area(&vec![1; scored.len()])
}

/// What calling every score from `threshold` upwards positive comes to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RocPoint {
    pub false_positive_rate: f64,
    pub true_positive_rate: f64,
    /// None for the first point, where nothing is called positive.
    pub threshold: Option<f64>,
}

/// The curve from (0, 0) to (1, 1), one point for each score that occurs; empty without both classes.
pub fn roc(scored: &[(f64, bool)]) -> Vec<RocPoint> {
    let positives = scored.iter().filter(|(_, positive)| *positive).count();
    let negatives = scored.len() - positives;
    if positives == 0 || negatives == 0 {
        return Vec::new();
    }
    let mut sorted: Vec<&(f64, bool)> = scored.iter().collect();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut hits, mut alarms) = (0usize, 0usize);
    let mut points = vec![RocPoint {
        false_positive_rate: 0.0,
        true_positive_rate: 0.0,
        threshold: None,
    }];
    for (i, (score, positive)) in sorted.iter().enumerate() {
        hits += usize::from(*positive);
        alarms += usize::from(!*positive);
        if sorted.get(i + 1).is_none_or(|next| next.0 != *score) {
            points.push(RocPoint {
                false_positive_rate: alarms as f64 / negatives as f64,
                true_positive_rate: hits as f64 / positives as f64,
                threshold: Some(*score),
            });
        }
    }
    points
}

/// The highest sensitivity (true positive rate) of a threshold whose specificity is at least `specificity`.
pub fn sensitivity_at(points: &[RocPoint], specificity: f64) -> Option<f64> {
    let allowed = points
        .iter()
        .filter(|point| 1.0 - point.false_positive_rate >= specificity - 1e-12);
    allowed
        .map(|point| point.true_positive_rate)
        .max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(area_under_roc(&[]), None);
    }

    #[test]
    fn a_weight_is_so_many_copies() {
        let mut rng = <rand_chacha::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(3);
        for _ in 0..50 {
            let mut draw = |n| rand::RngExt::random_range(&mut rng, 0..n);
            let scored: Vec<(f64, bool)> = (0..20)
                .map(|_| (f64::from(draw(6u32)) / 5.0, draw(2) > 0))
                .collect();
            let weights: Vec<u32> = (0..20).map(|_| draw(4)).collect();
            let copies: Vec<(f64, bool)> = scored
                .iter()
                .zip(&weights)
                .flat_map(|(row, weight)| std::iter::repeat_n(*row, *weight as usize))
                .collect();
            assert_eq!(Ranked::new(&scored).area(&weights), by_pairs(&copies));
        }
    }

    /// Every positive against every negative.
    fn by_pairs(scored: &[(f64, bool)]) -> Option<f64> {
        let (mut sum, mut pairs) = (0.0, 0.0);
        for (positive, _) in scored.iter().filter(|(_, positive)| *positive) {
            for (negative, _) in scored.iter().filter(|(_, positive)| !*positive) {
                pairs += 1.0;
                sum += match positive.total_cmp(negative) {
                    std::cmp::Ordering::Greater => 1.0,
                    std::cmp::Ordering::Equal => 0.5,
                    std::cmp::Ordering::Less => 0.0,
                };
            }
        }
        (pairs > 0.0).then(|| sum / pairs)
    }

    #[test]
    fn the_curve_has_a_point_for_each_score_and_its_area_is_the_area() {
        let scored = [
            (0.9, true),
            (0.5, true),
            (0.5, false),
            (0.2, false),
            (0.2, false),
        ];
        let points = roc(&scored);
        let rates: Vec<(f64, f64)> = points
            .iter()
            .map(|point| (point.false_positive_rate, point.true_positive_rate))
            .collect();
        assert_eq!(
            rates,
            [(0.0, 0.0), (0.0, 0.5), (1.0 / 3.0, 1.0), (1.0, 1.0)]
        );
        let trapezes = rates
            .windows(2)
            .map(|pair| (pair[1].0 - pair[0].0) * (pair[0].1 + pair[1].1) / 2.0);
        let area: f64 = trapezes.sum();
        assert!((area - area_under_roc(&scored).unwrap()).abs() < 1e-12);
        assert!(roc(&[(0.5, true)]).is_empty());
        assert_eq!(sensitivity_at(&points, 0.9), Some(0.5));
        assert_eq!(sensitivity_at(&points, 2.0 / 3.0), Some(1.0));
        assert_eq!(sensitivity_at(&[], 0.9), None);
    }
}
