//! Percentile bootstrap: how far a metric would move with another draw of patients.
//!
//! B. Efron, R. J. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13. Whole clusters are drawn (all studies
//! of a patient, all slices of a study), because what belongs together is not independent.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// What holds the middle `level` of the resampled values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

/// Draws of clusters with replacement; the same seed gives the same draws on any machine.
#[derive(Clone, Debug)]
pub struct Resamples {
    rng: ChaCha8Rng,
    /// The cluster of each row.
    clusters: Vec<usize>,
    /// How often each cluster was drawn.
    drawn: Vec<u32>,
    left: usize,
}

impl Resamples {
    /// `count` draws. `clusters[i]` is the number of row i's cluster, from 0 without gaps.
    pub fn new(clusters: Vec<usize>, count: usize, seed: u64) -> Self {
        let number = clusters.iter().max().map_or(0, |last| last + 1);
        Resamples {
            rng: ChaCha8Rng::seed_from_u64(seed),
            clusters,
            drawn: vec![0; number],
            left: count,
        }
    }
}

impl Iterator for Resamples {
    /// How often each row counts.
    type Item = Vec<u32>;

    fn next(&mut self) -> Option<Vec<u32>> {
        self.left = self.left.checked_sub(1)?;
        self.drawn.fill(0);
        for _ in 0..self.drawn.len() {
            let cluster = self.rng.random_range(0..self.drawn.len());
            self.drawn[cluster] += 1;
        }
        let weight = |cluster: &usize| self.drawn[*cluster];
        Some(self.clusters.iter().map(weight).collect())
    }
}

/// The percentiles around the middle `level` (0..1) of the values, interpolated linearly between neighbours; none of
/// fewer than two.
pub fn interval(mut values: Vec<f64>, level: f64) -> Option<Interval> {
    if values.len() < 2 {
        return None;
    }
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = share * (values.len() - 1) as f64;
        let below = place.floor() as usize;
        let above = (below + 1).min(values.len() - 1);
        values[below] + (values[above] - values[below]) * (place - below as f64)
    };
    let tail = (1.0 - level) / 2.0;
    Some(Interval {
        low: at(tail),
        high: at(1.0 - tail),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Quantity;

    #[test]
    fn a_seed_gives_the_same_draws_and_another_other_ones() {
        let draws = |seed| Resamples::new(vec![0, 1, 1, 2], 20, seed).collect::<Vec<_>>();
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
        for weights in draws(5) {
            assert_eq!(
                weights[1], weights[2],
                "a patient's studies are drawn together"
            );
            assert_eq!(
                weights[0] + weights[1] + weights[3],
                3,
                "as many as there are"
            );
        }
    }

    #[test]
    fn percentiles_interpolate() {
        // numpy.percentile(range(11), [2.5, 97.5]) = [0.25, 9.75]
        let found = interval((0..11).rev().map(f64::from).collect(), 0.95).unwrap();
        assert!((found.low - 0.25).abs() < 1e-12 && (found.high - 9.75).abs() < 1e-12);
        assert_eq!(interval(vec![1.0], 0.95), None);
    }

    #[test]
    fn an_interval_of_a_mean_is_the_textbooks() {
        // 400 values with standard deviation 1/2: mean +- 1.96 / 40, which is 0.049.
        let values = Quantity::mean((0..400).map(|i| f64::from(i % 2)));
        let draws = Resamples::new((0..400).collect(), 4000, 7);
        let means = draws.filter_map(|weights| values.value(&weights));
        let found = interval(means.collect(), 0.95).unwrap();
        assert!((found.low - 0.451).abs() < 0.005, "{found:?}");
        assert!((found.high - 0.549).abs() < 0.005, "{found:?}");
    }

    #[test]
    fn nothing_to_draw_from_gives_empty_draws() {
        assert_eq!(Resamples::new(Vec::new(), 2, 0).count(), 2);
    }
}
