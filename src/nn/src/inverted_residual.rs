//! The blocks of EfficientNets: inverted residuals (Sandler et al., arXiv:1801.04381) and their relatives.

use tch::Tensor;
use tch::nn::Path;

use crate::block::Block;
use crate::drop::drop_path;
use crate::error::Result;
use crate::layer::{BatchNorm2d, Conv2d, ConvConfig, ConvInit};
use crate::pass::Pass;
use crate::squeeze::{SqueezeExcite, SqueezeNames};

/// Channels of squeeze-and-excitation, as a share of the block's input.
const SQUEEZE: f64 = 0.25;

/// One block's place in the network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MbSpec {
    pub input: i64,
    pub output: i64,
    pub kernel: i64,
    pub stride: i64,
    /// Channels inside the block, by its input's.
    pub expansion: i64,
    pub drop_path: f64,
}

impl MbSpec {
    fn inner(&self) -> i64 {
        self.input * self.expansion
    }

    /// A block that changes neither size nor channels adds its input to its output.
    fn has_shortcut(&self) -> bool {
        self.stride == 1 && self.input == self.output
    }

    fn squeeze(&self, path: &Path) -> Result<SqueezeExcite> {
        // Rounded half to even, as Python does.
        let ratio = SQUEEZE / self.expansion as f64;
        let squeezed = (self.inner() as f64 * ratio).round_ties_even() as i64;
        SqueezeExcite::new(
            &(path / "se"),
            self.inner(),
            squeezed,
            SqueezeNames::EfficientNet,
        )
    }

    fn close(&self, y: Tensor, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        match self.has_shortcut() {
            true => Ok(drop_path(y, self.drop_path, pass)?.f_add_(x)?),
            false => Ok(y),
        }
    }
}

/// A convolution and its batch normalisation.
#[derive(Debug)]
pub(crate) struct ConvNorm {
    conv: Conv2d,
    bn: BatchNorm2d,
}

impl ConvNorm {
    pub fn new(
        path: &Path,
        names: (&str, &str),
        input: i64,
        output: i64,
        kernel: i64,
        stride: i64,
    ) -> Result<Self> {
        Self::grouped(path, names, (input, output), (kernel, stride), 1)
    }

    fn depthwise(
        path: &Path,
        names: (&str, &str),
        channels: i64,
        kernel: i64,
        stride: i64,
    ) -> Result<Self> {
        Self::grouped(
            path,
            names,
            (channels, channels),
            (kernel, stride),
            channels,
        )
    }

    fn grouped(
        path: &Path,
        (conv, bn): (&str, &str),
        (input, output): (i64, i64),
        (kernel, stride): (i64, i64),
        groups: i64,
    ) -> Result<Self> {
        let config = ConvConfig {
            kernel,
            stride,
            groups,
            bias: false,
            init: ConvInit::EfficientNet,
        };
        Ok(ConvNorm {
            conv: Conv2d::new(&(path / conv), input, output, config)?,
            bn: BatchNorm2d::new(&(path / bn), output)?,
        })
    }

    /// Without an activation. (B, C, H, W) -> (B, C', H/stride, W/stride)
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        self.bn.forward(&self.conv.forward(x)?, pass)
    }
}

/// Depthwise convolution, squeeze-and-excitation, 1x1.
#[derive(Debug)]
pub(crate) struct DepthwiseSeparable {
    depthwise: ConvNorm,
    se: SqueezeExcite,
    project: ConvNorm,
    spec: MbSpec,
}

impl DepthwiseSeparable {
    pub fn new(path: &Path, spec: MbSpec) -> Result<Self> {
        let MbSpec {
            input,
            output,
            kernel,
            stride,
            ..
        } = spec;
        Ok(DepthwiseSeparable {
            depthwise: ConvNorm::depthwise(path, ("conv_dw", "bn1"), input, kernel, stride)?,
            se: spec.squeeze(path)?,
            project: ConvNorm::new(path, ("conv_pw", "bn2"), input, output, 1, 1)?,
            spec,
        })
    }
}

impl Block for DepthwiseSeparable {
    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let y = self.depthwise.forward(x, pass)?.f_silu_()?;
        let y = self.project.forward(&self.se.forward(&y)?, pass)?;
        self.spec.close(y, x, pass)
    }
}

/// MBConv: 1x1 expand, depthwise, squeeze-and-excitation, 1x1 project.
#[derive(Debug)]
pub(crate) struct InvertedResidual {
    expand: ConvNorm,
    depthwise: ConvNorm,
    se: SqueezeExcite,
    project: ConvNorm,
    spec: MbSpec,
}

impl InvertedResidual {
    pub fn new(path: &Path, spec: MbSpec) -> Result<Self> {
        let (inner, kernel, stride) = (spec.inner(), spec.kernel, spec.stride);
        Ok(InvertedResidual {
            expand: ConvNorm::new(path, ("conv_pw", "bn1"), spec.input, inner, 1, 1)?,
            depthwise: ConvNorm::depthwise(path, ("conv_dw", "bn2"), inner, kernel, stride)?,
            se: spec.squeeze(path)?,
            project: ConvNorm::new(path, ("conv_pwl", "bn3"), inner, spec.output, 1, 1)?,
            spec,
        })
    }
}

impl Block for InvertedResidual {
    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let y = self.expand.forward(x, pass)?.f_silu_()?;
        let y = self.depthwise.forward(&y, pass)?.f_silu_()?;
        let y = self.project.forward(&self.se.forward(&y)?, pass)?;
        self.spec.close(y, x, pass)
    }
}

/// Fused-MBConv: a full convolution that expands and carries the stride, 1x1 project.
#[derive(Debug)]
pub(crate) struct EdgeResidual {
    expand: ConvNorm,
    project: ConvNorm,
    spec: MbSpec,
}

impl EdgeResidual {
    pub fn new(path: &Path, spec: MbSpec) -> Result<Self> {
        let (inner, kernel, stride) = (spec.inner(), spec.kernel, spec.stride);
        let expand = ("conv_exp", "bn1");
        Ok(EdgeResidual {
            expand: ConvNorm::new(path, expand, spec.input, inner, kernel, stride)?,
            project: ConvNorm::new(path, ("conv_pwl", "bn2"), inner, spec.output, 1, 1)?,
            spec,
        })
    }
}

impl Block for EdgeResidual {
    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let y = self.expand.forward(x, pass)?.f_silu_()?;
        let y = self.project.forward(&y, pass)?;
        self.spec.close(y, x, pass)
    }
}
