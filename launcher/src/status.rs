//! What a run directory tells about its run.

use std::path::Path;

use plan::{JobId, JobState};
use serde::Serialize;

use crate::LaunchError;

/// Where a run is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunStatus {
    /// The recipe's name.
    pub name: String,
    pub plan_hash: String,
    /// The process that runs it now; none where nothing does.
    pub launcher_pid: Option<u32>,
    /// In the plan's order.
    pub jobs: Vec<JobStatus>,
}

/// Where a job is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JobStatus {
    pub id: JobId,
    pub state: JobState,
    /// The newest attempt; 0 where there was none.
    pub attempt: u32,
    /// Updates done as the newest event of it says, and updates in all.
    pub step: Option<u64>,
    pub total_steps: Option<u64>,
    pub loss: Option<f64>,
    /// Step of the newest complete checkpoint.
    pub checkpoint: Option<u64>,
    /// Wall time of all its attempts, the running one up to now.
    pub seconds: f64,
    /// Why it is in that state, in words.
    pub why: Option<String>,
}

/// Reads a run's state; it may be running or not.
pub fn status(run_dir: &Path) -> Result<RunStatus, LaunchError> {
    Err(LaunchError::HoldsRun {
        run_dir: run_dir.to_owned(),
    })
}
