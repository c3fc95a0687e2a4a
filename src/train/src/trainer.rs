//! The training loop: epochs of updates, checkpoints at step boundaries, evaluation, a stop on request.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use collective::ProcessGroup;
use data::ledger::Segment;
use data::loader::{Dataset, Loader, Request};
use data::sampler::{epoch_order, rank_share, updates_per_epoch};
use event::{EventKind, Phase};
use recipe::{Checkpointing, Training};
use tch::nn::VarStore;

use crate::best::Best;
use crate::checkpoint_writer::CheckpointWriter;
use crate::config::UpdateConfig;
use crate::execution::Execution;
use crate::progress;
use crate::record::Record;
use crate::replicas::Replicas;
use crate::report::{Names, Report};
use crate::restore::{agree_on, restore, sizes, snapshot};
use crate::schedule::learning_rate;
use crate::shown::{show, step_event};
use crate::state::Parameters;
use crate::step::{Losses, MicroBatch, Stepper};
use crate::stop::StopFlag;
use crate::writers::Writers;
use crate::{Result, TrainError};

/// What is trained: samples, their loss, and how well it does on studies that it did not see.
pub trait Task {
    type Data: Dataset;

    fn data(&self) -> &Arc<Self::Data>;

    /// Loss of a micro-batch, each sample weighing the same.
    fn loss(&self, samples: Vec<<Self::Data as Dataset>::Sample>) -> Result<Losses>;

    /// Metrics on held-out studies after `step` updates. All ranks call it; each does its share.
    ///
    /// # Errors
    /// `Stopped`, on all ranks, where one was asked to stop meanwhile.
    fn evaluate(&self, step: u64) -> Result<BTreeMap<String, f64>>;

    /// Shows what the model is given in this epoch, after `step` updates. Rank 0 alone calls it; the training does not depend
    /// on what comes of it.
    fn show_inputs(&self, _step: u64, _epoch: u64) {}
}

/// Where a job's checkpoints are, and whose they are.
#[derive(Clone, Debug)]
pub struct CheckpointPlace {
    /// `jobs/<job>/checkpoints`
    pub root: PathBuf,
    pub job: String,
    /// Hash of the plan up to this job: a checkpoint of another is not loaded.
    pub hash: String,
    /// When they are written and which are kept.
    pub settings: Checkpointing,
    /// How long rank 0 waits for the parts of the other ranks, once its own is on the disk.
    pub patience: Duration,
}

/// From where to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// From the newest valid checkpoint, else from the beginning.
    Auto,
    Never,
    From(PathBuf),
}

/// How a training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Finished,
    /// On request, with a checkpoint.
    Stopped,
}

/// What [`train`] needs beside the task.
pub struct Setup<'a> {
    pub store: &'a VarStore,
    pub group: &'a ProcessGroup,
    pub training: &'a Training,
    pub execution: &'a Execution,
    /// Samples a rank takes through the model at once, and how often before an update.
    pub micro_batch: usize,
    pub accumulation: usize,
    /// Of the sample order.
    pub seed: u64,
    /// Threads that load samples, and bytes of samples that they may be ahead.
    pub workers: usize,
    pub prefetch: usize,
    pub checkpoints: &'a CheckpointPlace,
    /// `jobs/<job>/ledger.jsonl`
    pub ledger: &'a Path,
    /// Updates between two comparisons of the replicas; 0: none.
    pub replica_check: u64,
    /// Whether every evaluation reports how weights and gradients are spread.
    pub histograms: bool,
    pub resume: &'a Resume,
    pub report: &'a dyn Report,
    pub stop: &'a StopFlag,
}

