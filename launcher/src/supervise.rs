//! Carries out what [`Supervisor`] decides: the one place where signals, ranks and time meet.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::future::poll_fn;
use std::io;
use std::marker::PhantomData;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use event::{EventKind, FailureClass, RunEvent};
use plan::{JobId, JobState};
use recipe::Device;
use tokio::time::{Interval, sleep_until};

use crate::action::{Action, Death, Event, Happening};
use crate::database::Database;
use crate::decide::Supervisor;
use crate::events::Message;
use crate::exit::Exit;
use crate::facts::Facts;
use crate::gpu_watch::GpuWatch;
use crate::guardian::Guardian;
use crate::holds::Hold;
use crate::journal::Journal;
use crate::launch::{LaunchOptions, Resume};
use crate::logs;
use crate::memory::OomKills;
use crate::presence::Presence;
use crate::ranks::{Order, Ranks, device_argument};
use crate::run_dir::{RunDir, replace};
use crate::signals::StopSignals;
use crate::{LaunchError, Outcome, gpu};

/// What the supervisor's actions are done with. The running ranks come first: they end before what
/// watches over them.
pub(crate) struct Executor {
    pub running: BTreeMap<JobId, Running>,
    /// The job whose rank spoke last: the others come first.
    pub heard: Option<JobId>,
    pub gpu_watch: GpuWatch,
    pub guardian: Guardian,
    pub database: Database,
    pub journal: Journal,
    pub dir: RunDir,
    /// Looked at with every `beat`, and when a rank has ended.
    pub presence: Presence,
    /// What users hold back, as of the newest `beat`.
    pub holds: BTreeMap<String, Hold>,
    pub beat: Interval,
    pub options: LaunchOptions,
    /// The job that goes on from a checkpoint of the user's choice, until it has.
    pub chosen: Option<(JobId, OsString)>,
    pub signals: StopSignals,
    pub oom_kills: OomKills,
    pub began: Instant,
    /// Ranks die with the thread that started them, so this never leaves its thread.
    pub one_thread: PhantomData<*const ()>,
}

/// The attempt at a job whose ranks are running.
pub(crate) struct Running {
    attempt: u32,
    /// Of its ranks, by place among those that are visible.
    devices: Vec<usize>,
    ranks: Ranks,
    /// Said once that a rank sends what is not an event.
    nonsense: bool,
}

/// What came of an action.
enum Done {
    GoOn,
    NotStarted(JobId, io::Error),
    Examined(JobId, usize, Facts),
    Finished(Outcome),
}

/// What the loop waits for.
enum Next {
    Signal(i32),
    Message(JobId, usize, Message),
    GpuUse(JobId, Box<RunEvent>),
    Deadline,
    Look,
}

impl Executor {
    /// Runs until the supervisor says that it is over.
    pub async fn run(mut self, mut supervisor: Supervisor) -> Result<Outcome, LaunchError> {
        let mut queue = VecDeque::from(supervisor.step(Event::Holds(&self.holds), self.now()));
        loop {
            while let Some(action) = queue.pop_front() {
                match self.carry_out(action) {
                    Ok(Done::GoOn) => {}
                    Ok(Done::Finished(outcome)) => return Ok(outcome),
                    Ok(Done::Examined(job, rank, facts)) => {
                        let at = event::now();
                        let what = Happening::Examined { rank, facts, at };
                        queue.extend(supervisor.step(Event::Of { job, what }, self.now()));
                    }
                    Ok(Done::NotStarted(job, error)) => {
                        queue.extend(self.look(&mut supervisor));
                        let what = not_started(&self.options, error);
                        queue.extend(supervisor.step(Event::Of { job, what }, self.now()));
                    }
                    // What could not be recorded has gone with the run directory.
                    Err(_) if self.presence.lost().is_some() => {
                        queue.extend(self.look(&mut supervisor));
                    }
                    Err(error) => return Err(error),
                }
            }
            let next = self.next(supervisor.deadline()).await;
            let now = self.now();
            queue.extend(match next {
                Next::Signal(signal) => supervisor.step(Event::Signal(signal), now),
                Next::Deadline => supervisor.step(Event::Tick, now),
                Next::Look => {
                    let mut actions = self.look(&mut supervisor);
                    actions.extend(self.hear_of_holds(&mut supervisor));
                    actions
                }
                Next::GpuUse(job, event) => {
                    // It may have been seen before the attempt ended.
                    let attempt = self.running.get(&job).map(|running| running.attempt);
                    if event.attempt == attempt {
                        self.journal.tell(*event);
                    }
                    Vec::new()
                }
                Next::Message(job, rank, message) => {
                    self.heard = Some(job.clone());
                    self.take(&mut supervisor, job, rank, message)
                }
            });
        }
    }

