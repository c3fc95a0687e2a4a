//! One training job from its settings to its out-of-fold table, where it holds a fold out.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use event::{EventKind, Phase};
use recipe::{BoxLoss, Checkpointing, Fold, Sequence, StudyModel, Training};
use tch::nn::VarStore;
use train::{
    CheckpointPlace, Ended, Execution, ExecutionConfig, FitOptions, Part, Resume, Setup, Task,
    TrainError, train, weights,
};

use crate::Result;
use crate::context::{Context, Fit};
use crate::finished::{Finished, load_backbone};
use crate::localizer::Stage1a;
use crate::shown_settings::shown_settings;
use crate::slice_task::SliceTask;
use crate::study::Stage3;

/// Which stage, with the settings that only it has.
#[derive(Clone, Copy, Debug)]
pub enum Stage<'a> {
    Stage1a {
        box_loss: BoxLoss,
    },
    Stage1b {
        sequence: &'a Sequence,
        crop: bool,
    },
    Stage2 {
        sequence: &'a Sequence,
    },
    /// `features`: the stage-2 job whose CNN is taken over.
    Stage3 {
        study: &'a StudyModel,
        features: Finished<'a>,
    },
}

impl Stage<'_> {
    /// Images of a sample that batch normalisation sees at once; stage 3's CNN is frozen.
    fn images_per_sample(&self) -> usize {
        match self {
            Stage::Stage1a { .. } => 1,
            Stage::Stage1b { sequence, .. } | Stage::Stage2 { sequence } => {
                sequence.images as usize
            }
            Stage::Stage3 { study, .. } => study.max_images as usize,
        }
    }
}

/// One training job.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    pub job: &'a str,
    /// Hash of the plan up to this job.
    pub hash: &'a str,
    pub stage: Stage<'a>,
    pub fold: Fold,
    /// The recipe's seed and the model's.
    pub seeds: (u64, u64),
    pub training: &'a Training,
    /// The job whose CNN the weights start from.
    pub start: Option<Finished<'a>>,
    /// What the file of `training.pretrained` was when the run was launched.
    pub pretrained_sha256: Option<&'a str>,
    pub micro_batch: usize,
    pub accumulation: usize,
    pub checkpointing: &'a Checkpointing,
    /// How long rank 0 waits for the other ranks' parts of a checkpoint.
    pub patience: Duration,
    /// Updates between two comparisons of the replicas; 0: none.
    pub replica_check: u64,
    /// Whether evaluations tell how weights and gradients are spread.
    pub histograms: bool,
    pub resume: &'a Resume,
}

/// Trains, predicts the held-out studies, writes their table and metrics.json. A model that holds nothing out has no table,
/// and nothing in metrics.json.
///
/// # Errors
/// `Stopped`, on all ranks, where one was asked to stop before or after the training proper: what was computed then is computed
/// anew; the training goes on from its checkpoint.
pub fn run_stage(context: &Context, settings: &Settings) -> Result<Ended> {
    let Settings { training, fold, .. } = *settings;
    let images = settings.micro_batch * settings.stage.images_per_sample();
    if images < 2 {
        return Err(TrainError::OneImage {
            job: settings.job.to_owned(),
        });
    }
    let seed = mixed_seed(settings.seeds);
    // Initial weights; ranks draw the same and rank 0's are broadcast all the same.
    tch::manual_seed(seed as i64);
    let store = VarStore::new(context.device);
    let config = ExecutionConfig::of(&training.numerics, &training.arch, context.device)?;
    if let Some(message) = config.warning().filter(|_| context.group.rank() == 0) {
        context.report.report(EventKind::Warning { message });
    }
    let execution = Execution::over_ranks(config, context.group);
    let fit = Fit {
        store: &store,
        training,
        execution: &execution,
        fold,
        seed,
    };
    let cohort = context.cohort()?;
    match settings.stage {
        Stage::Stage1a { box_loss } => {
            let task = Stage1a::new(context, &cohort, fit, box_loss)?;
            run(context, settings, fit, &task, |task, step| {
                task.out_of_fold(settings.job, step)
            })
        }
        Stage::Stage1b { sequence, crop } => {
            let task = SliceTask::stage1b(context, &cohort, fit, sequence, crop)?;
            run(context, settings, fit, &task, |task, step| {
                task.out_of_fold(settings.job, step)
            })
        }
        Stage::Stage2 { sequence } => {
            let task = SliceTask::stage2(context, &cohort, fit, sequence)?;
            run(context, settings, fit, &task, |task, step| {
                task.out_of_fold(settings.job, step)
            })
        }
        Stage::Stage3 { study, features } => {
            let task = Stage3::new(context, &cohort, fit, study, features)?;
            run(context, settings, fit, &task, |task, step| {
                task.out_of_fold(settings.job, step)
            })
        }
    }
}

