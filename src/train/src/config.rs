//! What an update is made of, as plain data.

use recipe::Training;

use crate::groups::Grouping;
use crate::optimizer::Rule;

/// The parts of an update, apart from the learning rate, which comes with each.
#[derive(Clone, Debug, PartialEq)]
pub struct UpdateConfig {
    pub rule: Rule,
    pub grouping: Grouping,
    /// Gradients are scaled down to this L2 norm, taken over all of them.
    pub clip_norm: Option<f64>,
}

impl UpdateConfig {
    /// The recipe's update.
    pub fn of(training: &Training) -> Self {
        UpdateConfig {
            rule: Rule::AdamW,
            grouping: Grouping {
                weight_decay: training.optimization.weight_decay,
                decay_all: false,
                backbone_rate: 1.0,
            },
            clip_norm: training.optimization.clip_norm,
        }
    }
}
