//! The flags of `spinectl model`, and the requests that they come to.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use plan::model_request::{ComputeDevice, ModelName, ModelRequest, ModelSpec, PassSpec, StepSpec};
use recipe::{Optimization, Optimizer, Precision, Schedule};

use crate::exit;

pub const RUN_EXAMPLES: &str = "\
Tensors:
  a backbone, stage1a   image (B, C, H, W)
  stage1b, stage2       image (B, S, C, H, W), position (B, S) in 0..1
  stage3                image (B, S, C, H, W) or features (B, S, F), mask (B, S)
Outputs:
  a backbone features (B, F); stage1a box (B, 4), has_box (B); stage1b ratio (B, S, 7);
  stage2 ratio, fracture (B, S, 7), any (B, S); stage3 logits (B, 8)

Examples:
  spinectl model run --arch resnest50d --weights resnest50d.safetensors --input x.safetensors --output y.safetensors
  spinectl model run --arch stage2:resnest50d --weights model.safetensors --input x.safetensors --output y.safetensors --taps";

pub const STEP_EXAMPLES: &str = "\
Every tensor of --input and --targets has one leading dimension K of micro-batches; update u takes micro-batches
(u A + i) mod K, for i below A = --accumulation. The inputs are those of `spinectl model run`.
Targets:
  stage1a box (K, B, 4), has_box (K, B); stage1b ratio (K, B, S, 7); stage2 ratio, fracture (K, B, S, 7);
  stage3 label (K, B, 8); a backbone features (K, B, F), of which the mean squared error is taken
Outputs:
  loss (N,) and gradient_norm (N,) by update (NaN where fp16 overflowed), final.<name> for every parameter and buffer

Example:
  spinectl model step --arch stage2:resnest14d --weights start.safetensors --input x.safetensors --targets t.safetensors \\
    --optimizer adamw --learning-rate 3e-4 --steps 10 --output after.safetensors";

#[derive(Debug, Args)]
pub struct List {
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Which model, its weights, what it is given.
#[derive(Debug, Args)]
struct Model {
    /// A backbone (resnest50d), or a stage's model around one (stage1a:, stage1b:, stage2:, stage3:resnest50d)
    #[arg(long, value_name = "[STAGE:]BACKBONE")]
    arch: ModelName,

    /// Weights in safetensors, under timm's and the stages' names [default: random initial values]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,

    /// Take weights that are NaN or infinite
    #[arg(long)]
    allow_non_finite: bool,

    /// The tensors that it is given, in safetensors
    #[arg(long, value_name = "FILE")]
    input: PathBuf,

    /// The safetensors file to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,

    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: ComputeDevice,

    /// What matrix products and convolutions are computed in
    #[arg(long, value_enum, default_value_t = Dtype::Fp32)]
    dtype: Dtype,

    /// Rate of stochastic depth in training, of the last block
    #[arg(long, value_name = "RATE", default_value_t = 0.0)]
    drop_path: f64,

    /// Rate of dropout on the pooled features in training
    #[arg(long, value_name = "RATE", default_value_t = 0.0)]
    drop_rate: f64,

    /// Of initial weights and of what is dropped
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Hidden size of the LSTM in each direction [default: the weights'; without weights that of its input]
    #[arg(long, value_name = "D")]
    lstm_hidden: Option<u64>,

    /// Images that stage 3 brings its sequences to [default: the weights'; 192 without]
    #[arg(long, value_name = "S")]
    max_images: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Dtype {
    Fp32,
    Bf16,
    Fp16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Running statistics, nothing dropped
    Eval,
    /// The batch's statistics; the running ones are written as state.<name>
    Train,
}

#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    model: Model,

    #[arg(long, value_enum, default_value_t = Mode::Eval)]
    mode: Mode,

    /// Write intermediate maps too, as taps.<timm's name of the module>
    #[arg(long)]
    taps: bool,

    /// Print what was written as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Rule {
    Adamw,
    Sgd,
    Lamb,
}

#[derive(Debug, Args)]
pub struct Step {
    #[command(flatten)]
    model: Model,

    /// What the model shall say, in safetensors
    #[arg(long, value_name = "FILE")]
    targets: PathBuf,

    /// Updates
    #[arg(long, value_name = "N", default_value_t = 1)]
    steps: u64,

    /// Micro-batches of an update
    #[arg(long, value_name = "A", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    accumulation: u64,

