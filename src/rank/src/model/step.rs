//! Updates of a model's weights, outside of any run: the trainer's own update on tensors of the user's.

use std::time::{Duration, Instant};

use event::{EventKind, Phase};
use plan::model_request::{ModelReport, ModelSpec, StepSpec, UpdateRow};
use stage::model::TensorSet;
use tch::Tensor;
use train::{
    Backend, Execution, ExecutionConfig, LossScaling, Parameters, ProcessGroup, Rendezvous, Report,
    Stepper, Store, TrainError, UpdateConfig,
};

use super::build::{build, device, execution};
use super::write;
use crate::failure::RankError;

/// Makes the updates and writes losses, gradient norms and the weights after them.
pub fn run(spec: &ModelSpec, step: &StepSpec) -> Result<ModelReport, RankError> {
    let device = device(spec.device).map_err(TrainError::from)?;
    let input = TensorSet::read(&spec.input, device)?;
    let targets = TensorSet::read(&step.targets, device)?;
    let (model, notes) = build(spec, &input, device)?;
    let config = ExecutionConfig {
        channels_last: step.channels_last,
        gradient_checkpointing: step.gradient_checkpointing,
        ..execution(spec, device)?
    };
    if let Some(warning) = config.warning() {
        eprintln!("warning: {warning}");
    }
    let group = alone().map_err(TrainError::from)?;
    let execution = Execution::new(config);
    execution.lay_out(&model.store)?;
    let parameters = Parameters::of(&model.store);
    let of_flags = UpdateConfig::of(&step.optimization, &config);
    let update = UpdateConfig {
        loss_scaling: of_flags.loss_scaling.map(|scaling| LossScaling {
            initial: step.loss_scale.unwrap_or(scaling.initial),
            ..scaling
        }),
        timed: true,
        ..of_flags
    };
    let mut stepper = Stepper::new(parameters, &update, &group, &Silent)?;

    let lr = step.optimization.learning_rate;
    let accumulation = step.accumulation as usize;
    let mut updates = Vec::new();
    let mut next = 0;
    for number in 0..step.steps {
        let began = Instant::now();
        let outcome = stepper.update(
            number,
            lr,
            accumulation,
            || {
                let pair = (input.micro_batch(next)?, targets.micro_batch(next)?);
                next += 1;
                Ok(pair.into())
            },
            |(input, targets)| model.loss(&execution, &input, &targets),
            false,
        )?;
        // JSON has no word for what is not finite.
        let finite = |value: f64| value.is_finite().then_some(value);
        updates.push(UpdateRow {
            loss: finite(outcome.loss),
            gradient_norm: finite(outcome.gradient_norm),
            seconds: began.elapsed().as_secs_f64(),
            phases: outcome
                .phases
                .iter()
                .map(|(phase, seconds)| (phase.to_string(), *seconds))
                .collect(),
        });
    }
    stepper.finish()?;

    let column = |of: fn(&UpdateRow) -> Option<f64>| {
        let values: Vec<f64> = updates
            .iter()
            .map(|row| of(row).unwrap_or(f64::NAN))
            .collect();
        Tensor::f_from_slice(&values).map_err(TrainError::from)
    };
    let mut named = vec![
        ("loss".to_owned(), column(|update| update.loss)?),
        (
            "gradient_norm".to_owned(),
            column(|update| update.gradient_norm)?,
        ),
    ];
    let mut variables: Vec<_> = model.store.variables().into_iter().collect();
    variables.sort_by(|a, b| a.0.cmp(&b.0));
    let finals = variables.into_iter();
    named.extend(finals.map(|(name, tensor)| (format!("final.{name}"), tensor)));
    Ok(ModelReport {
        notes,
        outputs: write(&spec.output, &named)?,
        updates,
        ..ModelReport::default()
    })
}

/// A group of this process alone: nothing listens anywhere.
fn alone() -> Result<ProcessGroup, train::CollectiveError> {
    let timeout = Duration::from_secs(60);
    let store = Store::connect(&Rendezvous::alone(timeout))?;
    ProcessGroup::new(&store, Backend::Gloo, "model", timeout)
}

/// Nobody follows the updates.
struct Silent;

impl Report for Silent {
    fn report(&self, _: EventKind) {}

    fn at(&self, _: Phase, _: u64, _: u64) {}
}
