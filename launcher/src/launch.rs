//! A launch from its options to its outcome.

use std::path::PathBuf;

use event::RunEvent;
use plan::Plan;
use recipe::Device;
use tokio::sync::mpsc::UnboundedSender;

use crate::{LaunchError, Outcome};

/// What to run, where, and on how many ranks.
#[derive(Clone, Debug)]
pub struct LaunchOptions {
    pub plan: Plan,
    /// The resolved recipe, kept beside the plan for whoever reads the run directory.
    pub recipe_yaml: String,
    pub run_dir: PathBuf,
    pub device: Device,
    /// Ranks of a training job; jobs on tables have one.
    pub ranks: usize,
    pub resume: Resume,
    /// The program `spinectl-rank`: see [`rank_program`](crate::rank_program).
    pub rank_program: PathBuf,
}

/// Where a run begins in a directory that may hold one already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Jobs that have succeeded are kept, others go on from their newest checkpoint.
    Auto,
    /// The directory must not hold a run.
    Never,
    /// As `Auto`, but the job that owns this checkpoint goes on from it.
    From(PathBuf),
}

/// Runs the plan to its end.
///
/// Every event goes to `RUN_DIR/events.jsonl` and then to `events`; nobody need listen.
///
/// The future is not `Send`: ranks die with the thread that started them, so one thread drives it
/// from its beginning to its end.
pub async fn launch(
    options: LaunchOptions,
    events: UnboundedSender<RunEvent>,
) -> Result<Outcome, LaunchError> {
    drop((options, events));
    Err(LaunchError::NoRanks)
}
