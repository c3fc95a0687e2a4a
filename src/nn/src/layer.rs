//! Convolution, batch normalisation and linear layers with PyTorch's names and initial values.

use tch::nn::init::{FanInOut, NonLinearity, NormalOrUniform};
use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

use crate::error::{NnError, Result};
use crate::pass::{Norm, Pass};

const MOMENTUM: f64 = 0.1;
const EPS: f64 = 1e-5;

/// How timm draws a convolution's initial values, by family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ConvInit {
    /// ResNets: normal with variance 2 / fan out over all groups (He et al., arXiv:1502.01852); biases are PyTorch's.
    #[default]
    ResNet,
    /// EfficientNets: normal with variance 2 / fan out of one group, as in TensorFlow's original; biases are 0.
    EfficientNet,
}

impl ConvInit {
    fn weight(self, output: i64, config: ConvConfig) -> Init {
        match self {
            ConvInit::ResNet => Init::Kaiming {
                dist: NormalOrUniform::Normal,
                fan: FanInOut::FanOut,
                non_linearity: NonLinearity::ReLU,
            },
            ConvInit::EfficientNet => {
                let fan_out = config.kernel * config.kernel * output / config.groups;
                Init::Randn {
                    mean: 0.0,
                    stdev: (2.0 / fan_out as f64).sqrt(),
                }
            }
        }
    }

    fn bias(self, fan_in: i64) -> Init {
        match self {
            ConvInit::ResNet => uniform(fan_in),
            ConvInit::EfficientNet => Init::Const(0.0),
        }
    }
}

/// The settings of a convolution that differ from layer to layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConvConfig {
    pub kernel: i64,
    pub stride: i64,
    pub groups: i64,
    pub bias: bool,
    pub init: ConvInit,
}

impl Default for ConvConfig {
    fn default() -> Self {
        ConvConfig {
            kernel: 1,
            stride: 1,
            groups: 1,
            bias: false,
            init: ConvInit::ResNet,
        }
    }
}

/// A square convolution of odd size, padded so that stride 1 keeps the map's size.
#[derive(Debug)]
pub(crate) struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    config: ConvConfig,
}

impl Conv2d {
    pub fn new(path: &Path, input: i64, output: i64, config: ConvConfig) -> Result<Self> {
        let ConvConfig {
            kernel,
            groups,
            init,
            ..
        } = config;
        let fan_in = input / groups * kernel * kernel;
        let shape = [output, input / groups, kernel, kernel];
        let weight = path.f_var("weight", &shape, init.weight(output, config))?;
        let bias = config
            .bias
            .then(|| path.f_var("bias", &[output], init.bias(fan_in)))
            .transpose()?;
        Ok(Conv2d {
            weight,
            bias,
            config,
        })
    }

    /// (B, C, H, W) -> (B, C', H', W')
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let ConvConfig {
            kernel,
            stride,
            groups,
            ..
        } = self.config;
        let padding = (kernel - 1) / 2;
        Ok(x.f_conv2d(&self.weight, self.bias.as_ref(), stride, padding, 1, groups)?)
    }
}

/// PyTorch's default for biases and linear weights: uniform in +-1/sqrt(fan in).
pub(crate) fn uniform(fan_in: i64) -> Init {
    let bound = 1.0 / (fan_in as f64).sqrt();
    Init::Uniform {
        lo: -bound,
        up: bound,
    }
}

/// Batch normalisation over (B, H, W); eps 1e-5, momentum 0.1.
#[derive(Debug)]
pub(crate) struct BatchNorm2d {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    num_batches_tracked: Tensor,
}

impl BatchNorm2d {
    pub fn new(path: &Path, channels: i64) -> Result<Self> {
        Self::with_weight(path, channels, 1.0)
    }

    /// The last norm of a residual block starts at weight 0, so that the block starts as identity.
    pub fn zero_init(path: &Path, channels: i64) -> Result<Self> {
        Self::with_weight(path, channels, 0.0)
    }

    fn with_weight(path: &Path, channels: i64, weight: f64) -> Result<Self> {
        let count = Tensor::f_zeros([0i64; 0], (Kind::Int64, path.device()))?;
        Ok(BatchNorm2d {
            weight: path.f_var("weight", &[channels], Init::Const(weight))?,
            bias: path.f_zeros("bias", &[channels])?,
            running_mean: path.f_zeros_no_train("running_mean", &[channels])?,
            running_var: path.f_ones_no_train("running_var", &[channels])?,
            num_batches_tracked: path.add("num_batches_tracked", count, false),
        })
    }

    /// (B, C, H, W) -> the same; in training it normalises by the batch and moves the statistics.
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let moves = pass.train && !pass.statistics_stay;
        if moves {
            let _ = self.num_batches_tracked.shallow_clone().f_add_scalar_(1)?;
        }
        let running = (moves || !pass.train).then_some((&self.running_mean, &self.running_var));
        if let Some(norm) = pass.norm.as_ref().filter(|_| pass.train) {
            return norm.batch_norm(
                x,
                &Norm {
                    weight: &self.weight,
                    bias: &self.bias,
                    running,
                    momentum: MOMENTUM,
                    eps: EPS,
                },
            );
        }
        let (batch, channels, height, width) = x.size4()?;
        if pass.train && batch * height * width < 2 {
            return Err(NnError::OneValue { channels });
        }
        Ok(x.f_batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            running.map(|(mean, _)| mean),
            running.map(|(_, var)| var),
            pass.train,
            MOMENTUM,
            EPS,
            true,
        )?)
    }
}

/// y = x W^T + b
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    pub fn new(path: &Path, input: i64, output: i64) -> Result<Self> {
        Ok(Linear {
            weight: path.f_var("weight", &[output, input], uniform(input))?,
            bias: path.f_var("bias", &[output], uniform(input))?,
        })
    }

    /// (..., input) -> (..., output)
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_linear(&self.weight, Some(&self.bias))?)
    }
}
