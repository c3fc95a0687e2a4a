//! The trainer's state into a checkpoint and back.

use std::collections::BTreeMap;
use std::path::Path;

use checkpoint::{Checkpoint, Meta, TensorSpec};
use collective::ProcessGroup;
use event::EventKind;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tch::nn::VarStore;
use tch::{Device, Tensor};

use crate::best::Best;
use crate::checkpoint_writer::Memory;
use crate::report::Report;
use crate::scaler::{Scaler, ScalerState};
use crate::state;
use crate::step::Stepper;
use crate::trainer::{CheckpointPlace, Resume};
use crate::writers::Writers;
use crate::{Result, TrainError};

/// What a checkpoint holds beside tensors. All randomness of a step is a function of (seed, epoch, sample), so the
/// count of updates is the position in every random stream, the schedule and the sampler.
#[derive(Debug, Serialize, Deserialize)]
struct TrainerState {
    step: u64,
    total_steps: u64,
    updates_per_epoch: u64,
    /// Hash of the sample ledger at this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ledger: Option<String>,
    /// fp16's loss scale. A job that goes on in another precision starts with a new one, or has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scaler: Option<ScalerState>,
    /// The best evaluation so far, where the best checkpoint is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    best: Option<Best>,
}

/// Whether a checkpoint was written after the last update of its job.
pub fn is_final(checkpoint: &Checkpoint) -> bool {
    let state = serde_json::from_value::<TrainerState>(checkpoint.trainer.clone());
    state.is_ok_and(|state| state.step == state.total_steps)
}

/// Copies what this rank writes of the state after `step` updates to host memory: to `memory`, as far as it goes.
pub(crate) fn snapshot(
    place: &CheckpointPlace,
    store: &VarStore,
    stepper: &Stepper,
    writers: &Writers,
    (step, total_steps, updates_per_epoch): (u64, u64, u64),
    (ledger, best): (Option<String>, Option<&Best>),
    memory: Memory,
) -> Result<Checkpoint> {
    let state = TrainerState {
        step,
        total_steps,
        updates_per_epoch,
        ledger,
        scaler: stepper.scaler.as_ref().map(Scaler::state).transpose()?,
        best: best.cloned(),
    };
    let own_model: Vec<_> = writers.own_of_model(model(store, stepper)).collect();
    let own_optimizer = writers.own_of_optimizer(beside_the_model(stepper));
    let own_optimizer: Vec<_> = own_optimizer.collect();
    Ok(Checkpoint {
        step,
        model: state::copy_all_to_host(&own_model, memory.model)?,
        optimizer: state::copy_all_to_host(&own_optimizer, memory.optimizer)?,
        trainer: json!(state),
        meta: Meta {
            plan_hash: place.hash.clone(),
            job: place.job.clone(),
            world_size: writers.world_size(),
        },
    })
}

/// Bytes of each tensor of the state: the model's, and those beside it, each in order of name.
pub(crate) fn sizes(store: &VarStore, stepper: &Stepper) -> Result<[Vec<usize>; 2]> {
    let sizes = |tensors: &BTreeMap<String, Tensor>| -> Result<Vec<usize>> {
        let specs = state::specs(tensors)?;
        let bytes = |spec: &TensorSpec| spec.shape.iter().product::<usize>() * spec.dtype.size();
        Ok(specs.iter().map(bytes).collect())
    };
    Ok([
        sizes(&model(store, stepper))?,
        sizes(&beside_the_model(stepper))?,
    ])
}

/// Whether a training begins at its first update: nothing is asked for, and there is nothing, to go on from.
pub fn begins(place: &CheckpointPlace, resume: &Resume) -> Result<bool> {
    match resume {
        Resume::Never => Ok(true),
        Resume::From(_) => Ok(false),
        Resume::Auto => {
            let is_own = |entry: checkpoint::Entry| match entry.state {
                checkpoint::State::Complete(manifest) => manifest.plan_hash == place.hash,
                checkpoint::State::Damaged(_) => false,
            };
            Ok(!checkpoint::list(&place.root)?.into_iter().any(is_own))
        }
    }
}

/// The model as predictions use it: with averaged weights, where there are any.
fn model(store: &VarStore, stepper: &Stepper) -> BTreeMap<String, Tensor> {
    let mut variables: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
    if let Some(ema) = &stepper.ema {
        variables.extend(ema.tensors(&stepper.parameters));
    }
    variables
}

