//! A job of the plan: its parts are built from the JobSpec and handed to the stage.

use std::rc::Rc;

use data::Discretion;
use event::{EventKind, Phase};
use plan::{JobId, JobKind, JobSpec, Plan, TrainStage};
use stage::{Album, Context, Finished, Members, RunPlace, Settings, Stage};
use train::{Backend, Ended, ProcessGroup, Rendezvous, Report, Store, TrainError};

use crate::Outcome;
use crate::arguments::{DeviceKind, Job};
use crate::environment::Environment;
use crate::failure::RankError;
use crate::reporter::Reporter;
use crate::rotation;
use crate::signals::STOP;

/// Runs this rank's part of the job.
pub fn run(
    job: &Job,
    environment: &Environment,
    reporter: &Reporter,
) -> Result<Outcome, RankError> {
    let plan = read_plan(job)?;
    let of_data = &plan.data;
    let mut discretion = Discretion::default()
        .hiding(&of_data.root, "data.root")
        .sparing(&job.run_dir);
    if let Some(split) = &of_data.split {
        discretion = discretion.hiding(split, "data.split");
    }
    if let Some(cache) = &of_data.cache.dir {
        discretion = discretion.calling(cache, "data.cache.dir");
    }
    reporter.heed(discretion);
    let spec = plan.job(&job.job).ok_or_else(|| {
        let known: Vec<&str> = plan.jobs.iter().map(|job| job.id.as_str()).collect();
        RankError::Setup(format!(
            "the plan has no job `{}`; it has: {}",
            job.job,
            known.join(", ")
        ))
    })?;
    if plan.private {
        // Before the first file is made.
        // SAFETY: the call takes a number and cannot fail.
        unsafe { libc::umask(0o077) };
    }
    let folder = job.run_dir.join("jobs").join(&job.job);
    std::fs::create_dir_all(&folder).map_err(|source| TrainError::Write {
        path: folder.display().to_string(),
        source,
    })?;

    let log = folder
        .join(format!("attempt-{}", job.attempt))
        .join(format!("rank{}.log", environment.rank));
    rotation::watch(
        log,
        plan.logs.max_mb.saturating_mul(1_000_000),
        plan.logs.keep,
    );

    let heartbeat = |phase| {
        reporter.report(EventKind::Heartbeat {
            phase,
            step: 0,
            sequence: 0,
        })
    };
    heartbeat(Phase::StartUp);
    let device = job
        .device
        .open(environment.local_rank)
        .map_err(TrainError::from)?;
    heartbeat(Phase::Rendezvous);
    let timeouts = plan.timeouts();
    reporter.beat_every(timeouts.heartbeat);
    let store = Store::connect(&Rendezvous {
        rank: environment.rank,
        world_size: environment.world_size,
        place: environment.place.clone(),
        timeout: timeouts.rendezvous,
    })
    .map_err(TrainError::from)?;
    let backend = match job.device {
        DeviceKind::Cpu => Backend::Gloo,
        DeviceKind::Cuda => Backend::Nccl,
    };
    let group = ProcessGroup::new(&store, backend, spec.id.as_str(), timeouts.collective);
    let group = Rc::new(group.map_err(TrainError::from)?);

    reporter.at(Phase::StartUp, 0, group.sequence());

    let place = RunPlace::new(&job.run_dir);
    let context = Context {
        data: &plan.data,
        labels: plan.inputs.as_ref().map(|inputs| inputs.labels.as_str()),
        place: &place,
        group: &group,
        device,
        report: reporter,
        stop: &STOP,
        album: &Album::new(spec.id.as_str(), plan.tensorboard.pictures),
    };
    let outcome = match &spec.kind {
        JobKind::Train { .. } => train(&context, &plan, spec, job),
        kind => tables(&context, &plan, spec, kind),
    };
    match outcome {
        Err(RankError::Train(TrainError::Stopped)) => Ok(Outcome::Stopped),
        outcome => outcome,
    }
}

fn read_plan(job: &Job) -> Result<Plan, RankError> {
    plan::read(&job.run_dir.join("plan.json")).map_err(|error| RankError::Setup(error.to_string()))
}