fn run<T: Task>(
    context: &Context,
    settings: &Settings,
    fit: Fit,
    task: &T,
    out_of_fold: impl Fn(&T, u64) -> Result<BTreeMap<String, f64>>,
) -> Result<Ended> {
    if let Some(finished) = settings.start {
        load_backbone(context.place, fit.store, finished)?;
    }
    let checkpoints = CheckpointPlace {
        root: context.place.checkpoints(settings.job),
        job: settings.job.to_owned(),
        hash: settings.hash.to_owned(),
        settings: settings.checkpointing.clone(),
        patience: settings.patience,
    };
    // The other ranks take rank 0's variables. A checkpoint would replace them.
    if context.group.rank() == 0 && train::begins(&checkpoints, settings.resume)? {
        load_pretrained(context, settings, fit.store)?;
    }
    if context.group.rank() == 0 {
        context.report.report(EventKind::TrainingStarted {
            settings: shown_settings(settings, context.group.world_size()),
        });
    }
    let setup = Setup {
        store: fit.store,
        group: context.group,
        training: fit.training,
        execution: fit.execution,
        micro_batch: settings.micro_batch,
        accumulation: settings.accumulation,
        seed: fit.seed,
        workers: context.data.workers as usize,
        prefetch: (context.data.prefetch_mb as usize).saturating_mul(1 << 20),
        checkpoints: &checkpoints,
        ledger: &context.place.ledger(settings.job),
        replica_check: settings.replica_check,
        histograms: settings.histograms,
        resume: settings.resume,
        report: context.report,
        stop: context.stop,
    };
    let (ended, step) = train(task, &setup)?;
    if ended == Ended::Stopped {
        return Ok(ended);
    }
    let metrics = match settings.fold {
        Fold::All => BTreeMap::new(),
        Fold::HeldOut(_) => {
            context.report.report(EventKind::Heartbeat {
                phase: Phase::Inference,
                step,
                sequence: context.group.sequence(),
            });
            out_of_fold(task, step)?
        }
    };
    if context.group.rank() == 0 {
        finish(context, settings.job, step, &metrics)?;
    }
    Ok(Ended::Finished)
}

/// The CNN of the file that the recipe starts from, where it names one.
fn load_pretrained(context: &Context, settings: &Settings, store: &VarStore) -> Result<()> {
    let Some(path) = &settings.training.pretrained else {
        return Ok(());
    };
    let options = FitOptions {
        part: Part::Backbone,
        strict: true,
        allow_non_finite: false,
    };
    let loaded = weights::load(store, path, &options)?;
    let path = path.display().to_string();
    if let Some(expected) = settings
        .pretrained_sha256
        .filter(|sha256| *sha256 != loaded.sha256)
    {
        return Err(TrainError::PretrainedChanged {
            path,
            expected: expected.to_owned(),
            found: loaded.sha256,
        });
    }
    context.report.report(EventKind::WeightsLoaded {
        path,
        sha256: loaded.sha256,
        report: loaded.report.to_string(),
    });
    Ok(())
}

/// metrics.json, and the event that says the same where there is something to say.
pub fn finish(
    context: &Context,
    job: &str,
    step: u64,
    metrics: &BTreeMap<String, f64>,
) -> Result<()> {
    data::atomic_file::replace(&context.place.metrics(job), |file| {
        serde_json::to_writer_pretty(&mut *file, metrics)?;
        file.write_all(b"\n")
    })?;
    if !metrics.is_empty() {
        let (set, metrics) = ("out_of_fold".to_owned(), metrics.clone());
        context
            .report
            .report(EventKind::Evaluated { step, set, metrics });
    }
    Ok(())
}

/// One seed of the recipe's and the model's, spread over 63 bits (splitmix64's finaliser).
fn mixed_seed((recipe, model): (u64, u64)) -> u64 {
    let mut z = recipe.wrapping_add(model.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) >> 1
}
