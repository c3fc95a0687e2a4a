//! A mock world for the supervisor's tests: a clock that they set, ranks that exist in it alone.

use std::collections::BTreeMap;
use std::time::Duration;

use event::{EventKind, FailureClass, FailureReport};
use plan::schedule::Limits;
use plan::{JobId, JobState, Plan, Progress};

use super::super::Supervisor;
use crate::Outcome;
use crate::action::{Action, Death, Event, Happening};
use crate::exit::{Exit, STOPPED};
use crate::facts::Facts;
use crate::room::Demand;

/// Ranks of a training job.
pub const RANKS: usize = 2;

/// What happens to the ranks, as the pairs below combine it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Blow {
    /// Rank 1 is killed from outside.
    Died,
    /// Rank 1 reports a failure and exits.
    Reported,
    /// The first one that asks for a stop, or the next.
    Signal,
    /// Two of them at once.
    TwoSignals,
    AllDone,
    AllStopped,
}

/// A world in which ranks do as they are told: killed, they end at once.
pub struct World {
    pub supervisor: Supervisor,
    pub now: Duration,
    /// The job in view: the first that ran when none did, or the one that a test looks at.
    view: JobId,
    /// Its ranks that are running.
    pub alive: Vec<usize>,
    /// Those of the others.
    others: BTreeMap<JobId, Vec<usize>>,
    pub started: Vec<(String, u32)>,
    states: BTreeMap<String, JobState>,
    pub told: Vec<EventKind>,
    pub reports: Vec<(usize, FailureReport)>,
    pub asked: usize,
    /// What a look at any rank shows; the processor time only from the second look on.
    pub facts: Facts,
    pub asked_for_stack: bool,
    /// Of the newest start, and those that were made durable.
    pub micro_batch: Option<u64>,
    pub devices: Vec<usize>,
    pub shrunk: Vec<(String, u64)>,
    killed: Vec<JobId>,
    pub outcome: Option<Outcome>,
}

impl World {
    pub fn new(plan: Plan) -> Self {
        World::with(plan, Limits::devices(RANKS), Demand::default())
    }

    /// On such a machine, of which each job takes so much.
    pub fn with(plan: Plan, limits: Limits, demand: Demand) -> Self {
        let progress = plan.jobs.iter().map(|job| Progress {
            id: job.id.clone(),
            state: JobState::Pending,
            attempt: 0,
        });
        let progress = progress.collect();
        let demands = vec![demand; plan.jobs.len()];
        let mut world = World {
            view: plan.jobs[0].id.clone(),
            supervisor: Supervisor::new(plan, progress, limits, &demands, BTreeMap::new()).unwrap(),
            now: Duration::ZERO,
            alive: Vec::new(),
            others: BTreeMap::new(),
            started: Vec::new(),
            states: BTreeMap::new(),
            told: Vec::new(),
            reports: Vec::new(),
            asked: 0,
            facts: Facts {
                state: Some('S'),
                ticks: Some(0),
                ..Facts::default()
            },
            asked_for_stack: false,
            micro_batch: None,
            devices: Vec::new(),
            shrunk: Vec::new(),
            killed: Vec::new(),
            outcome: None,
        };
        world.happens(Event::Holds(&BTreeMap::new()));
        world
    }

    pub fn happens(&mut self, event: Event<'_>) {
        let mut examine = None;
        for action in self.supervisor.step(event, self.now) {
            assert_eq!(
                self.outcome, None,
                "nothing comes after the end: {action:?}"
            );
            match action {
                Action::Record { job, to, .. } => {
                    let from = self.states.insert(job.to_string(), to);
                    let from = from.unwrap_or(JobState::Pending);
                    assert!(from.may_become(to), "{job}: {from} -> {to}");
                }
                Action::Start {
                    job,
                    attempt,
                    world_size,
                    micro_batch,
                    devices,
                } => {
                    assert!(
                        self.ranks(job.as_str()).is_empty(),
                        "ranks of two attempts at once"
                    );
                    assert_eq!(self.states[job.as_str()], JobState::Running);
                    self.started.push((job.to_string(), attempt));
                    // What was killed is gone before the next attempt starts.
                    self.killed.retain(|killed| *killed != job);
                    let ranks = (0..world_size).collect();
                    if self.alive.is_empty() {
                        self.others.insert(self.view.clone(), Vec::new());
                        (self.view, self.alive) = (job, ranks);
                    } else {
                        self.others.insert(job, ranks);
                    }
                    self.micro_batch = micro_batch;
                    self.devices = devices;
                }
                Action::Shrink { job, micro_batch } => {
                    self.shrunk.push((job.to_string(), micro_batch));
                }
                Action::Examine { job, rank, ask } => examine = Some((job, rank, ask)),
                Action::Report { rank, report, .. } => self.reports.push((rank, report)),
                Action::Tell { kind, .. } => self.told.push(kind),
                Action::Terminate { .. } => self.asked += 1,
                Action::Kill { job } => self.killed.push(job),
                Action::Finish(outcome) => self.outcome = Some(outcome),
                Action::Close { .. } => {}
            }
        }
        if let Some((job, rank, ask)) = examine {
            self.asked_for_stack |= ask;
            let mut facts = self.facts.clone();
            facts.ticks = facts.ticks.map(|ticks| if ask { 0 } else { ticks });
            let at = 9.0;
            let what = Happening::Examined { rank, facts, at };
            self.happens(Event::Of { job, what });
        }
        for job in std::mem::take(&mut self.killed) {
            for rank in self.ranks(job.as_str()) {
                self.ends_of(job.as_str(), rank, Exit::Signal(9));
            }
        }
    }