fn train(context: &Context, plan: &Plan, spec: &JobSpec, job: &Job) -> Result<Outcome, RankError> {
    let JobKind::Train {
        stage,
        fold,
        seed,
        training,
        start,
        pretrained_sha256,
    } = &spec.kind
    else {
        return Err(RankError::Setup(format!("job {} trains nothing", spec.id)));
    };
    let split = plan::accumulation_of(training, context.group.world_size(), job.micro_batch)
        .map_err(|error| RankError::Setup(error.to_string()))?;
    let ended = stage::run_stage(
        context,
        &Settings {
            job: spec.id.as_str(),
            hash: &spec.hash,
            stage: of_plan(plan, stage)?,
            fold: *fold,
            seeds: (plan.seed, *seed),
            training,
            pretrained_sha256: pretrained_sha256.as_deref(),
            start: start.as_ref().map(|id| finished(plan, id)).transpose()?,
            micro_batch: split.micro_batch,
            accumulation: split.accumulation,
            checkpointing: &plan.checkpoint,
            patience: plan.timeouts().parts,
            replica_check: plan.replica_check,
            histograms: plan.tensorboard.histograms,
            resume: &job.resume(),
        },
    )?;
    Ok(match ended {
        Ended::Finished => Outcome::Done,
        Ended::Stopped => Outcome::Stopped,
    })
}

fn of_plan<'a>(plan: &'a Plan, stage: &'a TrainStage) -> Result<Stage<'a>, RankError> {
    Ok(match stage {
        TrainStage::Stage1a { box_loss } => Stage::Stage1a {
            box_loss: *box_loss,
        },
        TrainStage::Stage1b { sequence, crop } => Stage::Stage1b {
            sequence,
            crop: *crop,
        },
        TrainStage::Stage2 { sequence } => Stage::Stage2 { sequence },
        TrainStage::Stage3 { study, features } => Stage::Stage3 {
            study,
            features: finished(plan, features)?,
        },
    })
}

/// A job whose model another one builds on.
fn finished<'a>(plan: &'a Plan, id: &'a JobId) -> Result<Finished<'a>, RankError> {
    let spec = plan.job(id.as_str());
    let spec = spec.ok_or_else(|| RankError::Setup(format!("the plan has no job `{id}`")))?;
    Ok(Finished {
        job: spec.id.as_str(),
        hash: &spec.hash,
    })
}

fn tables(
    context: &Context,
    plan: &Plan,
    spec: &JobSpec,
    kind: &JobKind,
) -> Result<Outcome, RankError> {
    context.report.report(EventKind::Heartbeat {
        phase: Phase::Tables,
        step: 0,
        sequence: 0,
    });
    match kind {
        JobKind::Labels => stage::make_labels(context, plan.seed)?,
        JobKind::StudyBoxes => {
            stage::merge_boxes(context, &context.cohort()?, &jobs_of(plan, "stage1a"))?;
        }
        JobKind::SliceLabels => {
            stage::merge_ratios(context, &context.cohort()?, &jobs_of(plan, "stage1b"))?;
        }
        JobKind::Summary => {
            let members = Members {
                stage1a: jobs_of(plan, "stage1a"),
                stage1b: jobs_of(plan, "stage1b"),
                stage2: jobs_of(plan, "stage2"),
                stage3: jobs_of(plan, "stage3"),
            };
            let metrics = stage::summarise(context, &context.cohort()?, &members)?;
            stage::finish(context, spec.id.as_str(), 0, &metrics)?;
        }
        JobKind::Train { .. } => {
            return Err(RankError::Setup(format!("job {} makes no table", spec.id)));
        }
    }
    Ok(Outcome::Done)
}

/// The training jobs of a stage that hold a fold out, in the plan's order: only they have an out-of-fold table.
fn jobs_of(plan: &Plan, name: &str) -> Vec<String> {
    let of_stage = |job: &&JobSpec| match &job.kind {
        JobKind::Train { stage, fold, .. } => stage.name() == name && fold.held_out().is_some(),
        _ => false,
    };
    plan.jobs
        .iter()
        .filter(of_stage)
        .map(|job| job.id.to_string())
        .collect()
}
