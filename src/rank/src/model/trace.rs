//! A trained model as a file of TorchScript.

use std::path::PathBuf;

use plan::model_request::{
    ComputeDevice, ModelReport, ModelSpec, ModelStage, OutputRow, TraceSpec,
};
use recipe::Precision;
use stage::model::TensorSet;
use tch::{CModule, Device, Kind, Tensor};
use train::{Execution, TrainError};

use super::build::{build, execution};
use crate::failure::RankError;

/// Records the model's pass, writes it, and compares the file with the model. The report has the inputs' shapes.
pub fn run(spec: &TraceSpec) -> Result<ModelReport, RankError> {
    let first = example(spec)?;
    let input = first.iter().map(|(name, t)| (*name, t.shallow_clone()));
    let input = TensorSet::of("the example", input);
    let of_model = as_model(spec);
    let (mut model, notes) = build(&of_model, &input, Device::Cpu)?;
    let execution = Execution::new(execution(&of_model, Device::Cpu)?);
    let module = model.trace(&execution, &first)?;
    module.save(&spec.output).map_err(TrainError::from)?;
    let written = CModule::load(&spec.output).map_err(TrainError::from)?;
    model.verify(&execution, &written, &example(spec)?)?;
    let row = |(name, tensor): &(&'static str, Tensor)| OutputRow {
        name: (*name).to_owned(),
        shape: tensor.size(),
    };
    Ok(ModelReport {
        notes,
        outputs: first.iter().map(row).collect(),
        ..ModelReport::default()
    })
}

/// Random numbers of the shapes that the module will take, in their order.
fn example(spec: &TraceSpec) -> Result<Vec<(&'static str, Tensor)>, TrainError> {
    let sizes = train::weights::tensors(&spec.weights)?;
    let size = |key: &str, dimension: usize| {
        let found = sizes.get(key).and_then(|spec| spec.shape.get(dimension));
        found.map(|n| *n as i64).ok_or_else(|| TrainError::Input {
            path: spec.weights.display().to_string(),
            problem: format!("it has no tensor `{key}`, which every model of stage 3 has"),
        })
    };
    let float = (Kind::Float, Device::Cpu);
    let channels = train::weights::channels(&sizes).unwrap_or(3);
    let (b, s, side) = (spec.batch as i64, spec.images as i64, spec.side as i64);
    Ok(match spec.name.stage {
        None | Some(ModelStage::Stage1a) => {
            let image = Tensor::f_randn([b, channels, side, side], float)?;
            vec![("image", image)]
        }
        Some(ModelStage::Stage1b | ModelStage::Stage2) => {
            let image = Tensor::f_randn([b, s, channels, side, side], float)?;
            vec![
                ("image", image),
                ("position", Tensor::f_rand([b, s], float)?),
            ]
        }
        Some(ModelStage::Stage3) => {
            let (s, width) = (size("attention.bias", 0)?, size("rnn.weight_ih_l0", 1)?);
            let features = Tensor::f_randn([b, s, width], float)?;
            let mask = Tensor::f_rand([b, s], float)?
                .f_lt(0.7)?
                .f_to_kind(Kind::Float)?;
            vec![("features", features), ("mask", mask)]
        }
    })
}

fn as_model(spec: &TraceSpec) -> ModelSpec {
    ModelSpec {
        name: spec.name.clone(),
        weights: Some(spec.weights.clone()),
        allow_non_finite: false,
        input: PathBuf::new(),
        output: spec.output.clone(),
        device: ComputeDevice::Cpu,
        precision: Precision::Fp32,
        drop_path: 0.0,
        drop_rate: 0.0,
        seed: 0,
        lstm_hidden: None,
        max_images: None,
    }
}
