//! Supervision as a pure function of state, event and time: no process, no file, no clock.
//!
//! ```text
//!            +--------------------- retry ----------------------+
//!            v                                                  |
//! next job -> attempt -> all ranks ended -> verdict -> failed: back-off
//!    ^                                         |
//!    +------------- succeeded, failed ---------+--> stopped, cut: finish
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use event::{EventKind, FailureClass, FailureReport};
use plan::{JobId, JobState, Plan, Progress, Timeouts};

use crate::Outcome;
use crate::action::{Action, Death, Event};
use crate::attempt::{Attempt, Verdict};
use crate::facts::Facts;
use crate::policy::History;

#[derive(Debug)]
enum Doing {
    Nothing,
    Attempt(Box<Attempt>),
    BackOff {
        job: usize,
        attempt: u32,
        until: Duration,
        reason: String,
    },
}

#[derive(Debug)]
pub(crate) struct Supervisor {
    plan: Plan,
    timeouts: Timeouts,
    /// In the plan's order, as `histories`.
    progress: Vec<Progress>,
    /// Failures of this launch.
    histories: Vec<History>,
    /// Of jobs for which memory was too small: what they take instead of the recipe's.
    micro_batches: BTreeMap<JobId, u64>,
    /// Devices of ranks, by place among those that are visible, and how many there were.
    devices: Vec<usize>,
    devices_at_first: usize,
    doing: Doing,
    /// The newest signal that asked for an end.
    stop: Option<i32>,
    /// What has become of the run directory, where it is gone.
    lost: Option<String>,
    first_failure: Option<Outcome>,
    actions: Vec<Action>,
}

impl Supervisor {
    /// `progress` is the plan's jobs in the plan's order, each pending or succeeded.
    pub fn new(
        plan: Plan,
        progress: Vec<Progress>,
        ranks: usize,
        micro_batches: BTreeMap<JobId, u64>,
    ) -> Self {
        Supervisor {
            timeouts: plan.timeouts(),
            histories: vec![History::default(); progress.len()],
            micro_batches,
            plan,
            progress,
            devices: (0..ranks).collect(),
            devices_at_first: ranks,
            doing: Doing::Nothing,
            stop: None,
            lost: None,
            first_failure: None,
            actions: Vec::new(),
        }
    }

    /// When a [`Event::Tick`] is due if nothing happens before.
    pub fn deadline(&self) -> Option<Duration> {
        match &self.doing {
            Doing::Nothing => None,
            Doing::BackOff { until, .. } => Some(*until),
            Doing::Attempt(attempt) if attempt.killed => None,
            Doing::Attempt(attempt) => attempt
                .kill_at
                .into_iter()
                .chain(match &attempt.examination {
                    Some(examination) => Some(examination.until),
                    None => attempt.suspect_at(&self.timeouts),
                })
                .min(),
        }
    }

    /// Decides what an event calls for. `now` is time since the launch.
    pub fn step(&mut self, event: Event<'_>, now: Duration) -> Vec<Action> {
        match event {
            Event::Launched => self.next_job(now),
            Event::Said { rank, kind } => {
                self.said(rank, kind, now);
            }
            Event::Dying { rank, death } => self.dies(rank, &death),
            Event::Ended { rank, death } => self.ended(rank, &death, now),
            Event::Examined { rank, facts, at } => self.examined(rank, facts, at, now),
            Event::NotStarted { class, message } => self.conclude(
                Verdict::Failed {
                    class,
                    reason: message,
                    rank: None,
                    by_kernel: false,
                },
                now,
            ),
            Event::Signal(signal) => self.signal(signal, now),
            Event::Lost { message } => self.lost(message, now),
            Event::Tick => self.tick(now),
        }
        std::mem::take(&mut self.actions)
    }

    fn said(&mut self, rank: usize, kind: &EventKind, now: Duration) {
        let Doing::Attempt(attempt) = &mut self.doing else {
            return;
        };
        if attempt.said(rank, kind, now) {
            attempt.kill_at.get_or_insert(now + self.timeouts.grace);
        }
        if matches!(kind, EventKind::Pulse(_))
            && let Some(message) = attempt.straggles(rank)
        {
            let (job, number) = (attempt.job, attempt.number);
            self.tell(job, number, EventKind::Warning { message });
        }
    }

    fn dies(&mut self, rank: usize, death: &Death) {
        if let Doing::Attempt(attempt) = &mut self.doing {
            let report = attempt.dies(rank, death);
            self.judged(rank, report);
        }
    }

    fn ended(&mut self, rank: usize, death: &Death, now: Duration) {
        let Doing::Attempt(attempt) = &mut self.doing else {
            return;
        };
        let report = attempt.ended(rank, death);
        self.judged(rank, report);
        let Doing::Attempt(attempt) = &mut self.doing else {
            return;
        };
        match attempt.verdict() {
            Some(verdict) => self.conclude(verdict, now),
            None if attempt.killed => {}
            None if attempt.is_broken() => {
                attempt.kill_at.get_or_insert(now + self.timeouts.grace);
            }
            None => {}
        }
    }

