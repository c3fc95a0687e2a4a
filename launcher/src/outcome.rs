//! How a run ended, and the exit code that says so.

use event::FailureClass;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every job of the plan has succeeded.
    Done,
    /// A job failed for good: the first one that did. Jobs that do not need it have run.
    Failed {
        job: String,
        class: FailureClass,
        reason: String,
    },
    /// The run directory was deleted, moved or unmounted while the run was at work: how it was, and what to do.
    Lost { reason: String },
    /// All that is left is held back, or needs what is: the names of those jobs.
    Held {
        paused: Vec<String>,
        cancelled: Vec<String>,
    },
    /// Stopped on request, with everything saved: launch again to go on.
    Stopped,
    /// Ended by this signal before everything was saved; older checkpoints are whole.
    Interrupted { signal: i32 },
}

impl Outcome {
    /// The exit code of DESIGN.md: 0, 1 (3 and 4 by the failure's class), 3, 75, 128 + signal. What is held is 1 and not 75: whoever
    /// launches again at 75, as a batch script does, would come to the same end for ever.
    pub fn exit_code(&self) -> i32 {
        match self {
            Outcome::Done => 0,
            Outcome::Failed { class, .. } => class.exit_code(),
            Outcome::Lost { .. } => 3,
            Outcome::Held { .. } => 1,
            Outcome::Stopped => 75,
            Outcome::Interrupted { signal } => 128 + signal,
        }
    }
}
