//! How fast an attempt comes forward, as its updates tell.

use std::time::Duration;

use event::StepRecord;

/// The first update of an attempt and the newest.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace(Option<[Update; 2]>);

#[derive(Clone, Copy, Debug)]
struct Update {
    at: Duration,
    step: u64,
    /// Updates in the whole job.
    total: u64,
}

impl Pace {
    pub fn take(&mut self, step: &StepRecord, now: Duration) {
        let update = Update {
            at: now,
            step: step.step,
            total: step.total_steps,
        };
        let [first, _] = self.0.unwrap_or([update; 2]);
        self.0 = Some([first, update]);
    }

    /// When the first update was done; none before that.
    pub fn began(&self) -> Option<Duration> {
        self.0.map(|[first, _]| first.at)
    }

    /// Seconds of the updates that are left, at the pace of those that were done; 0 where there were too few to tell.
    pub fn remaining(&self) -> f64 {
        let Some([first, newest]) = self.0 else {
            return 0.0;
        };
        let done = newest.step.saturating_sub(first.step).max(1) as f64;
        let left = newest.total.saturating_sub(newest.step) as f64;
        newest.at.saturating_sub(first.at).as_secs_f64() * left / done
    }
}
