//! How fast a job goes, evened out over its last updates.

use std::collections::BTreeMap;

use event::{GpuUse, StepRecord};

/// Weight of the newest update in the means.
const NEWEST: f64 = 0.2;

#[derive(Debug, Default)]
pub struct Pace {
    seconds_per_step: Option<f64>,
    images_per_second: Option<f64>,
    /// Of each rank's GPU, 0 to 1.
    utilization: BTreeMap<usize, f64>,
}

impl Pace {
    pub fn take(&mut self, step: &StepRecord) {
        if step.seconds > 0.0 {
            mix(&mut self.seconds_per_step, step.seconds);
            mix(
                &mut self.images_per_second,
                step.images as f64 / step.seconds,
            );
        }
    }

    pub fn take_gpu(&mut self, rank: usize, gpu: &GpuUse) {
        if let Some(utilization) = gpu.utilization {
            self.utilization.insert(rank, utilization);
        }
    }

    /// How busy the job's GPUs are, 0 to 1; none where nobody tells.
    pub fn utilization(&self) -> Option<f64> {
        let sum: f64 = self.utilization.values().sum();
        let ranks = self.utilization.len();
        (ranks > 0).then(|| sum / ranks as f64)
    }

    pub fn images_per_second(&self) -> Option<f64> {
        self.images_per_second
    }

    /// Seconds until the job's last update; evaluation and tables come on top.
    pub fn remaining(&self, step: &StepRecord) -> Option<f64> {
        let left = step.total_steps.saturating_sub(step.step);
        self.seconds_per_step.map(|seconds| seconds * left as f64)
    }
}

fn mix(mean: &mut Option<f64>, value: f64) {
    *mean = Some(mean.map_or(value, |mean| mean + NEWEST * (value - mean)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_remains_follows_from_the_updates_so_far() {
        let mut pace = Pace::default();
        let step = |step, seconds| StepRecord {
            step,
            total_steps: 10,
            images: 30,
            seconds,
            ..StepRecord::default()
        };
        assert_eq!(pace.remaining(&step(1, 0.0)), None);
        pace.take(&step(1, 0.0));
        assert_eq!(pace.images_per_second(), None, "no time, no speed");
        pace.take(&step(2, 3.0));
        assert_eq!(pace.images_per_second(), Some(10.0));
        assert_eq!(pace.remaining(&step(8, 3.0)), Some(6.0));
        pace.take(&step(3, 8.0));
        assert_eq!(pace.remaining(&step(9, 8.0)), Some(4.0));
    }
}
