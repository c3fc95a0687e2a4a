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
        if class.is_transient() && attempt.asked {
            let trouble = format!("failed while it was asked to stop: {reason}");
            let outcome = match attempt.has_nothing_to_save() {
                true => Outcome::Stopped,
                false => self.interrupted(),
            };
            self.halted(attempt, Some(trouble), outcome);
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
            }
        }
    }

    /// The device of a rank is gone: what is left may do, on fewer ranks with the same batch. The scheduler gives the job
    /// others of its own number where there are such.
    pub(super) fn device_lost(&mut self, attempt: &Attempt, rank: usize, reason: String) {
        let (job, number) = (attempt.job, attempt.number);
        let device = self.scheduler.devices(job).and_then(|of| of.get(rank));
        if let Some(device) = device.copied() {
            self.scheduler.lose(device);
            self.devices = self.devices.saturating_sub(1);
        }
        if self.stop.is_some() || self.ending.is_some() {
            let why = format!("stopped on request before a retry of: {reason}");
            self.stopped(job, number, attempt.checkpoint, why);
            self.end(self.interrupted());
            return;
        }
        match self.widths(job) {
            Some(widths) => {
                let message = format!(
                    "the device of rank {rank} is lost: the run goes on without it, this job on {} ranks with the same batch",
                    widths.last().copied().unwrap_or(1)
                );
                self.tell(job, number, EventKind::Warning { message });
                let kind = EventKind::JobRetried {
                    reason,
                    delay_seconds: 0.0,
                };
                self.tell(job, number, kind);
                self.scheduler.stopped(job);
                let why = "waits for devices in the place of one that is lost".to_owned();
                self.record(job, number, JobState::Stopped, why);
            }
            None => {
                let reason = format!("{reason}; {}", self.why_too_few());
                self.give_up(job, number, FailureClass::DeviceLost, reason);
            }
        }
        self.fit_jobs();
    }

    /// Numbers of devices on which a job can run, of those that are left; none where they are too few.
    fn widths(&self, job: usize) -> Option<Vec<usize>> {
        let kind = &self.plan.jobs.get(job)?.kind;
        let Some(training) = kind.training() else {
            return Some(Vec::new());
        };
        let all = training.gpus == plan::Gpus::All;
        if all && self.plan.elastic.is_none() && self.devices < self.devices_at_first {
            return None;
        }
        let widths = plan::widths(training, self.devices, self.plan.elastic);
        (!widths.is_empty()).then_some(widths)
    }

    fn why_too_few(&self) -> &'static str {
        match self.plan.elastic {
            Some(_) => "too few devices are left for it",
            None => {
                "the recipe does not say that fewer ranks will do (`elastic: {min: .., max: ..}`)"
            }
        }
    }

    /// Tells the scheduler on how many of the devices that are left each job can run that does not run yet.
    fn fit_jobs(&mut self) {
        for job in 0..self.plan.jobs.len() {
            let progress = self.progress.get(job);
            let is_open = progress
                .is_some_and(|job| !matches!(job.state, JobState::Succeeded | JobState::Failed));
            if !is_open || self.running.contains_key(&job) {
                continue;
            }
            match self.widths(job) {
                Some(widths) => self.scheduler.reshape(job, widths),
                // It has not run, so that nothing is on record of it.
                None => {
                    self.scheduler.failed(job);
                    let attempt = self.progress.get(job).map_or(0, |job| job.attempt);
                    let reason = format!("a device is lost, and {}", self.why_too_few());
                    self.fails(job, attempt, FailureClass::DeviceLost, reason);
                }
            }
        }
    }

    /// Nothing runs, and a job that could run finds no room on the disk: memory is free again, and devices are there.
    pub(super) fn find_no_room(&mut self) {
        let is_kept = self.stop.is_some() || self.ending.is_some() || self.lost.is_some();
        if is_kept || self.first_failure.is_some() {
            return;
        }
        if let Some(job) = self.scheduler.ready() {
            let attempt = self.progress.get(job).map_or(0, |job| job.attempt);
            let reason = "its checkpoints would find no room on the disk beside those of the other jobs: free some space, or \
                          lower `checkpoint.keep_last`";
            self.fails(job, attempt, FailureClass::Disk, reason.to_owned());
        }
    }

    /// The run directory is gone: ranks can neither save nor go on, whatever they are doing.
    pub(super) fn lost(&mut self, message: String) {
        if self.lost.is_some() {
            return;
        }
        self.lost = Some(message.clone());
        for job in self.jobs() {
            match self.running.get_mut(&job) {
                Some(Doing::Attempt(attempt)) if attempt.killed => {}
                Some(Doing::Attempt(attempt)) => {
                    attempt.killed = true;
                    self.kill(job);
                }
                Some(Doing::BackOff { attempt, .. }) => {
                    let attempt = *attempt;
                    self.running.remove(&job);
                    self.give_up(job, attempt, FailureClass::Setup, message.clone());
                }
                None => {}
            }
        }
    }

    fn retry(&mut self, job: usize, attempt: u32, reason: String, delay: Duration, now: Duration) {
        let kind = EventKind::JobRetried {
            reason: reason.clone(),
            delay_seconds: delay.as_secs_f64(),
        };
        self.tell(job, attempt, kind);
        if self.stop.is_some() || self.ending.is_some() {
            let why = format!("stopped on request before a retry of: {reason}");
            self.stopped(job, attempt, None, why);
            self.end(self.interrupted());
            return;
        }
        if self.held.contains_key(&job) {
            self.held_back(job, attempt, &reason);
            return;
        }
        let wait = Doing::BackOff {
            attempt,
            until: now + delay,
            reason,
        };
        self.running.insert(job, wait);
    }

    pub(super) fn give_up(
        &mut self,
        job: usize,
        attempt: u32,
        class: FailureClass,
        reason: String,
    ) {
        self.scheduler.failed(job);
        self.record(job, attempt, JobState::Failed, reason.clone());
        self.fails(job, attempt, class, reason);
    }

    fn fails(&mut self, job: usize, attempt: u32, class: FailureClass, reason: String) {
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
        let ranks = self.scheduler.devices(job)?.len().max(1);
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
