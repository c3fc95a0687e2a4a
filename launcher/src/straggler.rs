//! A rank that is slower than the others by itself: worth a word, never an end.

use event::Pulse;

/// Updates for which a rank must be slow, and how slow against the median of the others.
const LONG: u64 = 20;
const SLOW: f64 = 2.0;
/// Seconds an update below which a difference is noise.
const NOISE: f64 = 0.01;

/// What one rank tells of the time that it spends by itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Straggler {
    /// Mean of its recent updates.
    pub local_seconds: Option<f64>,
    step: u64,
    slow_since: Option<u64>,
    said: bool,
}

impl Straggler {
    pub fn take(&mut self, pulse: &Pulse) {
        self.local_seconds = pulse.local_seconds.filter(|seconds| seconds.is_finite());
        self.step = pulse.step;
    }

    /// Compares with the others' seconds; words once it has been slow for long, and only once.
    pub fn score(&mut self, others: &[f64]) -> Option<String> {
        let own = self.local_seconds?;
        let median = median(others)?;
        if own <= SLOW * median || own - median < NOISE {
            self.slow_since = None;
            return None;
        }
        let since = *self.slow_since.get_or_insert(self.step);
        let slow_for = self.step.saturating_sub(since);
        if slow_for < LONG || std::mem::replace(&mut self.said, true) {
            return None;
        }
        Some(format!(
            "is slow: for {slow_for} updates its own work (data wait and forward) has taken {own:.3} s an update, {:.1} times \
             the median of the other ranks; they wait for it. See what else runs on its cores or its device, and its disk",
            own / median.max(f64::MIN_POSITIVE)
        ))
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use event::{Phase, Samples};

    use super::*;

    fn told(slow: f64, steps: std::ops::RangeInclusive<u64>, rank: &mut Straggler) -> Vec<u64> {
        let mut said = Vec::new();
        for step in steps {
            rank.take(&Pulse {
                phase: Phase::Forward,
                step,
                sequence: 0,
                waits: false,
                progress: 0,
                idle_seconds: 0.0,
                local_seconds: Some(slow),
                samples: Samples::default(),
            });
            if let Some(words) = rank.score(&[0.1, 0.11, 0.09]) {
                assert!(words.contains("times the median"), "{words}");
                said.push(step);
            }
        }
        said
    }

    #[test]
    fn only_lasting_slowness_is_said_and_only_once() {
        let mut rank = Straggler::default();
        assert!(told(0.3, 1..=15, &mut rank).is_empty());
        assert!(told(0.12, 16..=18, &mut rank).is_empty(), "it caught up");
        assert_eq!(told(0.3, 19..=90, &mut rank), [39]);
    }

    #[test]
    fn twice_the_others_is_not_slow_yet_nor_is_noise() {
        assert!(told(0.2, 1..=90, &mut Straggler::default()).is_empty());
        let mut rank = Straggler {
            local_seconds: Some(0.004),
            ..Straggler::default()
        };
        assert_eq!(rank.score(&[0.001]), None);
        assert_eq!(rank.slow_since, None);
    }
}
