//! The model that a request names, with its weights.

use std::collections::BTreeMap;

use checkpoint::{FitOptions, Part, TensorSpec};
use plan::model_request::{self, ComputeDevice, ModelSpec};
use recipe::Numerics;
use stage::model::{Model, ModelStage, Sizes, TensorSet};
use tch::Device;
use train::{CollectiveError, ExecutionConfig, TrainError};

use crate::arguments::DeviceKind;

/// Of stage 3 without weights to tell it.
const MAX_IMAGES: i64 = 192;

/// Where a request wants its model.
pub fn device(device: ComputeDevice) -> Result<Device, CollectiveError> {
    match device {
        ComputeDevice::Cpu => DeviceKind::Cpu.open(0),
        ComputeDevice::Cuda(number) => DeviceKind::Cuda.open(number),
    }
}

/// Makes the model and loads its weights; also what was done to them to make them fit.
pub fn build(
    spec: &ModelSpec,
    input: &TensorSet,
    device: Device,
) -> Result<(Model, Vec<String>), TrainError> {
    tch::manual_seed(spec.seed as i64);
    let stage = spec.name.stage.map(|stage| match stage {
        model_request::ModelStage::Stage1a => ModelStage::Stage1a,
        model_request::ModelStage::Stage1b => ModelStage::Stage1b,
        model_request::ModelStage::Stage2 => ModelStage::Stage2,
        model_request::ModelStage::Stage3 => ModelStage::Stage3,
    });
    let file = match &spec.weights {
        Some(path) => train::weights::tensors(path)?,
        None => BTreeMap::new(),
    };
    let size = |key: &str, dimension: usize| -> Option<i64> {
        let tensor: &TensorSpec = file.get(key)?;
        tensor.shape.get(dimension).map(|n| *n as i64)
    };
    let asked = |n: Option<u64>| n.map(|n| n as i64);
    let sizes = Sizes {
        arch: spec.name.arch.clone(),
        in_chans: input
            .channels()?
            .or_else(|| train::weights::channels(&file))
            .unwrap_or(3),
        drop_path: spec.drop_path,
        drop_rate: spec.drop_rate,
        lstm_hidden: asked(spec.lstm_hidden).or_else(|| size("rnn.weight_hh_l0", 1)),
        max_images: asked(spec.max_images)
            .or_else(|| size("attention.bias", 0))
            .unwrap_or(MAX_IMAGES),
    };
    let model = Model::new(stage, &sizes, device)?;
    let notes = match &spec.weights {
        Some(path) => {
            let options = FitOptions {
                part: Part::Whole,
                strict: true,
                allow_non_finite: spec.allow_non_finite,
            };
            let loaded = train::weights::load(&model.store, path, &options)?;
            loaded
                .report
                .notes
                .iter()
                .map(ToString::to_string)
                .collect()
        }
        None => Vec::new(),
    };
    // What a pass drops does not depend on how many initial weights were drawn before it.
    tch::manual_seed(spec.seed as i64);
    Ok((model, notes))
}

/// How the request wants its passes computed, in PyTorch's own layout.
pub fn execution(spec: &ModelSpec, device: Device) -> Result<ExecutionConfig, TrainError> {
    let numerics = Numerics {
        precision: spec.precision,
        channels_last: Some(false),
        sync_batch_norm: false,
        gradient_checkpointing: false,
    };
    ExecutionConfig::of(&numerics, &spec.name.arch, device)
}