    /// What a rank has to say, or what has become of it.
    fn take(
        &mut self,
        supervisor: &mut Supervisor,
        job: JobId,
        rank: usize,
        message: Message,
    ) -> Vec<Action> {
        let exit = match message {
            Message::Event(event) => {
                let kind = event.kind.clone();
                self.journal.tell(*event);
                let what = Happening::Said { rank, kind: &kind };
                return supervisor.step(Event::Of { job, what }, self.now());
            }
            Message::Nonsense(fault) => {
                self.nonsense(&job, rank, &fault);
                return Vec::new();
            }
            Message::Dying(exit) => (exit, false),
            Message::Ended => match self.reap(&job, rank) {
                Some(exit) => (exit, true),
                None => return Vec::new(),
            },
        };
        // A rank that finds nothing any more is not to blame.
        let mut actions = self.look(supervisor);
        let death = self.death(&job, rank, exit.0);
        let what = match exit {
            (_, true) => Happening::Ended { rank, death },
            (_, false) => Happening::Dying { rank, death },
        };
        actions.extend(supervisor.step(Event::Of { job, what }, self.now()));
        actions
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Looks whether the run directory is still there.
    fn look(&self, supervisor: &mut Supervisor) -> Vec<Action> {
        match self.presence.lost() {
            Some(message) => supervisor.step(Event::Lost { message }, self.now()),
            None => Vec::new(),
        }
    }

    /// What users hold back by now, where that has changed.
    fn hear_of_holds(&mut self, supervisor: &mut Supervisor) -> Vec<Action> {
        match self.database.holds() {
            Ok(holds) if holds != self.holds => {
                self.holds = holds;
                supervisor.step(Event::Holds(&self.holds), self.now())
            }
            // What cannot be read for now is read with the next beat; records that are lost end the run at the next transition.
            Ok(_) | Err(_) => Vec::new(),
        }
    }

    async fn next(&mut self, deadline: Option<Duration>) -> Next {
        let deadline = deadline.and_then(|deadline| self.began.checked_add(deadline));
        let deadline = async {
            match deadline {
                Some(deadline) => sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        let message =
            poll_fn(|context| next_message(&mut self.running, self.heard.as_ref(), context));
        // Signals first: ranks that talk without end must not keep a user from stopping them.
        tokio::select! {
            biased;
            signal = self.signals.next() => Next::Signal(signal),
            () = deadline => Next::Deadline,
            _ = self.beat.tick() => Next::Look,
            (job, event) = self.gpu_watch.next() => Next::GpuUse(job, event),
            (job, rank, message) = message => Next::Message(job, rank, message),
        }
    }

    fn carry_out(&mut self, action: Action) -> Result<Done, LaunchError> {
        let now = event::now();
        match action {
            Action::Record {
                job,
                attempt,
                to,
                why,
            } => {
                if to == JobState::Succeeded {
                    self.leave(&job);
                }
                self.database.record(&job, attempt, to, &why, now)?;
            }
            Action::Close {
                job,
                attempt,
                outcome,
                class,
                message,
            } => {
                self.leave(&job);
                self.database
                    .close(&job, attempt, outcome, class, &message, now)?;
            }
            Action::Start {
                job,
                attempt,
                world_size,
                micro_batch,
                devices,
            } => {
                if let Err(error) = self.start(&job, attempt, world_size, micro_batch, devices) {
                    return Ok(Done::NotStarted(job, error));
                }
                let kind = EventKind::JobStarted { world_size };
                // Its ranks may have said something by now: it was before that.
                self.journal.tell(RunEvent {
                    time: now,
                    ..RunEvent::job(job.as_str(), attempt, kind)
                });
            }
            Action::Shrink { job, micro_batch } => {
                self.database.set_micro_batch(&job, micro_batch)?;
            }
            Action::Examine { job, rank, ask } => {
                let process = self.running.get(&job).and_then(|running| {
                    if ask {
                        running.ranks.ask_for_stack(rank);
                    }
                    running.ranks.pid(rank)
                });
                let facts = process.map(Facts::of).unwrap_or_default();
                return Ok(Done::Examined(job, rank, facts));
            }
            Action::Report {
                job,
                rank,
                mut report,
            } => {
                let Some(running) = self.running.get(&job) else {
                    return Ok(Done::GoOn);
                };
                report.device = Some(match (self.options.device, running.devices.get(rank)) {
                    (Device::Cuda, Some(device)) => format!("cuda:{device}"),
                    _ => "cpu".to_owned(),
                });
                let attempt = running.attempt;
                let path = self.dir.failure(&job, attempt, rank);
                let kind = EventKind::RankFailed(report.clone());
                let event = RunEvent {
                    rank: Some(rank),
                    ..RunEvent::job(job.as_str(), attempt, kind)
                };
                self.journal.tell(event);
                let written = serde_json::to_vec(&report)
                    .map_err(io::Error::from)
                    .and_then(|text| replace(&path, &text));
                if let Err(error) = written {
                    let message = format!("cannot write {}: {error}", path.display());
                    self.warn(&job, attempt, message);
                }
            }
            Action::Tell { about, kind } => self.journal.tell(match about {
                Some((job, attempt)) => RunEvent::job(job.as_str(), attempt, kind),
                None => RunEvent::run(kind),
            }),
            Action::Terminate { job } => {
                if let Some(running) = self.running.get(&job) {
                    running.ranks.terminate();
                }
            }
            Action::Kill { job } => {
                if let Some(running) = self.running.get(&job) {
                    running.ranks.kill();
                }
            }
            Action::Finish(outcome) => return Ok(Done::Finished(outcome)),
        }
        Ok(Done::GoOn)
    }

    fn start(
        &mut self,
        job: &JobId,
        attempt: u32,
        world_size: usize,
        micro_batch: Option<u64>,
        devices: Vec<usize>,
    ) -> io::Result<()> {
        if let Some(message) = self.presence.lost() {
            // What is made anew at its place would be half a run.
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        fs::create_dir_all(self.dir.attempt(job, attempt))?;
        let mut arguments: Vec<OsString> = vec!["job".into(), "--run-dir".into()];
        arguments.push(self.dir.root().into());
        arguments.extend(["--job".into(), job.as_str().into()]);
        arguments.extend(["--attempt".into(), attempt.to_string().into()]);
        let device = match devices.is_empty() {
            true => Device::Cpu,
            false => self.options.device,
        };
        arguments.extend(["--device".into(), device_argument(device).into()]);
        arguments.extend(["--resume".into(), self.resume(job, attempt)]);
        if let Some(micro_batch) = micro_batch {
            arguments.extend(["--micro-batch".into(), micro_batch.to_string().into()]);
        }
        let has_all = devices.iter().copied().eq(0..self.options.ranks);
        let on_gpus = device == Device::Cuda;
        let ranks = 0..world_size;
        let order = Order {
            program: self.options.rank_program.clone(),
            arguments,
            about: Some((job.clone(), attempt)),
            visible_gpus: (on_gpus && !has_all).then(|| gpu::names(&devices).join(",")),
            logs: ranks.map(|rank| self.dir.log(job, attempt, rank)).collect(),
            near_gpus: on_gpus,
            sharers: self.sharers(job, world_size),
        };
        let running = Running {
            attempt,
            devices,
            ranks: Ranks::start(order, &mut self.guardian)?,
            nonsense: false,
        };
        let names = gpu::names(running.devices.get(..world_size).unwrap_or_default());
        self.gpu_watch.job_started(job, attempt, names);
        self.running.insert(job.clone(), running);
        Ok(())
    }

    fn leave(&mut self, job: &JobId) {
        self.running.remove(job);
        self.gpu_watch.job_ended(job);
    }

    /// Ranks that may run at once with those of a job, its own counted. The same whatever runs just then: sums that a library adds up
    /// in as many parts as it has threads must not depend on that.
    fn sharers(&self, job: &JobId, world_size: usize) -> usize {
        let spec = self.options.plan.job(job.as_str());
        match spec.and_then(|spec| spec.kind.training()) {
            Some(training) if training.gpus != plan::Gpus::All => self.options.ranks,
            _ => world_size,
        }
    }

    /// Where an attempt begins. What the user chose holds for a job's first one of this launch.
    fn resume(&mut self, job: &JobId, attempt: u32) -> OsString {
        match self.chosen.take_if(|(chosen, _)| chosen == job) {
            Some((_, checkpoint)) => checkpoint,
            None if self.options.resume == Resume::Never && attempt == 1 => "never".into(),
            None => "auto".into(),
        }
    }

    fn reap(&mut self, job: &JobId, rank: usize) -> Option<Exit> {
        let running = self.running.get_mut(job)?;
        running.ranks.reap(rank, &mut self.guardian)
    }

    fn death(&mut self, job: &JobId, rank: usize, exit: Exit) -> Death {
        Death {
            exit,
            at: event::now(),
            last_words: match self.running.get(job) {
                Some(running) if !exit.is_regular() => {
                    logs::last_words(&self.dir.log(job, running.attempt, rank))
                }
                _ => String::new(),
            },
            oom_kill: self.oom_kills.happened(),
        }
    }

    fn nonsense(&mut self, job: &JobId, rank: usize, fault: &str) {
        if let Some(running) = self.running.get_mut(job)
            && !std::mem::replace(&mut running.nonsense, true)
        {
            let attempt = running.attempt;
            let message = format!("rank {rank} sends what is not an event: {fault}");
            self.warn(job, attempt, message);
        }
    }

    fn warn(&mut self, job: &JobId, attempt: u32, message: String) {
        let kind = EventKind::Warning { message };
        self.journal
            .tell(RunEvent::job(job.as_str(), attempt, kind));
    }
}

/// What the next rank of any job has to say. Jobs take turns, so that none that talks without end keeps another from being heard.
fn next_message(
    running: &mut BTreeMap<JobId, Running>,
    heard: Option<&JobId>,
    context: &mut Context<'_>,
) -> Poll<(JobId, usize, Message)> {
    for turn in [true, false] {
        for (job, running) in running.iter_mut() {
            if (Some(job) > heard) == turn
                && let Poll::Ready((rank, message)) = running.ranks.poll_next(context)
            {
                return Poll::Ready((job.clone(), rank, message));
            }
        }
    }
    Poll::Pending
}

fn not_started(options: &LaunchOptions, error: io::Error) -> Happening<'static> {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let class = match error.kind() {
        StorageFull | QuotaExceeded | ReadOnlyFilesystem => FailureClass::Disk,
        _ => FailureClass::Setup,
    };
    let program = options.rank_program.display();
    let message = format!(
        "cannot start the ranks ({program}): {error}{}",
        crate::error::advice(&error)
    );
    Happening::NotStarted { class, message }
}
