//! One forward pass of a model.

use plan::model_request::{ModelReport, ModelSpec, PassSpec};
use stage::model::TensorSet;
use train::{Execution, TrainError};

use super::build::{build, device, execution};
use super::write;
use crate::failure::RankError;

/// Runs it and writes the outputs; after a training pass also the running statistics, as `state.<name>`.
pub fn run(spec: &ModelSpec, pass: PassSpec) -> Result<ModelReport, RankError> {
    let device = device(spec.device).map_err(TrainError::from)?;
    let input = TensorSet::read(&spec.input, device)?;
    let (model, notes) = build(spec, &input, device)?;
    let execution = Execution::new(execution(spec, device)?);
    let mut named = model.outputs(&execution, &input, pass.train, pass.taps)?;
    if pass.train {
        let buffers = model.store.variables().into_iter();
        let mut buffers: Vec<_> = buffers
            .filter(|(name, _)| name.contains("running_") || name.ends_with("num_batches_tracked"))
            .map(|(name, tensor)| (format!("state.{name}"), tensor))
            .collect();
        buffers.sort_by(|a, b| a.0.cmp(&b.0));
        named.extend(buffers);
    }
    Ok(ModelReport {
        notes,
        outputs: write(&spec.output, &named)?,
        ..ModelReport::default()
    })
}
