//! A launch from its options to its outcome.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use checkpoint::State;
use event::{EventKind, RunEvent};
use plan::{JobId, JobSpec, JobState, Plan, Progress};
use recipe::Device;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{MissedTickBehavior, interval};

use crate::database::Database;
use crate::decide::Supervisor;
use crate::gpu::{self, Gpus};
use crate::gpu_watch::{self, GpuWatch};
use crate::guardian::Guardian;
use crate::journal::Journal;
use crate::lock::Lock;
use crate::memory::OomKills;
use crate::presence::Presence;
use crate::ranks::device_argument;
use crate::run_dir::{Provenance, RunDir};
use crate::signals::StopSignals;
use crate::supervise::Executor;
use crate::{LaunchError, Outcome, room};

/// How often the run directory is looked for, and what users hold back is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// What to run, where, and on how many ranks.
#[derive(Clone, Debug)]
pub struct LaunchOptions {
    pub plan: Plan,
    /// The resolved recipe, kept beside the plan for whoever reads the run directory.
    pub recipe_yaml: String,
    pub run_dir: PathBuf,
    pub device: Device,
    /// What this machine has, where the device is a GPU: see [`gpu::find`].
    pub gpus: Gpus,
    /// GPUs, or on a CPU the ranks that run at once; a recipe's `gpus` says how many of them a job takes.
    pub ranks: usize,
    /// Jobs that run at once at most, on GPUs or on tables; none: as many as there is room for.
    pub jobs: Option<usize>,
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
/// Every event goes to `RUN_DIR/events.jsonl` and then to `events`; nobody need listen. SIGINT,
/// SIGTERM, SIGUSR1 and SIGHUP ask for a stop from then on, a second one ends all ranks at once.
///
/// The future is not `Send`: ranks die with the thread that started them, so one thread drives it
/// from its beginning to its end, inside a Tokio runtime. Dropped half-way, it kills the ranks.
pub async fn launch(
    options: LaunchOptions,
    events: UnboundedSender<RunEvent>,
) -> Result<Outcome, LaunchError> {
    let began = Instant::now();
    check(&options)?;
    let models = match options.device {
        Device::Cuda => {
            options.gpus.require(options.ranks)?;
            options.gpus.models.clone()
        }
        Device::Cpu => Vec::new(),
    };
    let dir = match options.plan.private {
        true => RunDir::create_private(&options.run_dir)?,
        false => RunDir::create(&options.run_dir)?,
    };
    let lock = Lock::acquire(&dir)?;
    if options.resume == Resume::Never && (dir.database().exists() || dir.plan().exists()) {
        return Err(LaunchError::HoldsRun {
            run_dir: options.run_dir,
        });
    }
    let chosen = match &options.resume {
        Resume::From(path) => Some((owner(path, &dir, &options.plan)?, path)),
        Resume::Auto | Resume::Never => None,
    };
    let guardian = Guardian::start(Some(lock.file()))
        .map_err(LaunchError::io("start a guardian for", dir.root()))?;
    let signals =
        StopSignals::listen().map_err(LaunchError::io("handle signals for", dir.root()))?;

    let mut database = Database::open(&dir.database())?;
    let saved = |job: &JobSpec| {
        let found = checkpoint::list(&dir.checkpoints(&job.id)).unwrap_or_default();
        let own = found.iter().filter(|entry| {
            matches!(&entry.state, State::Complete(manifest) if manifest.plan_hash == job.hash)
        });
        own.count() as u64
    };
    let limits = room::limits(&dir, options.ranks, options.jobs);
    let demands = room::demands(&options.plan, options.ranks, saved);
    // Before the plan is taken over: a launch that is refused leaves what is done as it was.
    let done = database.succeeded(&options.plan)?;
    room::check(&options.plan, &demands, limits, |job| done.contains(job))?;
    let (progress, void) = database.adopt(&options.plan, event::now())?;
    let provenance = Provenance {
        version: env!("CARGO_PKG_VERSION"),
        launched: event::now(),
        plan_hash: options.plan.hash.clone(),
        device: options.device,
        ranks: options.ranks,
        gpus: models,
    };
    dir.write_plan(&options.plan, &options.recipe_yaml, &provenance)?;
    let chosen = chosen
        .map(|((job, checkpoint), path)| match is_done(&progress, &job) {
            false => Ok((job, checkpoint.into_os_string())),
            true => Err(LaunchError::Resume {
                path: path.clone(),
                reason: format!(
                    "its job {job} has succeeded already; take another --run-dir to do it again"
                ),
            }),
        })
        .transpose()?;

    let mut journal = Journal::open(&dir.events(), events)?;
    journal.tell(RunEvent::run(EventKind::RunStarted {
        plan_hash: options.plan.hash.clone(),
        jobs: options.plan.jobs.len(),
        done: progress
            .iter()
            .filter(|job| job.state == JobState::Succeeded)
            .count(),
        device: device_argument(options.device).to_owned(),
        ranks: options.ranks,
    }));
    for message in plan::elastic_words(&options.plan, options.ranks) {
        journal.tell(RunEvent::run(EventKind::Warning { message }));
    }
    if !void.is_empty() {
        let jobs: Vec<&str> = void.iter().map(JobId::as_str).collect();
        journal.tell(RunEvent::run(EventKind::Warning {
            message: format!(
                "the plan has changed, so these jobs are done again from their beginning and \
                 their checkpoints of the old plan are not used: {}",
                jobs.join(", ")
            ),
        }));
    }

    let presence = Presence::of(&dir).map_err(LaunchError::io("open", dir.root()))?;
    let mut beat = interval(LOOK);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let micro_batches = database.micro_batches(&options.plan)?;
    let holds = database.holds()?;
    let plan = options.plan.clone();
    let supervisor = Supervisor::new(plan, progress, limits, &demands, micro_batches)?;
    let gpu_watch = match options.device {
        Device::Cuda => {
            let library = options.gpus.library.clone();
            GpuWatch::start(library, gpu::is_by_address(), gpu_watch::LOOK)
        }
        Device::Cpu => GpuWatch::none(),
    };
    let executor = Executor {
        running: BTreeMap::new(),
        heard: None,
        gpu_watch,
        guardian,
        database,
        journal,
        dir,
        presence,
        holds,
        beat,
        options,
        chosen,
        signals,
        oom_kills: OomKills::watch(),
        began,
        one_thread: PhantomData,
    };
    executor.run(supervisor).await
}

fn check(options: &LaunchOptions) -> Result<(), LaunchError> {
    if options.ranks == 0 {
        return Err(LaunchError::NoRanks);
    }
    for job in &options.plan.jobs {
        if let Some(training) = job.kind.training() {
            // An elastic recipe may take fewer ranks than are offered.
            plan::spread(training, options.ranks, options.plan.elastic).map_err(|source| {
                LaunchError::Batch {
                    job: job.id.to_string(),
                    source,
                }
            })?;
        }
    }
    Ok(())
}

fn is_done(progress: &[Progress], job: &JobId) -> bool {
    let is_done = |known: &Progress| known.id == *job && known.state == JobState::Succeeded;
    progress.iter().any(is_done)
}

/// The job of this run that a checkpoint belongs to, and the checkpoint's absolute path.
fn owner(path: &Path, dir: &RunDir, plan: &Plan) -> Result<(JobId, PathBuf), LaunchError> {
    let refuse = |reason: String| LaunchError::Resume {
        path: path.to_owned(),
        reason,
    };
    let checkpoint = path.canonicalize().map_err(|e| refuse(e.to_string()))?;
    let folder = checkpoint.parent();
    let job = plan
        .jobs
        .iter()
        .map(|job| &job.id)
        .find(|job| folder == Some(&dir.checkpoints(job)))
        .ok_or_else(|| {
            refuse(
                "it is no checkpoint of a job of this run: give a folder \
                 RUN_DIR/jobs/JOB/checkpoints/step-N (`spinectl checkpoint ls` lists them)"
                    .to_owned(),
            )
        })?;
    checkpoint::verify(&checkpoint).map_err(|error| refuse(error.to_string()))?;
    Ok((job.clone(), checkpoint))
}
