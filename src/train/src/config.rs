//! What an update is made of, as plain data.

use recipe::{Optimization, Optimizer};
use tch::Kind;

use crate::execution::ExecutionConfig;
use crate::groups::Grouping;
use crate::optimizer::Rule;
use crate::scaler::LossScaling;

/// The parts of an update, apart from the main learning rate, which comes with each.
#[derive(Clone, Debug, PartialEq)]
pub struct UpdateConfig {
    pub rule: Rule,
    pub grouping: Grouping,
    /// Gradients are scaled down to this L2 norm, taken over all of them.
    pub clip_norm: Option<f64>,
    /// What fp16 needs, and nothing else.
    pub loss_scaling: Option<LossScaling>,
    /// Decay of the moving average of the weights.
    pub ema: Option<f64>,
    /// The running statistics of all ranks are the same already.
    pub sync_batch_norm: bool,
    /// Wait for the device at the end of each phase: on a GPU the phases' times are then the device's, and the update
    /// takes longer.
    pub timed: bool,
}

impl Default for UpdateConfig {
    /// AdamW as PyTorch has it, and nothing else.
    fn default() -> Self {
        UpdateConfig {
            rule: Rule::AdamW,
            grouping: Grouping {
                weight_decay: 1e-2,
                decay_all: true,
                backbone_rate: 1.0,
            },
            clip_norm: None,
            loss_scaling: None,
            ema: None,
            sync_batch_norm: false,
            timed: false,
        }
    }
}

impl UpdateConfig {
    /// The recipe's update of a network that runs like this.
    pub fn of(optimization: &Optimization, execution: &ExecutionConfig) -> Self {
        UpdateConfig {
            rule: match optimization.optimizer {
                Optimizer::AdamW => Rule::AdamW,
                Optimizer::Sgd { momentum } => Rule::Sgd { momentum },
                Optimizer::Lamb => Rule::Lamb,
            },
            grouping: Grouping {
                weight_decay: optimization.weight_decay,
                decay_all: optimization.decay_all,
                backbone_rate: optimization
                    .backbone_learning_rate
                    .map_or(1.0, |rate| rate / optimization.learning_rate),
            },
            clip_norm: optimization.clip_norm,
            loss_scaling: (execution.half == Some(Kind::Half)).then(LossScaling::default),
            ema: optimization.ema,
            sync_batch_norm: execution.sync_batch_norm,
            timed: false,
        }
    }
}
