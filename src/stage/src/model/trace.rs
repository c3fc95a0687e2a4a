//! A model's forward pass recorded as TorchScript, which PyTorch loads without any of this code.

use nn::Pass;
use tch::{CModule, IValue, Tensor};
use train::{Execution, TrainError, tracing};

use crate::Result;
use crate::model::network::{Network, Outputs};
use crate::model::{Model, TensorSet};

/// Two passes over the same numbers may differ by rounding, where a fused kernel takes another order.
const TOLERANCE: f64 = 1e-5;

impl Model {
    /// Records one pass over `example`, named tensors in the order in which the module will take them. The module takes
    /// tensors of the example's shapes and no others, and gives the outputs in the order of [`Model::outputs`]: one
    /// tensor, or a tuple.
    ///
    /// Stage 3 is recorded from `features` (B, S, F), zero where padded, and `mask` (B, S): its CNN is a model of its own.
    pub fn trace(
        &mut self,
        execution: &Execution,
        example: &[(&'static str, Tensor)],
    ) -> Result<CModule> {
        // A constant of the module may not want a gradient.
        self.store.freeze();
        let _no_grad = tch::no_grad_guard();
        let names: Vec<&'static str> = example.iter().map(|(name, _)| *name).collect();
        let inputs: Vec<(&str, Tensor)> = example
            .iter()
            .map(|(name, tensor)| (*name, tensor.shallow_clone()))
            .collect();
        tracing::trace(&inputs, |inputs| {
            let inputs = inputs.iter().map(Tensor::shallow_clone);
            self.traced_outputs(execution, names.into_iter().zip(inputs))
        })
    }

    fn traced_outputs(
        &self,
        execution: &Execution,
        named: impl Iterator<Item = (&'static str, Tensor)>,
    ) -> Result<Vec<Tensor>> {
        let input = TensorSet::of("the example", named);
        let outputs = match &self.network {
            Network::Study { model, .. } => {
                let features = input.get("features", "B, S, F")?;
                let mask = input.get("mask", "B, S")?;
                Outputs::Logits(model.forward(&features, &mask, &Pass::eval())?)
            }
            network => network.forward(execution, &input, &Pass::eval())?,
        };
        Ok(outputs.named()?.into_iter().map(|(_, t)| t).collect())
    }

    /// Whether a module gives what this model gives for other numbers of the example's shapes.
    pub fn verify(
        &self,
        execution: &Execution,
        module: &CModule,
        other: &[(&'static str, Tensor)],
    ) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let named = other.iter().map(|(name, t)| (*name, t.shallow_clone()));
        let own = self.traced_outputs(execution, named)?;
        let inputs: Vec<IValue> = other
            .iter()
            .map(|(_, t)| IValue::Tensor(t.shallow_clone()))
            .collect();
        let theirs = tensors(module.forward_is(&inputs)?);
        let agree = theirs.len() == own.len()
            && own.iter().zip(&theirs).all(|(own, theirs)| {
                own.size() == theirs.size()
                    && own
                        .f_allclose(theirs, TOLERANCE, TOLERANCE, false)
                        .unwrap_or(false)
            });
        match agree {
            true => Ok(()),
            false => Err(TrainError::Input {
                path: "the recorded module".into(),
                problem: "it does not give what the model gives for another input: this is a fault of the program".into(),
            }),
        }
    }
}

/// One tensor or a tuple of them.
fn tensors(value: IValue) -> Vec<Tensor> {
    match value {
        IValue::Tensor(tensor) => vec![tensor],
        IValue::Tuple(values) => values.into_iter().flat_map(tensors).collect(),
        _ => Vec::new(),
    }
}
