//! What can happen to a run, and what can be done about it: the words between deciding and doing.

use std::collections::BTreeMap;

use event::{EventKind, FailureClass, FailureReport};
use plan::{JobId, JobState};

use crate::Outcome;
use crate::exit::Exit;
use crate::facts::Facts;
use crate::holds::Hold;

/// What happened. Times of failures (`at`) are seconds since the Unix epoch, as in reports.
#[derive(Debug)]
pub(crate) enum Event<'e> {
    /// What is held back by users, by the names of jobs: at the launch, and whenever that has changed.
    Holds(&'e BTreeMap<String, Hold>),
    /// Something about a job that runs.
    Of {
        job: JobId,
        what: Happening<'e>,
    },
    Signal(i32),
    /// The run directory is not at its place any more: why, and what to do.
    Lost {
        message: String,
    },
    /// The [`Supervisor::deadline`](crate::decide::Supervisor::deadline) is over.
    Tick,
}

/// What happened to the ranks of a job's attempt.
#[derive(Debug)]
pub(crate) enum Happening<'e> {
    Said {
        rank: usize,
        kind: &'e EventKind,
    },
    /// A rank begins to die; its process is not gone yet.
    Dying {
        rank: usize,
        death: Death,
    },
    Ended {
        rank: usize,
        death: Death,
    },
    /// What [`Action::Examine`] found.
    Examined {
        rank: usize,
        facts: Facts,
        at: f64,
    },
    /// The ranks of the attempt could not be started; none is left.
    NotStarted {
        class: FailureClass,
        message: String,
    },
}

/// How a process ends, well or not, and what is known of it.
#[derive(Debug)]
pub(crate) struct Death {
    pub exit: Exit,
    pub at: f64,
    /// The end of its log, where it does not end well.
    pub last_words: String,
    /// The kernel has killed something for want of memory since the last death.
    pub oom_kill: bool,
}

/// What to do about it, in this order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Make a transition durable before anything that follows from it is done. A success closes its attempt.
    Record {
        job: JobId,
        attempt: u32,
        to: JobState,
        why: String,
    },
    /// Make the end of an attempt durable that did not succeed.
    Close {
        job: JobId,
        attempt: u32,
        outcome: &'static str,
        class: Option<FailureClass>,
        message: String,
    },
    Start {
        job: JobId,
        attempt: u32,
        world_size: usize,
        /// Where memory was too small for the recipe's.
        micro_batch: Option<u64>,
        /// The devices of the ranks, by place among those that are visible; none for a job on tables.
        devices: Vec<usize>,
    },
    /// Make it durable that a job's memory was too small for a larger micro-batch.
    Shrink {
        job: JobId,
        micro_batch: u64,
    },
    /// Look at a rank's process from outside, and ask it for its stack.
    Examine {
        job: JobId,
        rank: usize,
        ask: bool,
    },
    /// Write and tell a failure that the rank itself could not.
    Report {
        job: JobId,
        rank: usize,
        report: FailureReport,
    },
    Tell {
        about: Option<(JobId, u32)>,
        kind: EventKind,
    },
    /// Ask all ranks of a job to save and stop.
    Terminate {
        job: JobId,
    },
    /// Kill all ranks of a job and what they have started.
    Kill {
        job: JobId,
    },
    Finish(Outcome),
}
