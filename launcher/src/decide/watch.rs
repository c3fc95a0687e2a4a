//! What the ranks of a job say and how they end, up to the end of the last one.

use std::time::Duration;

use event::{EventKind, FailureReport};

use super::{Doing, Supervisor};
use crate::action::Death;
use crate::attempt::Examination;
use crate::facts::Facts;

impl Supervisor {
    pub(super) fn said(&mut self, job: usize, rank: usize, kind: &EventKind, now: Duration) {
        let grace = self.timeouts.grace;
        let Some(attempt) = self.attempt(job) else {
            return;
        };
        if attempt.said(rank, kind, now) {
            attempt.kill_at.get_or_insert(now + grace);
        }
        if matches!(kind, EventKind::Pulse(_))
            && let Some(message) = attempt.straggles(rank)
        {
            let number = attempt.number;
            self.tell(job, number, EventKind::Warning { message });
        }
    }

    pub(super) fn dies(&mut self, job: usize, rank: usize, death: &Death) {
        if let Some(attempt) = self.attempt(job) {
            let report = attempt.dies(rank, death);
            self.judged(job, rank, report);
        }
    }

    pub(super) fn ended(&mut self, job: usize, rank: usize, death: &Death, now: Duration) {
        let Some(attempt) = self.attempt(job) else {
            return;
        };
        let report = attempt.ended(rank, death);
        self.judged(job, rank, report);
        let grace = self.timeouts.grace;
        let Some(attempt) = self.attempt(job) else {
            return;
        };
        match attempt.verdict() {
            Some(verdict) => self.conclude(job, verdict, now),
            None if attempt.killed => {}
            None if attempt.is_broken() => {
                attempt.kill_at.get_or_insert(now + grace);
            }
            None => {}
        }
    }

    /// A rank has ended, or is about to, with the report that it owed.
    fn judged(&mut self, job: usize, rank: usize, report: Option<FailureReport>) {
        let Some(attempt) = self.attempt(job) else {
            return;
        };
        // The cause is known: what the others would say is its consequence. They end while the report is written.
        if attempt.is_clear() && !std::mem::replace(&mut attempt.killed, true) {
            self.kill(job);
        }
        if let Some(report) = report {
            self.report(job, rank, report);
        }
    }

    pub(super) fn examined(
        &mut self,
        job: usize,
        rank: usize,
        facts: Facts,
        at: f64,
        now: Duration,
    ) {
        let timeouts = self.timeouts;
        let Some(attempt) = self.attempt(job) else {
            return;
        };
        let is_suspect = |of: &Examination| of.suspect.rank == rank;
        if attempt.killed || !attempt.examination.as_ref().is_some_and(is_suspect) {
            return;
        }
        if let Some((rank, report)) = attempt.examined(facts, &timeouts, now, at) {
            attempt.killed = true;
            self.kill(job);
            self.report(job, rank, report);
        }
    }

    pub(super) fn tick(&mut self, job: usize, now: Duration) {
        let timeouts = self.timeouts;
        match self.running.get_mut(&job) {
            Some(Doing::BackOff {
                attempt,
                until,
                reason,
            }) if *until <= now => {
                let (attempt, why) = (*attempt + 1, format!("retried after: {reason}"));
                self.start(job, attempt, why, now);
            }
            Some(Doing::Attempt(attempt)) if !attempt.killed => {
                if attempt.kill_at.is_some_and(|kill_at| kill_at <= now) {
                    attempt.killed = true;
                    self.kill(job);
                } else if let Some(examination) = &attempt.examination {
                    if examination.until <= now {
                        let rank = examination.suspect.rank;
                        self.examine(job, rank, false);
                    }
                } else if let Some(suspect) = attempt.suspect(&timeouts, now) {
                    attempt.examine(suspect, now + timeouts.examination);
                    self.examine(job, suspect.rank, true);
                }
            }
            _ => {}
        }
    }
}
