//! What becomes of a job whose attempt has failed: tried again, with less memory where that was the cause, or given up.

use std::time::Duration;

use event::{EventKind, FailureClass};
use plan::{JobKind, JobState, Split};

use super::{Doing, Supervisor};
use crate::Outcome;
use crate::action::Action;
use crate::attempt::Attempt;
use crate::policy::{self, Failure, Remedy};

impl Supervisor {
    pub(super) fn failed(
        &mut self,
        attempt: &Attempt,
        class: FailureClass,
        by_kernel: bool,
        reason: String,
        now: Duration,
    ) {
        let (job, number) = (attempt.job, attempt.number);
        if class.is_transient() && self.stop.is_some() {
            let why = format!("failed while it was asked to stop: {reason}");
            self.record(job, number, JobState::Stopped, why);
            let step = attempt.checkpoint;
            self.tell(job, number, EventKind::JobStopped { step });
            let outcome = match attempt.has_nothing_to_save() {
                true => Outcome::Stopped,
                false => self.interrupted(),
            };
            self.finish(outcome, now);
            return;
        }
        let failure = Failure {
            class,
            by_kernel,
            began: attempt.began,
            reached: attempt.reached,
            halved: self.halved(job),
        };
        let (retries, back_off) = (self.plan.retries, self.plan.back_off);
        let remedy = match self.histories.get_mut(job) {
            Some(history) => policy::remedy(history, &failure, retries, back_off),
            None => Remedy::Stop { why: None },
        };
        match remedy {
            Remedy::Again { delay } => self.retry(job, number, reason, delay, now),
            Remedy::Smaller { split, delay } => {
                self.shrink(job, number, split);
                self.retry(job, number, reason, delay, now);
            }
            Remedy::Stop { why } => {
                let reason = match why {
                    Some(why) => format!("{reason}; {why}"),
                    None => reason,
                };
                self.give_up(job, number, class, reason);
                self.next_job(now);
            }
        }
    }

    /// The device of a rank is gone: what is left may do, on fewer ranks with the same batch.
    pub(super) fn device_lost(
        &mut self,
        attempt: &Attempt,
        rank: usize,
        reason: String,
        now: Duration,
    ) {
        let (job, number) = (attempt.job, attempt.number);
        if rank < self.devices.len() && self.plan.elastic.is_some() {
            self.devices.remove(rank);
        }
        match self.world_size(job).filter(|_| self.plan.elastic.is_some()) {
            Some(world_size) => {
                let message = format!(
                    "the device of rank {rank} is lost: the run goes on without it, this job on {world_size} ranks with the \
                     same batch"
                );
                self.tell(job, number, EventKind::Warning { message });
                self.retry(job, number, reason, Duration::ZERO, now);
            }
            None => {
                let why = match self.plan.elastic {
                    Some(_) => "too few devices are left for it",
                    None => {
                        "the recipe does not say that fewer ranks will do (`elastic: {min: .., max: ..}`)"
                    }
                };
                self.give_up(
                    job,
                    number,
                    FailureClass::DeviceLost,
                    format!("{reason}; {why}"),
                );
                self.next_job(now);
            }
        }
    }

    /// The run directory is gone: ranks can neither save nor go on, whatever they are doing.
    pub(super) fn lost(&mut self, message: String, now: Duration) {
        if self.lost.is_some() {
            return;
        }
        self.lost = Some(message.clone());
        match &mut self.doing {
            Doing::Nothing => {}
            Doing::Attempt(attempt) => {
                if !std::mem::replace(&mut attempt.killed, true) {
                    self.actions.push(Action::Kill);
                }
            }
            Doing::BackOff { job, attempt, .. } => {
                let (job, attempt) = (*job, *attempt);
                self.end_without_directory(job, attempt, message, now);
            }
        }
    }

    pub(super) fn end_without_directory(
        &mut self,
        job: usize,
        attempt: u32,
        reason: String,
        now: Duration,
    ) {
        self.give_up(job, attempt, FailureClass::Setup, reason.clone());
        self.finish(Outcome::Lost { reason }, now);
    }

    fn retry(&mut self, job: usize, attempt: u32, reason: String, delay: Duration, now: Duration) {
        let kind = EventKind::JobRetried {
            reason: reason.clone(),
            delay_seconds: delay.as_secs_f64(),
        };
        self.tell(job, attempt, kind);
        if self.stop.is_some() {
            let why = format!("stopped on request before a retry of: {reason}");
            self.record(job, attempt, JobState::Stopped, why);
            self.tell(job, attempt, EventKind::JobStopped { step: None });
            self.finish(self.interrupted(), now);
            return;
        }
        self.doing = Doing::BackOff {
            job,
            attempt,
            until: now + delay,
            reason,
        };
    }

    pub(super) fn give_up(
        &mut self,
        job: usize,
        attempt: u32,
        class: FailureClass,
        reason: String,
    ) {
        self.record(job, attempt, JobState::Failed, reason.clone());
        let kind = EventKind::JobFailed {
            reason: reason.clone(),
        };
        self.tell(job, attempt, kind);
        if let Some(id) = self.id(job) {
            self.first_failure.get_or_insert(Outcome::Failed {
                job: id.to_string(),
                class,
                reason,
            });
        }
    }

    /// How the job is split over ranks and time, and how it would be with half the micro-batch.
    fn halved(&self, job: usize) -> Option<Split> {
        let spec = self.plan.jobs.get(job)?;
        let JobKind::Train {
            stage, training, ..
        } = &spec.kind
        else {
            return None;
        };
        let known = self.micro_batches.get(&spec.id).copied();
        let ranks = self.world_size(job)?;
        let now = plan::accumulation_of(training, ranks, known).ok()?;
        // Batch normalisation needs two images.
        let least = 2_u64.div_ceil(stage.images_per_sample().max(1));
        plan::halved(training, ranks, now.micro_batch as u64, least)
    }

    fn shrink(&mut self, job: usize, attempt: u32, split: Split) {
        let Some(id) = self.id(job) else {
            return;
        };
        let micro_batch = split.micro_batch as u64;
        let message = format!(
            "memory was too small: from now on a rank takes {micro_batch} samples at once and adds {} of such micro-batches \
             up, so that the batch of all ranks stays what it was",
            split.accumulation
        );
        self.micro_batches.insert(id.clone(), micro_batch);
        self.actions.push(Action::Shrink {
            job: id,
            micro_batch,
        });
        self.tell(job, attempt, EventKind::Warning { message });
    }
}
