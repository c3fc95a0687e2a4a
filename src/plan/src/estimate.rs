//! What a job costs, from its architecture and settings alone: FLOPs, and bytes of a checkpoint.

use crate::{JobKind, TrainStage, Training};

/// A job's size before it has run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Multiply-adds (x 2) of one image forward; a training step does about three times that.
    pub forward_flops_per_image: f64,
    /// The LSTM's part of them.
    pub rnn_flops_per_image: f64,
    pub trained_parameters: f64,
    pub frozen_parameters: f64,
    /// Numbers that the CNN's convolutions put out for one image.
    pub activations_per_image: f64,
    /// Width of the CNN's output.
    pub features: u64,
    /// Bytes of one checkpoint in f32: weights, frozen ones too, and the optimizer's two moments.
    pub checkpoint_bytes: u64,
}

/// A backbone's size, as timm's published tables of results and model cards give it.
#[derive(Clone, Copy)]
struct Backbone {
    /// With the classifier of 1000 classes.
    parameters: f64,
    /// At 224 x 224 pixels, as the activations.
    multiply_adds: f64,
    /// Numbers that its convolutions put out.
    activations: f64,
    features: u64,
}

fn backbone(arch: &str) -> Option<Backbone> {
    // Published at another side: efficientnetv2_rw_m at 320, efficientnetv2_rw_s at 288, efficientnet_b1 at 240.
    let (parameters, multiply_adds, activations, features) = match arch {
        "resnest14d" => (10.6e6, 2.76e9, 7.3e6, 2048),
        "resnest26d" => (17.1e6, 3.64e9, 10.0e6, 2048),
        "resnest50d" => (27.5e6, 5.40e9, 14.4e6, 2048),
        "seresnext26d_32x4d" => (16.8e6, 2.73e9, 10.2e6, 2048),
        "seresnext50_32x4d" => (27.6e6, 4.26e9, 14.4e6, 2048),
        "efficientnet_b0" => (5.3e6, 0.40e9, 6.8e6, 1280),
        "efficientnet_b1" => (7.8e6, 0.59e9, 9.5e6, 1280),
        "efficientnetv2_rw_s" => (23.9e6, 2.98e9, 12.9e6, 1792),
        "efficientnetv2_rw_m" => (53.2e6, 6.22e9, 23.1e6, 2152),
        _ => return None,
    };
    Some(Backbone {
        parameters,
        multiply_adds,
        activations,
        features,
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
    let of = backbone(arch)?;
    let parameters = of.parameters - (1000 * (of.features + 1)) as f64;
    let side = *image_size as f64 / 224.0;
    let (trained, frozen, rnn) = match stage {
        TrainStage::Stage1a { .. } => (parameters, 0.0, 0.0),
        TrainStage::Stage1b { sequence, .. } | TrainStage::Stage2 { sequence } => {
            let input = of.features + 16;
            let rnn = lstm(input, sequence.lstm_hidden.unwrap_or(input));
            (parameters + rnn, 0.0, rnn)
        }
        TrainStage::Stage3 { study, .. } => {
            let rnn = lstm(of.features, study.lstm_hidden);
            (rnn, parameters, rnn)
        }
    };
    Some(Cost {
        // Each weight of the LSTM is used once an image.
        forward_flops_per_image: 2.0 * (of.multiply_adds * side * side + rnn),
        trained_parameters: trained,
        frozen_parameters: frozen,
        rnn_flops_per_image: 2.0 * rnn,
        activations_per_image: of.activations * side * side,
        features: of.features,
        checkpoint_bytes: ((trained * 3.0 + frozen) * 4.0) as u64,
    })
}
