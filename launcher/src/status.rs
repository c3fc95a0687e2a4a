//! What a run directory tells about its run.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::UNIX_EPOCH;

use event::{EventKind, StepRecord};
use plan::{JobId, JobState};
use serde::Serialize;

use crate::LaunchError;
use crate::database::Database;
use crate::lock;
use crate::logs::tail;
use crate::run_dir::RunDir;

/// The end of the events that is looked at: some hundred steps.
const EVENTS_READ: u64 = 256 << 10;

/// Where a run is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunStatus {
    /// The recipe's name.
    pub name: String,
    pub plan_hash: String,
    /// The process that runs it now on this machine; none where nothing does.
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
    /// Updates done and updates in all, as the newest event says; none where that is long ago.
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

/// Reads where a run is, while it runs or later.
pub fn status(run_dir: &Path) -> Result<RunStatus, LaunchError> {
    let dir = RunDir::with_a_run(run_dir)?;
    let plan = plan::read(&dir.plan()).map_err(LaunchError::io("read", &dir.plan()))?;
    let launcher_pid = lock::holder(&dir);
    let now = match launcher_pid {
        Some(_) => event::now(),
        None => last_sign_of_life(&dir.events()),
    };
    let rows = Database::open_to_read(&dir.database())?.jobs(now)?;
    let steps = newest_steps(&dir.events());
    let jobs = plan.jobs.into_iter().map(|job| {
        let row = rows.get(job.id.as_str());
        let state = row.map_or(JobState::Pending, |row| row.state);
        let why = row.and_then(|row| row.why.clone());
        let step = steps.get(job.id.as_str());
        let checkpoints = checkpoint::list(&dir.checkpoints(&job.id)).unwrap_or_default();
        let complete = checkpoints
            .iter()
            .filter(|entry| matches!(entry.state, checkpoint::State::Complete { .. }));
        JobStatus {
            attempt: row.map_or(0, |row| row.attempt),
            step: step.map(|step| step.step),
            total_steps: step.map(|step| step.total_steps),
            loss: step.map(|step| step.loss),
            checkpoint: complete.map(|entry| entry.step).max(),
            seconds: row.map_or(0.0, |row| row.seconds),
            why: match (state, launcher_pid) {
                (JobState::Running, None) => {
                    Some("its launcher is gone: launch again to go on".to_owned())
                }
                _ => why,
            },
            id: job.id,
            state,
        }
    });
    Ok(RunStatus {
        jobs: jobs.collect(),
        name: plan.name,
        plan_hash: plan.hash,
        launcher_pid,
    })
}

/// When the last event was written: a launcher that is gone did not record its end.
fn last_sign_of_life(events: &Path) -> f64 {
    let written = events.metadata().and_then(|about| about.modified());
    let since = written.map(|time| time.duration_since(UNIX_EPOCH).unwrap_or_default());
    since.map_or_else(|_| event::now(), |since| since.as_secs_f64())
}

/// The newest step of each job near the end of the events.
fn newest_steps(events: &Path) -> BTreeMap<String, StepRecord> {
    let text = tail(events, EVENTS_READ).unwrap_or_default();
    let mut steps = BTreeMap::new();
    for event in text.lines().filter_map(|line| event::parse_line(line).ok()) {
        if let (Some(job), EventKind::Step(step)) = (event.job, event.kind) {
            steps.insert(job, step);
        }
    }
    steps
}
