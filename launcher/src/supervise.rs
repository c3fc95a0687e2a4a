//! Carries out what [`Supervisor`] decides: the one place where signals, ranks and time meet.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use event::{EventKind, FailureClass, RunEvent};
use plan::JobId;
use recipe::Device;
use tokio::time::{Interval, sleep_until};

use crate::action::{Action, Death, Event};
use crate::database::Database;
use crate::decide::Supervisor;
use crate::events::Message;
use crate::exit::Exit;
use crate::facts::Facts;
use crate::guardian::Guardian;
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
    pub running: Option<Running>,
    pub guardian: Guardian,
    pub database: Database,
    pub journal: Journal,
    pub dir: RunDir,
    /// Looked at with every `beat`, and when a rank has ended.
    pub presence: Presence,
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

/// The attempt whose ranks are running.
pub(crate) struct Running {
    job: JobId,
    attempt: u32,
    ranks: Ranks,
    /// Said once that a rank sends what is not an event.
    nonsense: bool,
}

/// What came of an action.
enum Done {
    GoOn,
    NotStarted(io::Error),
    Examined(usize, Facts),
    Finished(Outcome),
}

/// What the loop waits for.
enum Next {
    Signal(i32),
    Message(usize, Message),
    Deadline,
    Look,
}

impl Executor {
    /// Runs until the supervisor says that it is over.
    pub async fn run(mut self, mut supervisor: Supervisor) -> Result<Outcome, LaunchError> {
        let mut queue = VecDeque::from(supervisor.step(Event::Launched, self.now()));
        loop {
            while let Some(action) = queue.pop_front() {
                match self.carry_out(action) {
                    Ok(Done::GoOn) => {}
                    Ok(Done::Finished(outcome)) => return Ok(outcome),
                    Ok(Done::Examined(rank, facts)) => {
                        let at = event::now();
                        let event = Event::Examined { rank, facts, at };
                        queue.extend(supervisor.step(event, self.now()));
                    }
                    Ok(Done::NotStarted(error)) => {
                        queue.extend(self.look(&mut supervisor));
                        let event = not_started(&self.options, error);
                        queue.extend(supervisor.step(event, self.now()));
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
                Next::Look => self.look(&mut supervisor),
                Next::Message(rank, Message::Event(event)) => {
                    let kind = event.kind.clone();
                    self.journal.tell(*event);
                    supervisor.step(Event::Said { rank, kind: &kind }, now)
                }
                Next::Message(rank, Message::Nonsense(fault)) => {
                    self.nonsense(rank, &fault);
                    Vec::new()
                }
                Next::Message(rank, Message::Dying(exit)) => {
                    // A rank that finds nothing any more is not to blame.
                    let mut actions = self.look(&mut supervisor);
                    let death = self.death(rank, exit);
                    actions.extend(supervisor.step(Event::Dying { rank, death }, now));
                    actions
                }
                Next::Message(rank, Message::Ended) => match self.reap(rank) {
                    Some(exit) => {
                        let mut actions = self.look(&mut supervisor);
                        let death = self.death(rank, exit);
                        actions.extend(supervisor.step(Event::Ended { rank, death }, now));
                        actions
                    }
                    None => Vec::new(),
                },
            });
        }
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

    async fn next(&mut self, deadline: Option<Duration>) -> Next {
        let deadline = deadline.and_then(|deadline| self.began.checked_add(deadline));
        let deadline = async {
            match deadline {
                Some(deadline) => sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        let message = async {
            match &mut self.running {
                Some(running) => running.ranks.next().await,
                None => std::future::pending().await,
            }
        };
        // Signals first: ranks that talk without end must not keep a user from stopping them.
        tokio::select! {
            biased;
            signal = self.signals.next() => Next::Signal(signal),
            () = deadline => Next::Deadline,
            _ = self.beat.tick() => Next::Look,
            (rank, message) = message => Next::Message(rank, message),
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
            } => self.database.record(&job, attempt, to, &why, now)?,
            Action::Close {
                job,
                attempt,
                outcome,
                class,
                message,
            } => {
                self.running = None;
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
                let visible = devices.map(|left| gpu::visible(&left));
                if let Err(error) = self.start(&job, attempt, world_size, micro_batch, visible) {
                    return Ok(Done::NotStarted(error));
                }
                let kind = EventKind::JobStarted { world_size };
                self.journal
                    .tell(RunEvent::job(job.as_str(), attempt, kind));
            }
            Action::Shrink { job, micro_batch } => {
                self.database.set_micro_batch(&job, micro_batch)?;
            }
            Action::Examine { rank, ask } => {
                let process = self.running.as_ref().and_then(|running| {
                    if ask {
                        running.ranks.ask_for_stack(rank);
                    }
                    running.ranks.pid(rank)
                });
                let facts = process.map(Facts::of).unwrap_or_default();
                return Ok(Done::Examined(rank, facts));
            }
            Action::Report { rank, mut report } => {
                report.device = Some(match self.options.device {
                    Device::Cpu => "cpu".to_owned(),
                    Device::Cuda => format!("cuda:{rank}"),
                });
                let Some(Running { job, attempt, .. }) = &self.running else {
                    return Ok(Done::GoOn);
                };
                let path = self.dir.failure(job, *attempt, rank);
                let kind = EventKind::RankFailed(report.clone());
                let event = RunEvent {
                    rank: Some(rank),
                    ..RunEvent::job(job.as_str(), *attempt, kind)
                };
                self.journal.tell(event);
                let written = serde_json::to_vec(&report)
                    .map_err(io::Error::from)
                    .and_then(|text| replace(&path, &text));
                if let Err(error) = written {
                    self.warn(format!("cannot write {}: {error}", path.display()));
                }
            }
            Action::Tell { about, kind } => self.journal.tell(match about {
                Some((job, attempt)) => RunEvent::job(job.as_str(), attempt, kind),
                None => RunEvent::run(kind),
            }),
            Action::Terminate => {
                if let Some(running) = &self.running {
                    running.ranks.terminate();
                }
            }
            Action::Kill => {
                if let Some(running) = &self.running {
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
        visible_gpus: Option<String>,
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
        arguments.extend([
            "--device".into(),
            device_argument(self.options.device).into(),
        ]);
        arguments.extend(["--resume".into(), self.resume(job, attempt)]);
        if let Some(micro_batch) = micro_batch {
            arguments.extend(["--micro-batch".into(), micro_batch.to_string().into()]);
        }
        let ranks = 0..world_size;
        let order = Order {
            program: self.options.rank_program.clone(),
            arguments,
            about: Some((job.clone(), attempt)),
            visible_gpus,
            logs: ranks.map(|rank| self.dir.log(job, attempt, rank)).collect(),
            near_gpus: self.options.device == recipe::Device::Cuda,
        };
        self.running = Some(Running {
            job: job.clone(),
            attempt,
            ranks: Ranks::start(order, &mut self.guardian)?,
            nonsense: false,
        });
        Ok(())
    }

    /// Where an attempt begins. What the user chose holds for a job's first one of this launch.
    fn resume(&mut self, job: &JobId, attempt: u32) -> OsString {
        match self.chosen.take_if(|(chosen, _)| chosen == job) {
            Some((_, checkpoint)) => checkpoint,
            None if self.options.resume == Resume::Never && attempt == 1 => "never".into(),
            None => "auto".into(),
        }
    }

    fn reap(&mut self, rank: usize) -> Option<Exit> {
        let running = self.running.as_mut()?;
        running.ranks.reap(rank, &mut self.guardian)
    }

    fn death(&mut self, rank: usize, exit: Exit) -> Death {
        Death {
            exit,
            at: event::now(),
            last_words: match &self.running {
                Some(Running { job, attempt, .. }) if !exit.is_regular() => {
                    logs::last_words(&self.dir.log(job, *attempt, rank))
                }
                _ => String::new(),
            },
            oom_kill: self.oom_kills.happened(),
        }
    }

    fn nonsense(&mut self, rank: usize, fault: &str) {
        let known = self.running.as_mut().map(|running| &mut running.nonsense);
        if known.is_some_and(|known| !std::mem::replace(known, true)) {
            self.warn(format!("rank {rank} sends what is not an event: {fault}"));
        }
    }

    fn warn(&mut self, message: String) {
        let kind = EventKind::Warning { message };
        self.journal.tell(match &self.running {
            Some(Running { job, attempt, .. }) => RunEvent::job(job.as_str(), *attempt, kind),
            None => RunEvent::run(kind),
        });
    }
}

fn not_started(options: &LaunchOptions, error: io::Error) -> Event<'static> {
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
    Event::NotStarted { class, message }
}