    /// A rank has ended, or is about to, with the report that it owed.
    fn judged(&mut self, rank: usize, report: Option<FailureReport>) {
        let Doing::Attempt(attempt) = &mut self.doing else {
            return;
        };
        // The cause is known: what the others would say is its consequence. They end while the report is written.
        if attempt.is_clear() && !std::mem::replace(&mut attempt.killed, true) {
            self.actions.push(Action::Kill);
        }
        if let Some(report) = report {
            self.actions.push(Action::Report { rank, report });
        }
    }

    fn examined(&mut self, rank: usize, facts: Facts, at: f64, now: Duration) {
        let Doing::Attempt(attempt) = &mut self.doing else {
            return;
        };
        let is_suspect = |of: &crate::attempt::Examination| of.suspect.rank == rank;
        if attempt.killed || !attempt.examination.as_ref().is_some_and(is_suspect) {
            return;
        }
        if let Some((rank, report)) = attempt.examined(facts, &self.timeouts, now, at) {
            attempt.killed = true;
            self.actions.push(Action::Kill);
            self.actions.push(Action::Report { rank, report });
        }
    }

    fn signal(&mut self, signal: i32, now: Duration) {
        let second = self.stop.replace(signal).is_some();
        match &mut self.doing {
            Doing::Nothing => {}
            Doing::Attempt(attempt) if second => {
                attempt.killed = true;
                attempt.hurried = true;
                self.actions.push(Action::Kill);
            }
            Doing::Attempt(attempt) => {
                attempt.asked = true;
                self.actions.push(Action::Terminate);
            }
            Doing::BackOff {
                job,
                attempt,
                reason,
                ..
            } => {
                let (job, attempt) = (*job, *attempt);
                let why = format!("stopped on request before a retry of: {reason}");
                self.record(job, attempt, JobState::Stopped, why);
                self.tell(job, attempt, EventKind::JobStopped { step: None });
                self.finish(Outcome::Stopped, now);
            }
        }
    }

    fn tick(&mut self, now: Duration) {
        match &mut self.doing {
            Doing::Nothing => {}
            Doing::BackOff {
                job,
                attempt,
                until,
                reason,
            } => {
                if *until <= now {
                    let (job, attempt) = (*job, *attempt + 1);
                    let why = format!("retried after: {reason}");
                    self.start(job, attempt, why, now);
                }
            }
            Doing::Attempt(attempt) if attempt.killed => {}
            Doing::Attempt(attempt) => {
                if attempt.kill_at.is_some_and(|kill_at| kill_at <= now) {
                    attempt.killed = true;
                    self.actions.push(Action::Kill);
                } else if let Some(examination) = &attempt.examination {
                    if examination.until <= now {
                        let rank = examination.suspect.rank;
                        self.actions.push(Action::Examine { rank, ask: false });
                    }
                } else if let Some(suspect) = attempt.suspect(&self.timeouts, now) {
                    attempt.examine(suspect, now + self.timeouts.examination);
                    let rank = suspect.rank;
                    self.actions.push(Action::Examine { rank, ask: true });
                }
            }
        }
    }

    /// Every rank of the attempt has ended.
    fn conclude(&mut self, verdict: Verdict, now: Duration) {
        let Doing::Attempt(attempt) = std::mem::replace(&mut self.doing, Doing::Nothing) else {
            return;
        };
        let (job, number) = (attempt.job, attempt.number);
        if let Some(reason) = self.lost.clone() {
            self.close(&attempt, "failed", Some(FailureClass::Setup), &reason);
            self.end_without_directory(job, number, reason, now);
            return;
        }
        match verdict {
            Verdict::Succeeded => {
                self.close(&attempt, "succeeded", None, "");
                self.record(
                    job,
                    number,
                    JobState::Succeeded,
                    "all ranks ended well".into(),
                );
                let kind = EventKind::JobFinished {
                    seconds: now.saturating_sub(attempt.started).as_secs_f64(),
                    metrics: attempt.metrics,
                };
                self.tell(job, number, kind);
                self.next_job(now);
            }
            Verdict::Stopped => {
                self.stopped(&attempt, "stopped on request".into());
                self.finish(Outcome::Stopped, now);
            }
            Verdict::Cut => {
                self.stopped(&attempt, "ended before it could save".into());
                self.finish(self.interrupted(), now);
            }
            Verdict::Failed {
                class,
                reason,
                rank,
                by_kernel,
            } => {
                self.close(&attempt, "failed", Some(class), &reason);
                match rank.filter(|_| class == FailureClass::DeviceLost) {
                    Some(rank) => self.device_lost(&attempt, rank, reason, now),
                    None => self.failed(&attempt, class, by_kernel, reason, now),
                }
            }
        }
    }

