//! Jobs that a user holds back: a paused one goes on when it is let go, and so does a cancelled one, whose descendants are skipped until
//! then. To the scheduler the two are the same: what is held does not start, and nothing that needs it can.

use std::collections::BTreeMap;

use event::EventKind;
use plan::{JobId, JobState};

use super::{Doing, Supervisor};
use crate::Outcome;
use crate::action::Action;
use crate::attempt::Attempt;
use crate::holds::{Hold, descendants, is_open};

impl Supervisor {
    /// What is held by now, of all jobs.
    pub(super) fn holds(&mut self, holds: &BTreeMap<String, Hold>) {
        for job in 0..self.progress.len() {
            let Some(progress) = self.progress.get(job).filter(|of| is_open(of.state)) else {
                continue;
            };
            let (attempt, wanted) = (progress.attempt, holds.get(progress.id.as_str()).copied());
            if wanted == self.held.get(&job).copied() {
                continue;
            }
            match wanted {
                Some(hold) => self.hold(job, attempt, hold),
                None => {
                    self.held.remove(&job);
                    self.scheduler.hold(job, false);
                    self.tell(job, attempt, EventKind::JobReleased);
                }
            }
        }
    }

    fn hold(&mut self, job: usize, attempt: u32, hold: Hold) {
        let before = self.held.insert(job, hold);
        self.scheduler.hold(job, true);
        let kind = match hold {
            Hold::Paused => EventKind::JobPaused,
            Hold::Cancelled => EventKind::JobCancelled {
                skipped: self.without(job),
            },
        };
        self.tell(job, attempt, kind);
        if before.is_none() {
            self.ask_alone(job);
        }
    }

    /// Asks a job to save and stop while the others go on.
    fn ask_alone(&mut self, job: usize) {
        let Some(id) = self.id(job) else {
            return;
        };
        match self.running.get_mut(&job) {
            Some(Doing::Attempt(attempt)) if !attempt.asked => {
                (attempt.asked, attempt.alone) = (true, true);
                self.actions.push(Action::Terminate { job: id });
            }
            Some(Doing::BackOff {
                attempt, reason, ..
            }) => {
                let (attempt, reason) = (*attempt, reason.clone());
                self.held_back(job, attempt, &reason);
            }
            _ => {}
        }
    }

    /// A job that is held would have been tried again.
    pub(super) fn held_back(&mut self, job: usize, attempt: u32, reason: &str) {
        let hold = self.held.get(&job).copied().unwrap_or(Hold::Paused);
        let why = format!("{hold} on request before a retry of: {reason}");
        self.stopped(job, attempt, None, why);
    }

    /// An attempt that was asked to stop has ended, perhaps with some trouble. The run stops with it, unless the request was about
    /// this job alone.
    pub(super) fn halted(&mut self, attempt: &Attempt, trouble: Option<String>, outcome: Outcome) {
        let alone = attempt.alone && self.stop.is_none() && self.ending.is_none();
        let request = match (alone, self.held.get(&attempt.job)) {
            (true, Some(hold)) => format!("{hold} on request"),
            // A job alone is also asked for the sake of more devices; or the hold was taken back meanwhile.
            (true, None) => "goes on at once, on as many devices as are free".to_owned(),
            (false, _) => "stopped on request".to_owned(),
        };
        let why = match trouble {
            Some(trouble) => format!("{request}; {trouble}"),
            None => request,
        };
        self.stopped(attempt.job, attempt.number, attempt.checkpoint, why);
        if !alone {
            self.end(outcome);
        }
    }

    /// The names of the jobs that are not run for want of this one.
    fn without(&self, job: usize) -> Vec<String> {
        let id = self.id(job);
        let skipped = descendants(&self.plan, |other| Some(other) == id.as_ref());
        skipped.into_iter().map(JobId::to_string).collect()
    }

    /// What the run has come to where nothing but held jobs is left; none where none is held.
    pub(super) fn all_held(&self) -> Option<Outcome> {
        let names = |hold: Hold| {
            let held = self.held.iter().filter(|(_, how)| **how == hold);
            let of = held.filter_map(|(job, _)| self.progress.get(*job));
            let of = of.filter(|job| is_open(job.state) && job.state != JobState::Failed);
            of.map(|job| job.id.to_string()).collect::<Vec<_>>()
        };
        let (paused, cancelled) = (names(Hold::Paused), names(Hold::Cancelled));
        let none = paused.is_empty() && cancelled.is_empty();
        (!none).then_some(Outcome::Held { paused, cancelled })
    }
}