    /// Something happens to the job in view.
    pub fn meets(&mut self, what: Happening<'_>) {
        let job = self.view.clone();
        self.happens(Event::Of { job, what });
    }

    /// The ranks of a job that are running.
    pub fn ranks(&self, job: &str) -> Vec<usize> {
        match self.view.as_str() == job {
            true => self.alive.clone(),
            false => self
                .others
                .get(&JobId::new(job).unwrap())
                .cloned()
                .unwrap_or_default(),
        }
    }

    /// Brings a job into view.
    pub fn look_at(&mut self, job: &str) {
        let job = JobId::new(job).unwrap();
        if job != self.view {
            let ranks = self.others.remove(&job).unwrap_or_default();
            let before = std::mem::replace(&mut self.view, job);
            let ranks = std::mem::replace(&mut self.alive, ranks);
            self.others.insert(before, ranks);
        }
    }

    /// A rank of any job ends; what is in view stays so, unless it is followed by another job.
    pub fn ends_of(&mut self, job: &str, rank: usize, exit: Exit) {
        let before = self.view.to_string();
        self.look_at(job);
        self.ends(rank, exit);
        if self.view.as_str() == job {
            self.look_at(&before);
        }
    }

    pub fn all_of_end(&mut self, job: &str, code: i32) {
        for rank in self.ranks(job) {
            self.ends_of(job, rank, Exit::Code(code));
        }
    }

    pub fn ends(&mut self, rank: usize, exit: Exit) {
        if let Some(place) = self.alive.iter().position(|alive| *alive == rank) {
            self.alive.remove(place);
            let at = self.now.as_secs_f64();
            let death = death(exit, at);
            self.meets(Happening::Ended { rank, death });
        }
    }

    pub fn all_end(&mut self, code: i32) {
        for rank in self.alive.clone() {
            self.ends(rank, Exit::Code(code));
        }
    }

    pub fn reports(&mut self, rank: usize, class: FailureClass, failed_at: f64, message: &str) {
        let kind = EventKind::RankFailed(FailureReport::new(failed_at, class, message));
        self.meets(Happening::Said { rank, kind: &kind });
    }

    pub fn strikes(&mut self, blow: Blow) {
        match blow {
            Blow::Died => self.ends(1, Exit::Signal(11)),
            Blow::Reported if self.alive.contains(&1) => {
                self.reports(1, FailureClass::Other, 1.0, "loss is NaN");
                self.ends(1, Exit::Code(1));
            }
            Blow::Reported => {}
            Blow::Signal => self.happens(Event::Signal(libc::SIGTERM)),
            Blow::TwoSignals => {
                self.strikes(Blow::Signal);
                self.strikes(Blow::Signal);
            }
            Blow::AllDone => self.all_end(0),
            Blow::AllStopped => self.all_end(STOPPED),
        }
    }

    /// Time passes until nothing more happens by itself.
    pub fn settle(&mut self) {
        while self.outcome.is_none() {
            // Patience with silent ranks is none of these tests' time.
            let deadline = self.supervisor.deadline();
            let Some(deadline) = deadline.filter(|due| *due <= self.now + Duration::from_secs(40))
            else {
                break;
            };
            self.now = deadline;
            self.happens(Event::Tick);
        }
    }

    pub fn state(&self, job: &str) -> JobState {
        self.states.get(job).copied().unwrap_or(JobState::Pending)
    }

    pub fn started(&self) -> Vec<(&str, u32)> {
        let started = self.started.iter();
        started
            .map(|(job, attempt)| (job.as_str(), *attempt))
            .collect()
    }
}

/// Without a word.
pub fn death(exit: Exit, at: f64) -> Death {
    Death {
        exit,
        at,
        last_words: String::new(),
        oom_kill: false,
    }
}