    fn stopped(&mut self, attempt: &Attempt, why: String) {
        self.close(attempt, "stopped", None, &why);
        self.record(attempt.job, attempt.number, JobState::Stopped, why);
        let step = attempt.checkpoint;
        self.tell(attempt.job, attempt.number, EventKind::JobStopped { step });
    }

    /// Starts the first job that may run, else ends the run.
    fn next_job(&mut self, now: Duration) {
        let state = |id: &JobId| {
            let known = self.progress.iter().find(|job| job.id == *id);
            known.map_or(JobState::Pending, |job| job.state)
        };
        let done = self
            .progress
            .iter()
            .all(|job| job.state == JobState::Succeeded);
        let next = plan::ready(&self.plan, state).first().map(|job| &job.id);
        let next = next.and_then(|id| self.progress.iter().position(|job| job.id == *id));
        match next {
            _ if done => self.finish(Outcome::Done, now),
            Some(_) if self.stop.is_some() => self.finish(Outcome::Stopped, now),
            Some(job) => {
                let attempt = self.progress.get(job).map_or(0, |job| job.attempt) + 1;
                self.start(job, attempt, "all that it needs is there".into(), now);
            }
            // Only a failed job keeps others from running.
            None => {
                let outcome = self.first_failure.take().unwrap_or(Outcome::Stopped);
                self.finish(outcome, now);
            }
        }
    }

    fn start(&mut self, job: usize, attempt: u32, why: String, now: Duration) {
        let Some(spec) = self.plan.jobs.get(job) else {
            return;
        };
        let Some(world_size) = self.world_size(job) else {
            // Checked at the launch, so that only the loss of a device comes to this.
            let reason = "too few devices are left for it".to_owned();
            self.give_up(job, attempt, FailureClass::DeviceLost, reason);
            return self.next_job(now);
        };
        let id = spec.id.clone();
        // Another number of ranks may not allow it any more; then the recipe's holds again.
        let known = self.micro_batches.get(&id).copied();
        let micro_batch = known.filter(|smaller| {
            let training = spec.kind.training();
            training.is_some_and(|of| plan::accumulation_of(of, world_size, Some(*smaller)).is_ok())
        });
        let is_reduced = self.devices.len() < self.devices_at_first;
        let devices = is_reduced.then(|| self.devices.iter().copied().take(world_size).collect());
        self.record(job, attempt, JobState::Running, why);
        self.actions.push(Action::Start {
            job: id,
            attempt,
            world_size,
            micro_batch,
            devices,
        });
        self.doing = Doing::Attempt(Box::new(Attempt::new(job, attempt, world_size, now)));
    }

    /// Ranks of a job on the devices that are left; none where they are too few.
    fn world_size(&self, job: usize) -> Option<usize> {
        let devices = self.devices.len();
        match self.plan.jobs.get(job)?.kind.training() {
            Some(training) => plan::ranks_of(training, devices, self.plan.elastic),
            None => (devices > 0).then_some(1),
        }
    }

    fn interrupted(&self) -> Outcome {
        // Only a signal asks ranks to stop or cuts them short.
        let signal = self.stop.unwrap_or(libc::SIGTERM);
        Outcome::Interrupted { signal }
    }

    fn finish(&mut self, outcome: Outcome, now: Duration) {
        self.doing = Doing::Nothing;
        let state = match &outcome {
            Outcome::Done => "done",
            Outcome::Failed { .. } | Outcome::Lost { .. } => "failed",
            Outcome::Stopped | Outcome::Interrupted { .. } => "stopped",
        };
        self.actions.push(Action::Tell {
            about: None,
            kind: EventKind::RunFinished {
                state: state.into(),
                seconds: now.as_secs_f64(),
            },
        });
        self.actions.push(Action::Finish(outcome));
    }

    fn id(&self, job: usize) -> Option<JobId> {
        self.plan.jobs.get(job).map(|job| job.id.clone())
    }

    fn tell(&mut self, job: usize, attempt: u32, kind: EventKind) {
        let about = self.id(job).map(|id| (id, attempt));
        self.actions.push(Action::Tell { about, kind });
    }

    fn record(&mut self, job: usize, attempt: u32, to: JobState, why: String) {
        if let Some(progress) = self.progress.get_mut(job) {
            progress.state = to;
            progress.attempt = attempt;
            self.actions.push(Action::Record {
                job: progress.id.clone(),
                attempt,
                to,
                why,
            });
        }
    }

    fn close(
        &mut self,
        attempt: &Attempt,
        outcome: &'static str,
        class: Option<FailureClass>,
        message: &str,
    ) {
        if let Some(job) = self.id(attempt.job) {
            self.actions.push(Action::Close {
                job,
                attempt: attempt.number,
                outcome,
                class,
                message: message.to_owned(),
            });
        }
    }
}

mod failed;
#[cfg(test)]
mod tests;
