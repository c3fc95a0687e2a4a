//! Squeeze-and-excitation (Hu et al., arXiv:1709.01507): channels weighted by what the whole map shows.

use tch::Tensor;
use tch::nn::Path;

use crate::error::Result;
use crate::layer::{Conv2d, ConvConfig, ConvInit};

/// The two families differ in the layers' names, the activation between them and the initial values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SqueezeNames {
    /// `fc1`, ReLU, `fc2`
    ResNet,
    /// `conv_reduce`, SiLU, `conv_expand`
    EfficientNet,
}

#[derive(Debug)]
pub(crate) struct SqueezeExcite {
    reduce: Conv2d,
    expand: Conv2d,
    names: SqueezeNames,
}

impl SqueezeExcite {
    /// `squeezed`: channels between the two layers.
    pub fn new(path: &Path, channels: i64, squeezed: i64, names: SqueezeNames) -> Result<Self> {
        let (reduce, expand, init) = match names {
            SqueezeNames::ResNet => ("fc1", "fc2", ConvInit::ResNet),
            SqueezeNames::EfficientNet => ("conv_reduce", "conv_expand", ConvInit::EfficientNet),
        };
        let config = ConvConfig {
            bias: true,
            init,
            ..ConvConfig::default()
        };
        Ok(SqueezeExcite {
            reduce: Conv2d::new(&(path / reduce), channels, squeezed, config)?,
            expand: Conv2d::new(&(path / expand), squeezed, channels, config)?,
            names,
        })
    }

    /// (B, C, H, W) -> the same
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let squeezed = x.f_mean_dim(&[2i64, 3][..], true, None)?; // (B, C, 1, 1)
        let mut hidden = self.reduce.forward(&squeezed)?;
        let hidden = match self.names {
            SqueezeNames::ResNet => hidden.f_relu_()?,
            SqueezeNames::EfficientNet => hidden.f_silu_()?,
        };
        Ok(x.f_mul(&self.expand.forward(&hidden)?.f_sigmoid()?)?)
    }
}
