//! What a job costs, from its architecture and settings alone: FLOPs, and bytes of a checkpoint.

use crate::{JobKind, TrainStage, Training};

/// A job's size before it has run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Multiply-adds (x 2) of one image forward; a training step does about three times that.
    pub forward_flops_per_image: f64,
    /// Bytes of one checkpoint in f32: weights, frozen ones too, and the optimizer's two moments.
    pub checkpoint_bytes: u64,
}

/// Parameters (with the classifier), multiply-adds at 224 x 224 pixels, and features of a backbone, as timm's published
/// tables give them.
fn backbone(arch: &str) -> Option<(f64, f64, u64)> {
    Some(match arch {
        "resnest14d" => (10.6e6, 2.76e9, 2048),
        "resnest26d" => (17.1e6, 3.64e9, 2048),
        "resnest50d" => (27.5e6, 5.40e9, 2048),
        "seresnext50_32x4d" => (27.6e6, 4.26e9, 2048),
        "efficientnet_b1" => (7.8e6, 0.59e9, 1280),
        "efficientnetv2_rw_m" => (53.2e6, 12.7e9, 2152),
        _ => return None,
    })
}

/// Parameters of a bidirectional LSTM layer: 4 gates, two biases, two directions.
fn lstm(input: u64, hidden: u64) -> f64 {
    (2 * 4 * hidden * (input + hidden + 2)) as f64
}

/// The cost of a job; none for table jobs and for architectures that are not in the table.
pub fn cost(kind: &JobKind) -> Option<Cost> {
    let JobKind::Train {
        stage, training, ..
    } = kind
    else {
        return None;
    };
    let Training {
        arch, image_size, ..
    } = training.as_ref();
    let (with_classifier, multiply_adds, features) = backbone(arch)?;
    let parameters = with_classifier - (1000 * (features + 1)) as f64;
    let side = *image_size as f64 / 224.0;
    let (trained, frozen) = match stage {
        TrainStage::Stage1a { .. } => (parameters, 0.0),
        TrainStage::Stage1b { sequence, .. } | TrainStage::Stage2 { sequence } => {
            let input = features + 16;
            let rnn = lstm(input, sequence.lstm_hidden.unwrap_or(input));
            (parameters + rnn, 0.0)
        }
        TrainStage::Stage3 { study, .. } => (lstm(features, study.lstm_hidden), parameters),
    };
    Some(Cost {
        forward_flops_per_image: 2.0 * multiply_adds * side * side,
        checkpoint_bytes: ((trained * 3.0 + frozen) * 4.0) as u64,
    })
}