/// Trains to the end, or to a stop; returns how it ended and the updates done. The weights are in the store afterwards.
pub fn train<T: Task>(task: &T, setup: &Setup) -> Result<(Ended, u64)> {
    let Setup {
        group,
        training,
        checkpoints,
        ..
    } = setup;
    let batch = setup.micro_batch * setup.accumulation * group.world_size();
    let samples = task.data().len();
    let per_epoch = updates_per_epoch(samples, batch) as u64;
    if per_epoch == 0 {
        return Err(TrainError::TooFewSamples { samples, batch });
    }
    let total = per_epoch * training.epochs;

    let waiting = progress::waiting();
    broadcast_variables(setup.store, group)?;
    let parameters = Parameters::of(setup.store);
    let update = UpdateConfig::of(&training.optimization, setup.execution.config());
    let mut stepper = Stepper::new(parameters, &update, group, setup.report)?;
    let restored = restore(
        checkpoints,
        setup.resume,
        setup.store,
        &mut stepper,
        group,
        setup.report,
        (total, per_epoch),
    )?;
    let device = setup.store.device();
    let state_bytes = sizes(setup.store, &stepper)?;
    let writers = Writers::agree(checkpoints, &state_bytes, group, device, setup.report)?;
    drop(waiting);

    let start = restored.step;
    let mut record = Record::begin(setup.ledger, group, &restored, setup.report, || Segment {
        job: checkpoints.hash.clone(),
        seed: setup.seed,
        world_size: group.world_size(),
        batch,
        after: start,
        updates_per_epoch: per_epoch,
        total_updates: total,
        samples: (0..samples).map(|index| task.data().id(index)).collect(),
    })?;
    let replicas = Replicas::new(setup.store, group, setup.replica_check);
    // Whether all have loaded the same; what has been broadcast just now is.
    if start > 0 {
        replicas.after(start, true)?;
    }
    let mut best = restored.best;
    let mut writer = CheckpointWriter::new(checkpoints, &writers, setup.report);
    let mut to_warm = Some(state_bytes);
    let mut saved = start;
    let is_first = group.rank() == 0;
    let evaluations = per_epoch * training.evaluate_every;

    if is_first && !checkpoints.settings.keep_best.is_empty() && evaluations >= total {
        let message = "checkpoint.keep_best has nothing to choose from: this job is not evaluated before its end (evaluate_every)";
        let message = message.to_owned();
        setup.report.report(EventKind::Warning { message });
    }

    let requests = || requests(setup.seed, start, total, per_epoch, samples, batch, group);
    let mut loader = Loader::new(task.data(), requests(), setup.workers, setup.prefetch);
    let names: Names = {
        let data = Arc::clone(task.data());
        Arc::new(move |index| data.id(index))
    };
    // The same once more: what is awaited is known before it is there.
    let mut awaited = requests().map(|request| request.index);
    for step in start..total {
        // Before the update that follows an epoch, not after the one that ends it: a job that was stopped in between
        // evaluates when it goes on.
        if step > 0 && step.is_multiple_of(evaluations) {
            if is_first {
                show(task, setup, &stepper, step, per_epoch);
            }
            let metrics = match stepper.averaged(|| evaluate(task, setup, step)) {
                Err(TrainError::Stopped) => {
                    replicas.after(step, saved != step)?;
                    if saved != step {
                        let kept = (record.seal()?, best.as_ref());
                        let at = (step, total, per_epoch);
                        write_checkpoint(setup, &stepper, &writers, &mut writer, at, kept)?;
                    }
                    writer.wait()?;
                    return Ok((Ended::Stopped, step));
                }
                metrics => metrics?,
            };
            let by = &checkpoints.settings.keep_best;
            if !by.is_empty() && writers.writes() {
                let mut better = None;
                if is_first {
                    better = Best::of(by, best.as_ref(), step, &metrics)?;
                }
                let mut save = better.is_some() && saved != step;
                if writers.share().is_some() {
                    // All ranks have the same metrics; that they come to the same is not left to their arithmetic.
                    save = agree_on(group, device, save.then_some(step))?.is_some();
                }
                if save {
                    let at = (step, total, per_epoch);
                    let kept = (record.seal()?, better.as_ref());
                    write_checkpoint(setup, &stepper, &writers, &mut writer, at, kept)?;
                    saved = step;
                }
                best = better.or(best);
            }
            writer.wait()?;
        }
        let began = Instant::now();
        let rate = learning_rate(&training.optimization, step, total);
        let load = || {
            let wanted: Vec<usize> = awaited.by_ref().take(setup.micro_batch).collect();
            let loaded = (0..setup.micro_batch).map(|there| {
                let missing = wanted.get(there..).unwrap_or_default();
                setup.report.works_on(missing, &names);
                let (request, sample) = loader.next_answer().ok_or(data::DataError::LoaderEnded)?;
                Ok((sample?, request.index))
            });
            let (samples, numbers): (_, Vec<usize>) = loaded
                .collect::<data::Result<Vec<_>>>()?
                .into_iter()
                .unzip();
            setup.report.works_on(&numbers, &names);
            Ok(MicroBatch { samples, numbers })
        };
        let mut micro = 0;
        let forward = |samples| {
            // What is dropped is a function of the step, as all randomness: a resume needs no generator's state.
            tch::manual_seed(dropout_seed([setup.seed, step, micro, group.rank() as u64]));
            micro += 1;
            task.loss(samples)
        };
        let stop = setup.stop.is_requested();
        let mut outcome = stepper.update(step, rate, setup.accumulation, load, forward, stop)?;
        let done = step + 1;
        let stop = outcome.stop;
        record.update(done, std::mem::take(&mut outcome.samples))?;
        if is_first {
            let place = (done, total, step / per_epoch);
            let seconds = began.elapsed().as_secs_f64();
            setup
                .report
                .report(step_event(outcome, place, rate, batch, seconds, setup));
        }
        // Not ahead of the first update, which somebody waits for.
        if is_first && done == 1 {
            show(task, setup, &stepper, done, per_epoch);
        }
        writer.poll()?;
        // Not sooner: it takes cores from the first update, which somebody waits for.
        if let Some(bytes) = to_warm.take() {
            writer.warm(bytes);
        }
        let due = stop || done.is_multiple_of(checkpoints.settings.every) || done == total;
        replicas.after(done, due)?;
        if due {
            let at = (done, total, per_epoch);
            let kept = (record.seal()?, best.as_ref());
            write_checkpoint(setup, &stepper, &writers, &mut writer, at, kept)?;
            saved = done;
        }
        if stop {
            writer.wait()?;
            return Ok((Ended::Stopped, done));
        }
    }
    writer.wait()?;
    stepper.finish()?;
    Ok((Ended::Finished, total))
}