/// The optimizer's state, and with averaged weights in the model the weights themselves as `raw.<parameter>`.
fn beside_the_model(stepper: &Stepper) -> BTreeMap<String, Tensor> {
    let parameters = &stepper.parameters;
    let mut tensors = stepper.optimizer.tensors(parameters);
    if stepper.ema.is_some() {
        let names = parameters.names.iter().map(|name| format!("raw.{name}"));
        tensors.extend(names.zip(parameters.tensors.iter().map(Tensor::shallow_clone)));
    }
    tensors
}

/// Where a training goes on.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Restored {
    /// Updates done.
    pub step: u64,
    /// Hash of the sample ledger at that step.
    pub ledger: Option<String>,
    /// The best evaluation among them.
    pub best: Option<Best>,
}

/// Loads what `resume` asks for and returns where that is: rank 0 chooses, all ranks load the same.
pub(crate) fn restore(
    place: &CheckpointPlace,
    resume: &Resume,
    store: &VarStore,
    stepper: &mut Stepper,
    group: &ProcessGroup,
    report: &dyn Report,
    (total_steps, updates_per_epoch): (u64, u64),
) -> Result<Restored> {
    let mut skipped = Vec::new();
    let chosen = match resume {
        Resume::Never => None,
        Resume::From(path) => Some(path.clone()),
        Resume::Auto => {
            let found = match group.rank() {
                0 => checkpoint::newest_valid_of(&place.root, &place.hash)?,
                _ => None,
            };
            if let Some(found) = &found
                && !found.skipped.is_empty()
            {
                skipped.push(found.to_string());
            }
            agree_on(group, store.device(), found.map(|found| found.step))?
                .map(|step| place.root.join(format!("step-{step:08}")))
        }
    };
    let Some(path) = chosen else {
        return Ok(Restored::default());
    };
    let restored = load(
        &path,
        place,
        store,
        stepper,
        (total_steps, updates_per_epoch),
    )?;
    if group.rank() == 0 {
        report.report(EventKind::JobResumed {
            step: restored.step,
            checkpoint: folder_name(&path),
            skipped,
        });
    }
    Ok(restored)
}

fn folder_name(path: &Path) -> String {
    path.file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn load(
    path: &Path,
    place: &CheckpointPlace,
    store: &VarStore,
    stepper: &mut Stepper,
    expected: (u64, u64),
) -> Result<Restored> {
    let shown = path.display().to_string();
    let found = checkpoint::read(path, Some(&place.hash))?;
    let state: TrainerState =
        serde_json::from_value(found.trainer).map_err(|e| TrainError::TrainerState {
            path: shown.clone(),
            problem: format!("trainer.json: {e}"),
        })?;
    if state.step != found.step {
        let problem = format!(
            "trainer.json says step {}, manifest.json {}",
            state.step, found.step
        );
        return Err(TrainError::TrainerState {
            path: shown,
            problem,
        });
    }
    if (state.total_steps, state.updates_per_epoch) != expected {
        let problem = format!(
            "it belongs to a training of {} updates, {} an epoch, and this one has {} and {}: the data set has changed",
            state.total_steps, state.updates_per_epoch, expected.0, expected.1
        );
        return Err(TrainError::TrainerState {
            path: shown,
            problem,
        });
    }
    state::load_model(store, &found.model, &shown)?;
    if let Some(ema) = &stepper.ema {
        // The model's weights are the averaged ones; those of the training follow.
        ema.restart(&stepper.parameters)?;
    }
    state::load(&beside_the_model(stepper), &found.optimizer, &shown)?;
    if let (Some(scaler), Some(saved)) = (&mut stepper.scaler, &state.scaler) {
        scaler.load(saved)?;
    }
    Ok(Restored {
        step: state.step,
        ledger: state.ledger,
        best: state.best,
    })
}

/// Rank 0's number, below 2^63, on all ranks.
pub(crate) fn agree_on(
    group: &ProcessGroup,
    device: Device,
    number: Option<u64>,
) -> Result<Option<u64>> {
    let number = number.map_or(-1, |number| number as i64);
    let number = Tensor::f_from_slice(&[number])?.f_to_device(device)?;
    group.broadcast(&number, 0)?;
    Ok(u64::try_from(number.f_int64_value(&[0])?).ok())
}

#[cfg(test)]
mod tests;
