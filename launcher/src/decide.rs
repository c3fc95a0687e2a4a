//! Supervision as a pure function of state, event and time: no process, no file, no clock.
//!
//! Which job starts when and on which devices is the [`Scheduler`]'s; what becomes of each job that runs is decided for itself:
//!
//! ```text
//!             +--------------------- retry ----------------------+
//!             v                                                  |
//! scheduler -> attempt -> all ranks ended -> verdict -> failed: back-off
//!    ^                                          |
//!    +-------------- succeeded, failed ---------+--> stopped, cut: the others are asked to stop, then finish
//! ```
//!
//! A job keeps its devices while it waits for its next attempt: the wait is half a minute at most, and a gang of many devices
//! that gave them up would come last behind jobs that take them one by one.

use std::collections::BTreeMap;
use std::time::Duration;

use event::{EventKind, FailureClass, FailureReport};
use plan::schedule::{Limits, ScheduleError, Scheduler};
use plan::{JobId, JobState, Plan, Progress, Timeouts};

use crate::Outcome;
use crate::action::{Action, Event, Happening};
use crate::attempt::{Attempt, Verdict};
use crate::holds::Hold;
use crate::policy::History;
use crate::room::Demand;

/// What a job that holds its devices is about.
#[derive(Debug)]
enum Doing {
    Attempt(Box<Attempt>),
    BackOff {
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
    scheduler: Scheduler,
    /// How many devices are left, and how many there were.
    devices: usize,
    devices_at_first: usize,
    /// Jobs that run, by their places in the plan.
    running: BTreeMap<usize, Doing>,
    /// Jobs that users hold back.
    held: BTreeMap<usize, Hold>,
    /// The newest signal that asked for an end.
    stop: Option<i32>,
    /// What a job that was stopped makes of the run; nothing starts any more.
    ending: Option<Outcome>,
    /// What has become of the run directory, where it is gone.
    lost: Option<String>,
    first_failure: Option<Outcome>,
    finished: bool,
    actions: Vec<Action>,
}

impl Supervisor {
    /// `progress` is the plan's jobs in the plan's order, each pending or succeeded, and `demands` what each takes; nothing where it
    /// is not said.
    ///
    /// # Errors
    /// A job that so many devices cannot run.
    pub fn new(
        plan: Plan,
        progress: Vec<Progress>,
        limits: Limits,
        demands: &[Demand],
        micro_batches: BTreeMap<JobId, u64>,
    ) -> Result<Self, ScheduleError> {
        let is_done =
            |job: usize| progress.get(job).map(|job| job.state) == Some(JobState::Succeeded);
        Ok(Supervisor {
            scheduler: gangs::scheduler(&plan, limits, demands, is_done)?,
            timeouts: plan.timeouts(),
            histories: vec![History::default(); progress.len()],
            micro_batches,
            plan,
            progress,
            devices: limits.devices,
            devices_at_first: limits.devices,
            running: BTreeMap::new(),
            held: BTreeMap::new(),
            stop: None,
            ending: None,
            lost: None,
            first_failure: None,
            finished: false,
            actions: Vec::new(),
        })
    }

    /// When a [`Event::Tick`] is due if nothing happens before.
    pub fn deadline(&self) -> Option<Duration> {
        let due = |doing: &Doing| match doing {
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
        };
        self.running.values().filter_map(due).min()
    }

    /// Decides what an event calls for. `now` is time since the launch.
    pub fn step(&mut self, event: Event<'_>, now: Duration) -> Vec<Action> {
        match event {
            Event::Holds(holds) => self.holds(holds),
            Event::Signal(signal) => self.signal(signal),
            Event::Lost { message } => self.lost(message),
            Event::Tick => {
                for job in self.jobs() {
                    self.tick(job, now);
                }
            }
            Event::Of { job, what } => {
                if let Some(job) = self.place(&job) {
                    self.happened(job, what, now);
                }
            }
        }
        self.go_on(now);
        std::mem::take(&mut self.actions)
    }

    fn happened(&mut self, job: usize, what: Happening<'_>, now: Duration) {
        match what {
            Happening::Said { rank, kind } => self.said(job, rank, kind, now),
            Happening::Dying { rank, death } => self.dies(job, rank, &death),
            Happening::Ended { rank, death } => self.ended(job, rank, &death, now),
            Happening::Examined { rank, facts, at } => self.examined(job, rank, facts, at, now),
            Happening::NotStarted { class, message } => {
                let verdict = Verdict::Failed {
                    class,
                    reason: message,
                    rank: None,
                    by_kernel: false,
                };
                self.conclude(job, verdict, now);
            }
        }
    }

    /// The places of the jobs that run.
    fn jobs(&self) -> Vec<usize> {
        self.running.keys().copied().collect()
    }

    /// The place of a job that runs.
    fn place(&self, id: &JobId) -> Option<usize> {
        let is_it = |job: &usize| self.plan.jobs.get(*job).is_some_and(|spec| spec.id == *id);
        self.running.keys().copied().find(is_it)
    }

    fn attempt(&mut self, job: usize) -> Option<&mut Attempt> {
        match self.running.get_mut(&job)? {
            Doing::Attempt(attempt) => Some(attempt),
            Doing::BackOff { .. } => None,
        }
    }

