//! Devices that fall idle join a job that runs, at its next checkpoint, where the recipe lets ranks come and go (`training.gpus: auto` with
//! `elastic`): it is asked to save and stop, and the scheduler starts it again on all that is free then, with the same batch.

use super::{Doing, Supervisor};
use crate::action::Action;

/// How often the time that a change takes must be gained by it: what is left of a job is an estimate.
const WORTH: f64 = 2.0;

impl Supervisor {
    /// Asks the job to stop that gains most, where nothing else can take the devices that are idle.
    pub(super) fn widen(&mut self) {
        let attempts = || {
            self.running.values().filter_map(|doing| match doing {
                Doing::Attempt(attempt) => Some(attempt),
                Doing::BackOff { .. } => None,
            })
        };
        // What one that stops gives back is not known yet.
        if self.plan.elastic.is_none() || attempts().any(|attempt| attempt.asked) {
            return;
        }
        let start_ups = attempts().filter_map(|attempt| {
            let began = attempt.pace.began()?;
            Some(began.saturating_sub(attempt.started))
        });
        let Some(start_up) = start_ups.max() else {
            return;
        };
        let remaining = |job: usize| match self.running.get(&job) {
            Some(Doing::Attempt(attempt)) => attempt.pace.remaining(),
            _ => 0.0,
        };
        let cost = WORTH * start_up.as_secs_f64();
        let Some((job, _)) = self.scheduler.widen(cost, remaining) else {
            return;
        };
        if let (Some(id), Some(attempt)) = (self.id(job), self.attempt(job)) {
            (attempt.asked, attempt.alone) = (true, true);
            self.actions.push(Action::Terminate { job: id });
        }
    }
}
