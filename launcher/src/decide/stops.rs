//! Stops: on request of a user, or because a job was stopped.

use event::EventKind;
use plan::JobState;

use super::{Doing, Supervisor};
use crate::Outcome;
use crate::action::Action;

impl Supervisor {
    pub(super) fn signal(&mut self, signal: i32) {
        let second = self.stop.replace(signal).is_some();
        for job in self.jobs() {
            match self.attempt(job) {
                Some(attempt) if second => {
                    attempt.killed = true;
                    attempt.hurried = true;
                    self.kill(job);
                }
                _ => self.ask_to_stop(job),
            }
        }
    }

    /// Asks a job to save and stop; one that waits for its next attempt has stopped already.
    pub(super) fn ask_to_stop(&mut self, job: usize) {
        match self.running.get_mut(&job) {
            Some(Doing::Attempt(attempt)) => {
                if !std::mem::replace(&mut attempt.asked, true)
                    && let Some(job) = self.id(job)
                {
                    self.actions.push(Action::Terminate { job });
                }
            }
            Some(Doing::BackOff {
                attempt, reason, ..
            }) => {
                let why = format!("stopped on request before a retry of: {reason}");
                let attempt = *attempt;
                self.stopped(job, attempt, None, why);
                self.end(Outcome::Stopped);
            }
            None => {}
        }
    }

    /// A job goes on in another launch.
    pub(super) fn stopped(&mut self, job: usize, attempt: u32, step: Option<u64>, why: String) {
        self.running.remove(&job);
        self.scheduler.stopped(job);
        self.record(job, attempt, JobState::Stopped, why);
        self.tell(job, attempt, EventKind::JobStopped { step });
    }

    /// The run ends so, once the jobs that still run have stopped. One that could not save outweighs those that could.
    pub(super) fn end(&mut self, outcome: Outcome) {
        let known = self.ending.take();
        self.ending = match known {
            Some(Outcome::Interrupted { .. }) => known,
            _ => Some(outcome),
        };
        for job in self.jobs() {
            self.ask_to_stop(job);
        }
    }

    pub(super) fn interrupted(&self) -> Outcome {
        // Only a signal asks ranks to stop or cuts them short.
        let signal = self.stop.unwrap_or(libc::SIGTERM);
        Outcome::Interrupted { signal }
    }
}