/// One seed of several numbers (splitmix64's steps).
fn dropout_seed(numbers: [u64; 4]) -> i64 {
    let mixed = numbers.into_iter().fold(0u64, |state, number| {
        let mut z = (state ^ number).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    });
    (mixed >> 1) as i64
}

fn evaluate<T: Task>(task: &T, setup: &Setup, step: u64) -> Result<BTreeMap<String, f64>> {
    let sequence = setup.group.sequence();
    setup.report.report(EventKind::Heartbeat {
        phase: Phase::Evaluate,
        step,
        sequence,
    });
    let metrics = task.evaluate(step)?;
    if setup.group.rank() == 0 && !metrics.is_empty() {
        let (set, metrics) = ("held_out".to_owned(), metrics.clone());
        setup
            .report
            .report(EventKind::Evaluated { step, set, metrics });
    }
    Ok(metrics)
}

/// Begins to write a checkpoint after `at`'s first number of updates, or this rank's part of it.
fn write_checkpoint(
    setup: &Setup,
    stepper: &Stepper,
    writers: &Writers,
    writer: &mut CheckpointWriter,
    at: (u64, u64, u64),
    kept: (Option<String>, Option<&Best>),
) -> Result<()> {
    let Setup { group, store, .. } = setup;
    if !writers.writes() {
        return Ok(());
    }
    setup.report.at(Phase::Checkpoint, at.0, group.sequence());
    writer.write(kept.1.map(|best| best.step), |memory| {
        snapshot(setup.checkpoints, store, stepper, writers, at, kept, memory)
    })
}

/// The samples of this rank from update `start` on, in order, epoch by epoch.
fn requests(
    seed: u64,
    start: u64,
    total: u64,
    per_epoch: u64,
    samples: usize,
    batch: usize,
    group: &ProcessGroup,
) -> impl Iterator<Item = Request> + Send + 'static {
    let (rank, world_size) = (group.rank(), group.world_size());
    let mut step = start;
    let mut current: Option<(u64, Vec<usize>)> = None;
    let mut pending = VecDeque::new();
    std::iter::from_fn(move || {
        while pending.is_empty() {
            if step >= total {
                return None;
            }
            let epoch = step / per_epoch;
            if current.as_ref().is_none_or(|(of, _)| *of != epoch) {
                current = Some((epoch, epoch_order(seed, epoch, samples)));
            }
            if let Some((_, order)) = &current {
                let update = (step % per_epoch) as usize;
                let share = rank_share(order, update, batch, rank, world_size);
                pending.extend(share.into_iter().map(|index| Request { index, epoch }));
            }
            step += 1;
        }
        pending.pop_front()
    })
}

/// Rank 0's variables on all ranks.
fn broadcast_variables(store: &VarStore, group: &ProcessGroup) -> Result<()> {
    let _no_grad = tch::no_grad_guard();
    let variables: BTreeMap<_, _> = store.variables().into_iter().collect();
    let tensors: Vec<_> = variables.into_values().collect();
    Ok(group.broadcast_all(&tensors, 0)?)
}

#[cfg(test)]
mod tests;
