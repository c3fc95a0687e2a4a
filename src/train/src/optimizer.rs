//! The update rules, through libtorch's multi-tensor kernels, with their state in the open for checkpoints.

use std::collections::BTreeMap;

use collective::kernels;
use tch::{Kind, Tensor};

use crate::Result;
use crate::groups::{Group, Grouping};
use crate::state::Parameters;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;

/// How a gradient becomes a change of the weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Loshchilov and Hutter, arXiv:1711.05101; betas 0.9 and 0.999, eps 1e-8.
    AdamW,
    /// Stochastic gradient descent; with Nesterov's momentum, where there is one.
    Sgd { momentum: f64 },
    /// You et al., arXiv:1904.00962, as timm has it; betas 0.9 and 0.999, eps 1e-6. Tensors that do not decay are not scaled
    /// by their norms either.
    Lamb,
}

impl Rule {
    /// What the rule remembers of each parameter: tensors of its shape, and whether it counts its updates in a `step`.
    fn memory(self) -> (&'static [&'static str], bool) {
        match self {
            Rule::AdamW | Rule::Lamb => (&["exp_avg", "exp_avg_sq"], true),
            Rule::Sgd { momentum: 0.0 } => (&[], false),
            Rule::Sgd { .. } => (&["momentum_buffer"], false),
        }
    }
}

/// A rule with its state, in the order of the parameters.
#[derive(Debug)]
pub(crate) struct Optimizer {
    rule: Rule,
    groups: Vec<Group>,
    /// By the rule's names.
    moments: Vec<(&'static str, Vec<Tensor>)>,
    /// Updates done, one f32 scalar for each parameter, as the kernels want it; empty where the rule does not count.
    steps: Vec<Tensor>,
}

impl Optimizer {
    /// The parameters are in their final memory layout: the state takes it over.
    pub fn new(parameters: &Parameters, rule: Rule, grouping: &Grouping) -> Result<Self> {
        let (names, counts) = rule.memory();
        let zeros = |p: &Tensor| -> Result<Tensor> { Ok(p.f_zeros_like()?.f_detach()?) };
        let moments = names
            .iter()
            .map(|name| {
                let tensors = parameters.tensors.iter().map(zeros);
                Ok((*name, tensors.collect::<Result<Vec<_>>>()?))
            })
            .collect::<Result<Vec<_>>>()?;
        let counted = parameters.tensors.iter().filter(|_| counts);
        let steps = counted
            .map(|p| Ok(Tensor::f_zeros([0i64; 0], (Kind::Float, p.device()))?))
            .collect::<Result<Vec<_>>>()?;
        let shapes: Vec<Vec<i64>> = parameters.tensors.iter().map(Tensor::size).collect();
        let names = parameters.names.iter().map(String::as_str);
        Ok(Optimizer {
            rule,
            groups: grouping.groups(names.zip(shapes.iter().map(Vec::as_slice))),
            moments,
            steps,
        })
    }

    /// One update from the parameters' gradients; `lr` is the main learning rate.
    pub fn update(&mut self, parameters: &Parameters, gradients: &[Tensor], lr: f64) -> Result<()> {
        for group in &self.groups {
            let of = |all: &[Tensor]| -> Vec<Tensor> {
                let members = group.members.iter();
                members.map(|i| all[*i].shallow_clone()).collect()
            };
            let weights = of(&parameters.tensors);
            let gradients = of(gradients);
            let moment = |i: usize| -> Vec<Tensor> {
                let tensors = self.moments.get(i);
                tensors.map_or_else(Vec::new, |(_, tensors)| of(tensors))
            };
            let lr = lr * group.rate;
            match self.rule {
                Rule::AdamW => kernels::fused_adamw(
                    &weights,
                    &gradients,
                    &moment(0),
                    &moment(1),
                    &of(&self.steps),
                    &kernels::AdamW {
                        lr,
                        beta1: BETA1,
                        beta2: BETA2,
                        eps: 1e-8,
                        weight_decay: group.weight_decay,
                    },
                )?,
                Rule::Lamb => kernels::lamb(
                    &weights,
                    &gradients,
                    &moment(0),
                    &moment(1),
                    &of(&self.steps),
                    &kernels::Lamb {
                        lr,
                        beta1: BETA1,
                        beta2: BETA2,
                        eps: 1e-6,
                        weight_decay: group.weight_decay,
                        always_adapt: false,
                    },
                )?,
                Rule::Sgd { momentum } => kernels::fused_sgd(
                    &weights,
                    &gradients,
                    &moment(0),
                    &kernels::Sgd {
                        lr,
                        momentum,
                        nesterov: momentum > 0.0,
                        weight_decay: group.weight_decay,
                    },
                    // The buffers begin at 0, which leads to the same numbers, also after a resume.
                    false,
                )?,
            }
        }
        Ok(())
    }

    /// Its state by name: `exp_avg.<parameter>`, `exp_avg_sq.<parameter>` and `step.<parameter>`, or
    /// `momentum_buffer.<parameter>`.
    pub fn tensors(&self, parameters: &Parameters) -> BTreeMap<String, Tensor> {
        let steps = ("step", &self.steps);
        let moments = self.moments.iter().map(|(name, tensors)| (*name, tensors));
        let named = moments.chain([steps]).flat_map(|(prefix, tensors)| {
            let names = parameters.names.iter();
            names
                .zip(tensors)
                .map(move |(name, tensor)| (format!("{prefix}.{name}"), tensor.shallow_clone()))
        });
        named.collect()
    }
}
