//! Supervision as a pure function of state, event and time: no process, no file, no clock.
//!
//! ```text
//!            +--------------------- retry ----------------------+
//!            v                                                  |
//! next job -> attempt -> all ranks ended -> verdict -> failed: back-off
//!    ^                                         |
//!    +------------- succeeded, failed ---------+--> stopped, cut: finish
//! ```

use std::time::Duration;

use event::{EventKind, FailureClass};
use plan::{JobId, JobState, Plan, Progress};

use crate::Outcome;
use crate::action::{Action, Event};
use crate::attempt::{Attempt, Exit, Verdict};

/// How long ranks have after the first failure to report their own: the first that is heard of need
/// not be the cause.
pub(crate) const GRACE: Duration = Duration::from_millis(500);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);
/// A collective times out after `stall_timeout`; only when ranks do not even notice that, the
/// launcher steps in.
const PATIENCE: f64 = 2.0;

#[derive(Debug)]
enum Doing {
    Nothing,
    Attempt(Attempt),
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
    /// In the plan's order, as `retried`.
    progress: Vec<Progress>,
    /// Retries of this launch.
    retried: Vec<u64>,
    ranks: usize,
    doing: Doing,
    /// The newest signal that asked for an end.
    stop: Option<i32>,
    first_failure: Option<Outcome>,
    actions: Vec<Action>,
}

impl Supervisor {
    /// `progress` is the plan's jobs in the plan's order, each pending or succeeded.
    pub fn new(plan: Plan, progress: Vec<Progress>, ranks: usize) -> Self {
        Supervisor {
            retried: vec![0; progress.len()],
            plan,
            progress,
            ranks,
            doing: Doing::Nothing,
            stop: None,
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
                .chain(attempt.silent_at(self.patience()))
                .min(),
        }
    }

    /// Decides what an event calls for. `now` is time since the launch.
    pub fn step(&mut self, event: Event<'_>, now: Duration) -> Vec<Action> {
        match event {
            Event::Launched => self.next_job(now),
            Event::Said { rank, kind } => {
                if let Doing::Attempt(attempt) = &mut self.doing
                    && attempt.said(rank, kind, now)
                {
                    attempt.kill_at.get_or_insert(now + GRACE);
                }
            }
            Event::Ended {
                rank,
                exit,
                at,
                last_words,
            } => self.ended(rank, exit, at, &last_words, now),
            Event::NotStarted { class, message } => self.conclude(
                Verdict::Failed {
                    class,
                    reason: message,
                },
                now,
            ),
            Event::Signal(signal) => self.signal(signal, now),
            Event::Tick { at } => self.tick(now, at),
        }
        std::mem::take(&mut self.actions)
    }

    fn patience(&self) -> Duration {
        Duration::try_from_secs_f64(PATIENCE * self.plan.stall_timeout).unwrap_or(Duration::MAX / 4)
    }

    fn ended(&mut self, rank: usize, exit: Exit, at: f64, last_words: &str, now: Duration) {
        let Doing::Attempt(attempt) = &mut self.doing else {
            return;
        };
        if let Some(report) = attempt.ended(rank, exit, at, last_words) {
            self.actions.push(Action::Report { rank, report });
        }
        match attempt.verdict() {
            Some(verdict) => self.conclude(verdict, now),
            None if attempt.is_broken() => {
                attempt.kill_at.get_or_insert(now + GRACE);
            }
            None => {}
        }
    }

    fn signal(&mut self, signal: i32, now: Duration) {
        let second = self.stop.replace(signal).is_some();
        match &mut self.doing {
            Doing::Nothing => {}
            Doing::Attempt(attempt) if second => {
                attempt.killed = true;
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

    fn tick(&mut self, now: Duration, at: f64) {
        let patience = self.patience();
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
                let due = attempt.kill_at.is_some_and(|kill_at| kill_at <= now);
                let silent = attempt.silence(patience, now, at);
                if due || silent.is_some() {
                    attempt.killed = true;
                    let report = silent.map(|(rank, report)| Action::Report { rank, report });
                    self.actions.extend(report);
                    self.actions.push(Action::Kill);
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
            Verdict::Failed { class, reason } => {
                self.close(&attempt, "failed", Some(class), &reason);
                self.failed(&attempt, class, reason, now);
            }
        }
    }

    fn failed(&mut self, attempt: &Attempt, class: FailureClass, reason: String, now: Duration) {
        let (job, number) = (attempt.job, attempt.number);
        let retried = self.retried.get(job).copied().unwrap_or_default();
        if class.is_transient() && self.stop.is_some() {
            let why = format!("failed while it was asked to stop: {reason}");
            self.record(job, number, JobState::Stopped, why);
            let step = attempt.checkpoint;
            self.tell(job, number, EventKind::JobStopped { step });
            self.finish(self.interrupted(), now);
        } else if class.is_transient() && retried < self.plan.retries {
            let delay = back_off(retried);
            if let Some(count) = self.retried.get_mut(job) {
                *count += 1;
            }
            let kind = EventKind::JobRetried {
                reason: reason.clone(),
                delay_seconds: delay.as_secs_f64(),
            };
            self.tell(job, number, kind);
            self.doing = Doing::BackOff {
                job,
                attempt: number,
                until: now + delay,
                reason,
            };
        } else {
            self.record(job, number, JobState::Failed, reason.clone());
            let kind = EventKind::JobFailed {
                reason: reason.clone(),
            };
            self.tell(job, number, kind);
            if let Some(id) = self.id(job) {
                self.first_failure.get_or_insert(Outcome::Failed {
                    job: id.to_string(),
                    class,
                    reason,
                });
            }
            self.next_job(now);
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
        let world_size = match spec.kind.is_training() {
            true => self.ranks,
            false => 1,
        };
        let id = spec.id.clone();
        self.record(job, attempt, JobState::Running, why);
        self.actions.push(Action::Start {
            job: id,
            attempt,
            world_size,
        });
        self.doing = Doing::Attempt(Attempt::new(job, attempt, world_size, now));
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
            Outcome::Failed { .. } => "failed",
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

/// 1 s, 2 s, 4 s and so on up to half a minute.
fn back_off(retried: u64) -> Duration {
    let doublings = u32::try_from(retried.min(16)).unwrap_or(16);
    Duration::from_secs(1 << doublings).min(LONGEST_BACK_OFF)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;
