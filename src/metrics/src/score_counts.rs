//! Scores of positives and negatives, counted by how high they are: what a curve of precision over recall is made of.

/// Bins from 0 to 1; each is a threshold of the curve.
const BINS: usize = 101;

/// Bin i counts scores from i / 100 on, up to the next; the last one those of exactly 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScoreCounts {
    pub positives: Vec<u64>,
    pub negatives: Vec<u64>,
}

impl ScoreCounts {
    /// Of pairs of score and whether it should be high. Scores are cut to 0..1; what is no number is left out.
    pub fn of(scores: impl IntoIterator<Item = (f64, bool)>) -> Self {
        let mut counts = ScoreCounts {
            positives: vec![0; BINS],
            negatives: vec![0; BINS],
        };
        for (score, positive) in scores {
            let bins = match positive {
                true => &mut counts.positives,
                false => &mut counts.negatives,
            };
            if score.is_nan() {
                continue;
            }
            let bin = score.clamp(0.0, 1.0) * (BINS - 1) as f64;
            bins[bin as usize] += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_score_is_counted_at_the_threshold_that_it_reaches() {
        let scores = [
            (0.0, false),
            (0.009, false),
            (0.5, true),
            (0.999, true),
            (1.0, true),
            (7.0, false),
            (f64::NAN, true),
        ];
        let counts = ScoreCounts::of(scores);
        let there = |bins: &[u64]| -> Vec<(usize, u64)> {
            let bins = bins.iter().copied().enumerate();
            bins.filter(|(_, count)| *count > 0).collect()
        };
        assert_eq!(there(&counts.positives), [(50, 1), (99, 1), (100, 1)]);
        assert_eq!(there(&counts.negatives), [(0, 2), (100, 1)]);
    }
}
