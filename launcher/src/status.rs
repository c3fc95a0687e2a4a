//! What a run directory tells about its run.

mod progress;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::UNIX_EPOCH;

use event::FailureReport;
use plan::{JobId, JobState, Plan};
use serde::Serialize;

use crate::LaunchError;
use crate::database::{Broken, Database};
use crate::holds::{Hold, descendants};
use crate::lock;
use crate::run_dir::RunDir;

pub use progress::RankStatus;

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
    /// How it is held back; none where it is not.
    pub held: Option<Hold>,
    /// A job that it needs, directly or not, and that is cancelled: it will not run before that one.
    pub skipped_for: Option<JobId>,
    /// Why it is in that state, in words.
    pub why: Option<String>,
    /// Seconds of an update, of late; absent where none was done lately, as are the two that follow from it.
    pub seconds_per_step: Option<f64>,
    pub images_per_second: Option<f64>,
    /// Seconds until its last update; evaluation and tables come on top.
    pub remaining_seconds: Option<f64>,
    /// Where each rank is; empty where the job does not run.
    pub ranks: Vec<RankStatus>,
    /// What went wrong last, also where a retry went well.
    pub last_failure: Option<LastFailure>,
}

/// An attempt that failed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LastFailure {
    pub attempt: u32,
    /// When it ended, in seconds since the Unix epoch.
    pub at: f64,
    /// As a failure report names it; none where the launcher died.
    pub class: Option<String>,
    pub message: String,
    /// The rank that failed first, and its report; none where no rank did.
    pub rank: Option<usize>,
    pub report: Option<FailureReport>,
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
    let database = Database::open_to_read(&dir.database())?;
    let rows = database.jobs(now)?;
    let mut broken = database.broken()?;
    let holds = database.holds()?;
    let skipped = skipped(&plan, |job| {
        let is_done = rows.get(job.as_str()).map(|row| row.state) == Some(JobState::Succeeded);
        holds.get(job.as_str()) == Some(&Hold::Cancelled) && !is_done
    });
    let running = rows
        .iter()
        .filter(|(_, row)| row.state == JobState::Running);
    let running: Vec<&str> = running.map(|(job, _)| job.as_str()).collect();
    let progress = progress::read(&dir.events(), &running);
    let jobs = plan.jobs.into_iter().map(|job| {
        let row = rows.get(job.id.as_str());
        let state = row.map_or(JobState::Pending, |row| row.state);
        let why = row.and_then(|row| row.why.clone());
        let attempt = row.map_or(0, |row| row.attempt);
        let progress = progress.get(job.id.as_str());
        let is_open = state != JobState::Succeeded;
        let step = progress.and_then(|progress| progress.step.as_ref());
        let running = progress.filter(|_| state == JobState::Running && launcher_pid.is_some());
        let last_failure = broken.remove(job.id.as_str());
        let checkpoints = checkpoint::list(&dir.checkpoints(&job.id)).unwrap_or_default();
        let complete = checkpoints
            .iter()
            .filter(|entry| matches!(entry.state, checkpoint::State::Complete { .. }));
        JobStatus {
            attempt,
            step: step.map(|step| step.step),
            total_steps: step.map(|step| step.total_steps),
            loss: step.map(|step| step.loss),
            checkpoint: complete.map(|entry| entry.step).max(),
            seconds: row.map_or(0.0, |row| row.seconds),
            held: holds.get(job.id.as_str()).copied().filter(|_| is_open),
            skipped_for: skipped.get(&job.id).cloned().filter(|_| is_open),
            why: match (state, launcher_pid) {
                (JobState::Running, None) => {
                    Some("its launcher is gone: launch again to go on".to_owned())
                }
                _ => why,
            },
            seconds_per_step: running.and_then(|progress| progress.seconds_per_step()),
            images_per_second: running.and_then(|progress| progress.images_per_second()),
            remaining_seconds: running.and_then(|progress| progress.remaining()),
            ranks: running.map_or_else(Vec::new, |progress| progress.ranks(attempt, now)),
            last_failure: last_failure.map(|broken| last_failure_of(&dir, &job.id, broken)),
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

/// The jobs that are not run for want of one that is cancelled, and which.
fn skipped(plan: &Plan, cancelled: impl Fn(&JobId) -> bool) -> BTreeMap<JobId, JobId> {
    let mut skipped = BTreeMap::new();
    for job in plan
        .jobs
        .iter()
        .map(|job| &job.id)
        .filter(|job| cancelled(job))
    {
        for other in descendants(plan, |one| one == job) {
            skipped.entry(other.clone()).or_insert_with(|| job.clone());
        }
    }
    skipped
}

/// When the last event was written: a launcher that is gone did not record its end.
fn last_sign_of_life(events: &Path) -> f64 {
    let written = events.metadata().and_then(|about| about.modified());
    let since = written.map(|time| time.duration_since(UNIX_EPOCH).unwrap_or_default());
    since.map_or_else(|_| event::now(), |since| since.as_secs_f64())
}

/// With the report of the rank that failed first: the others followed.
fn last_failure_of(dir: &RunDir, job: &JobId, broken: Broken) -> LastFailure {
    let folder = dir.attempt(job, broken.attempt);
    let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
    let reports = entries.filter_map(|entry| {
        let name = entry.file_name();
        let name = name.to_str()?.strip_prefix("failure-rank")?;
        let rank: usize = name.strip_suffix(".json")?.parse().ok()?;
        let report: FailureReport = serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()?;
        Some((rank, report))
    });
    let first = reports.min_by(|(_, a), (_, b)| a.failed_at.total_cmp(&b.failed_at));
    let (rank, report) = first.unzip();
    LastFailure {
        attempt: broken.attempt,
        at: broken.at,
        class: broken.class,
        message: broken.message,
        rank,
        report,
    }
}