    /// Every rank of the job's attempt has ended.
    fn conclude(&mut self, job: usize, verdict: Verdict, now: Duration) {
        let Some(Doing::Attempt(attempt)) = self.running.remove(&job) else {
            return;
        };
        let number = attempt.number;
        if let Some(reason) = self.lost.clone() {
            self.close(&attempt, "failed", Some(FailureClass::Setup), &reason);
            self.give_up(job, number, FailureClass::Setup, reason);
            return;
        }
        match verdict {
            Verdict::Succeeded => {
                self.record(
                    job,
                    number,
                    JobState::Succeeded,
                    "all ranks ended well".into(),
                );
                self.scheduler.succeeded(job);
                let kind = EventKind::JobFinished {
                    seconds: now.saturating_sub(attempt.started).as_secs_f64(),
                    metrics: attempt.metrics,
                };
                self.tell(job, number, kind);
            }
            Verdict::Stopped => {
                self.close(&attempt, "stopped", None, "stopped on request");
                self.halted(&attempt, None, Outcome::Stopped);
            }
            Verdict::Cut => {
                let why = "ended before it could save".to_owned();
                self.close(&attempt, "stopped", None, &why);
                self.halted(&attempt, Some(why), self.interrupted());
            }
            Verdict::Failed {
                class,
                reason,
                rank,
                by_kernel,
            } => {
                self.close(&attempt, "failed", Some(class), &reason);
                match rank.filter(|_| class == FailureClass::DeviceLost) {
                    Some(rank) => self.device_lost(&attempt, rank, reason),
                    None => self.failed(&attempt, class, by_kernel, reason, now),
                }
            }
        }
    }

    /// Starts what can run now, and ends the run where nothing does.
    fn go_on(&mut self, now: Duration) {
        if self.finished {
            return;
        }
        if self.stop.is_none() && self.ending.is_none() && self.lost.is_none() {
            for start in self.scheduler.start() {
                let job = start.task;
                let attempt = self.progress.get(job).map_or(0, |job| job.attempt) + 1;
                self.start(job, attempt, "all that it needs is there".into(), now);
            }
            self.widen();
        }
        if self.running.is_empty() {
            self.find_no_room();
            let outcome = self.outcome();
            self.finish(outcome, now);
        }
    }

    /// What the run has come to, now that nothing runs.
    fn outcome(&mut self) -> Outcome {
        let mut jobs = self.progress.iter();
        if let Some(reason) = self.lost.clone() {
            return Outcome::Lost { reason };
        }
        if let Some(ending) = self.ending.take() {
            return ending;
        }
        if jobs.all(|job| job.state == JobState::Succeeded) {
            return Outcome::Done;
        }
        // What could go on was kept from it by a signal; else only a failed job or a held one keeps others from running.
        let was_stopped = self.stop.is_some();
        match self.first_failure.take() {
            Some(failure) if !was_stopped || self.scheduler.ready().is_none() => failure,
            _ if was_stopped => Outcome::Stopped,
            _ => self.all_held().unwrap_or(Outcome::Stopped),
        }
    }

    /// Starts an attempt on the devices that the scheduler has given the job.
    fn start(&mut self, job: usize, attempt: u32, why: String, now: Duration) {
        let (Some(spec), Some(devices)) = (self.plan.jobs.get(job), self.scheduler.devices(job))
        else {
            return;
        };
        let (id, devices) = (spec.id.clone(), devices.to_vec());
        // A job on tables has one rank and no device.
        let world_size = devices.len().max(1);
        // Another number of ranks may not allow it any more; then the recipe's holds again.
        let known = self.micro_batches.get(&id).copied();
        let micro_batch = known.filter(|smaller| {
            let training = spec.kind.training();
            training.is_some_and(|of| plan::accumulation_of(of, world_size, Some(*smaller)).is_ok())
        });
        self.record(job, attempt, JobState::Running, why);
        self.actions.push(Action::Start {
            job: id,
            attempt,
            world_size,
            micro_batch,
            devices,
        });
        let attempt = Box::new(Attempt::new(job, attempt, world_size, now));
        self.running.insert(job, Doing::Attempt(attempt));
    }

    fn finish(&mut self, outcome: Outcome, now: Duration) {
        self.finished = true;
        let state = match &outcome {
            Outcome::Done => "done",
            Outcome::Failed { .. } | Outcome::Lost { .. } => "failed",
            Outcome::Stopped | Outcome::Interrupted { .. } | Outcome::Held { .. } => "stopped",
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

    fn kill(&mut self, job: usize) {
        if let Some(job) = self.id(job) {
            self.actions.push(Action::Kill { job });
        }
    }

    fn examine(&mut self, job: usize, rank: usize, ask: bool) {
        if let Some(job) = self.id(job) {
            self.actions.push(Action::Examine { job, rank, ask });
        }
    }

    fn report(&mut self, job: usize, rank: usize, report: FailureReport) {
        if let Some(job) = self.id(job) {
            self.actions.push(Action::Report { job, rank, report });
        }
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
mod gangs;
mod holds;
mod stops;
#[cfg(test)]
mod tests;
mod watch;
mod wider;