    #[arg(long, value_enum, default_value_t = Rule::Adamw)]
    optimizer: Rule,

    /// Constant over the updates
    #[arg(long, value_name = "RATE", default_value_t = 3e-4)]
    learning_rate: f64,

    /// Of the backbone [default: --learning-rate]
    #[arg(long, value_name = "RATE")]
    backbone_learning_rate: Option<f64>,

    #[arg(long, value_name = "DECAY", default_value_t = 5e-4)]
    weight_decay: f64,

    /// Let biases and norms decay too
    #[arg(long)]
    decay_all: bool,

    /// Nesterov's, with --optimizer sgd
    #[arg(long, default_value_t = 0.9)]
    momentum: f64,

    /// Scale gradients down to this L2 norm
    #[arg(long, value_name = "NORM")]
    clip_norm: Option<f64>,

    /// Decay of a moving average of the weights, which then is what is written as final.<name>
    #[arg(long, value_name = "DECAY")]
    ema: Option<f64>,

    /// Lay images and kernels out with their channels last
    #[arg(long)]
    channels_last: bool,

    /// Keep no activations of the backbone's blocks; compute them anew in the backward pass
    #[arg(long)]
    gradient_checkpointing: bool,

    /// Where the loss scale of fp16 begins [default: 65536]
    #[arg(long, value_name = "SCALE")]
    loss_scale: Option<f64>,

    /// Print losses, seconds by phase and peak memory as JSON
    #[arg(long)]
    pub json: bool,
}

impl Model {
    fn spec(&self) -> ModelSpec {
        ModelSpec {
            name: self.arch.clone(),
            weights: self.weights.clone(),
            allow_non_finite: self.allow_non_finite,
            input: self.input.clone(),
            output: self.output.clone(),
            device: self.device,
            precision: match self.dtype {
                Dtype::Fp32 => Precision::Fp32,
                Dtype::Bf16 => Precision::Bf16,
                Dtype::Fp16 => Precision::Fp16,
            },
            drop_path: self.drop_path,
            drop_rate: self.drop_rate,
            seed: self.seed,
            lstm_hidden: self.lstm_hidden,
            max_images: self.max_images,
        }
    }
}

impl Run {
    pub fn output(&self) -> &Path {
        &self.model.output
    }

    pub fn request(&self) -> ModelRequest {
        ModelRequest::Run {
            model: self.model.spec(),
            pass: PassSpec {
                train: self.mode == Mode::Train,
                taps: self.taps,
            },
        }
    }
}

impl Step {
    pub fn output(&self) -> &Path {
        &self.model.output
    }

    pub fn request(&self) -> anyhow::Result<ModelRequest> {
        for (flag, value, good) in [
            ("--learning-rate", Some(self.learning_rate), 0.0..=100.0),
            (
                "--backbone-learning-rate",
                self.backbone_learning_rate,
                0.0..=100.0,
            ),
            ("--weight-decay", Some(self.weight_decay), 0.0..=10.0),
            ("--momentum", Some(self.momentum), 0.0..=1.0),
            ("--clip-norm", self.clip_norm, 1e-6..=1e9),
            ("--ema", self.ema, 0.0..=1.0),
            ("--loss-scale", self.loss_scale, 1e-6..=1e30),
        ] {
            if let Some(value) = value.filter(|value| !good.contains(value)) {
                return Err(exit::wrong_use(format!(
                    "{flag} is {value}: write a value from {} to {}",
                    good.start(),
                    good.end()
                )));
            }
        }
        Ok(ModelRequest::Step {
            model: self.model.spec(),
            step: StepSpec {
                targets: self.targets.clone(),
                steps: self.steps,
                accumulation: self.accumulation,
                optimization: Optimization {
                    optimizer: match self.optimizer {
                        Rule::Adamw => Optimizer::AdamW,
                        Rule::Sgd => Optimizer::Sgd {
                            momentum: self.momentum,
                        },
                        Rule::Lamb => Optimizer::Lamb,
                    },
                    learning_rate: self.learning_rate,
                    backbone_learning_rate: self.backbone_learning_rate,
                    weight_decay: self.weight_decay,
                    decay_all: self.decay_all,
                    warmup: 0.0,
                    schedule: Schedule::Cosine,
                    clip_norm: self.clip_norm,
                    ema: self.ema,
                },
                channels_last: self.channels_last,
                gradient_checkpointing: self.gradient_checkpointing,
                loss_scale: self.loss_scale,
            },
        })
    }
}
