//! The bottleneck blocks of the ResNet family: 1x1 reduce, 3x3, 1x1 expand, around a shortcut.

use tch::Tensor;
use tch::nn::Path;

use crate::block::Block;
use crate::drop::drop_path;
use crate::error::Result;
use crate::layer::{BatchNorm2d, Conv2d, ConvConfig};
use crate::pass::Pass;
use crate::resnet::{BlockSpec, Downsample};
use crate::split_attention::SplitAttention;
use crate::squeeze::{SqueezeExcite, SqueezeNames};

/// Groups of SE-ResNeXt's 3x3 convolution, and their width at 64 planes ("32x4d").
const CARDINALITY: i64 = 32;
const GROUP_WIDTH: i64 = 4;

/// ResNeSt's (Zhang et al., "ResNeSt: Split-Attention Networks", arXiv:2004.08955): the 3x3 is a split attention, and a
/// block's stride is an average pool after it ("avd").
#[derive(Debug)]
pub(crate) struct ResNestBottleneck {
    conv1: Conv2d,
    bn1: BatchNorm2d,
    conv2: SplitAttention,
    /// Stride of the pool.
    pool: Option<i64>,
    conv3: Conv2d,
    bn3: BatchNorm2d,
    downsample: Option<Downsample>,
    drop_path: f64,
}

impl ResNestBottleneck {
    pub fn new(path: &Path, spec: BlockSpec) -> Result<Self> {
        let (planes, output) = (spec.planes, spec.output());
        let one = ConvConfig::default();
        Ok(ResNestBottleneck {
            conv1: Conv2d::new(&(path / "conv1"), spec.input, planes, one)?,
            bn1: BatchNorm2d::new(&(path / "bn1"), planes)?,
            conv2: SplitAttention::new(&(path / "conv2"), planes)?,
            pool: (spec.stride > 1).then_some(spec.stride),
            conv3: Conv2d::new(&(path / "conv3"), planes, output, one)?,
            bn3: BatchNorm2d::zero_init(&(path / "bn3"), output)?,
            downsample: Downsample::where_needed(path, spec)?,
            drop_path: spec.drop_path,
        })
    }
}

impl Block for ResNestBottleneck {
    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let mut y = self.bn1.forward(&self.conv1.forward(x)?, pass)?.f_relu_()?;
        y = self.conv2.forward(&y, pass)?;
        if let Some(stride) = self.pool {
            y = y.f_avg_pool2d(3, stride, 1, false, true, None)?;
        }
        y = self.bn3.forward(&self.conv3.forward(&y)?, pass)?;
        // As timm does it, the shortcut's convolution is what a path is dropped from, not the branch:
        // docs/decisions/0013-drop-path-of-resnest.md
        // Numbers are drawn in every block, as what is drawn later depends on it.
        let dropped = drop_path(x.shallow_clone(), self.drop_path, pass)?;
        let shortcut = match &self.downsample {
            Some(downsample) => downsample.forward(&dropped, pass)?,
            None => x.shallow_clone(),
        };
        Ok(y.f_add_(&shortcut)?.f_relu_()?)
    }
}

/// SE-ResNeXt's (Xie et al., arXiv:1611.05431; Hu et al., arXiv:1709.01507): a grouped 3x3 that carries the stride, and
/// squeeze-and-excitation after the expansion.
#[derive(Debug)]
pub(crate) struct SeResNextBottleneck {
    conv1: Conv2d,
    bn1: BatchNorm2d,
    conv2: Conv2d,
    bn2: BatchNorm2d,
    conv3: Conv2d,
    bn3: BatchNorm2d,
    se: SqueezeExcite,
    downsample: Option<Downsample>,
    drop_path: f64,
}

impl SeResNextBottleneck {
    pub fn new(path: &Path, spec: BlockSpec) -> Result<Self> {
        let output = spec.output();
        let width = spec.planes * GROUP_WIDTH / 64 * CARDINALITY;
        let one = ConvConfig::default();
        let grouped = ConvConfig {
            kernel: 3,
            stride: spec.stride,
            groups: CARDINALITY,
            ..one
        };
        // A sixteenth, rounded to a multiple of 8, which all widths here already are.
        let squeezed = output / 16;
        Ok(SeResNextBottleneck {
            conv1: Conv2d::new(&(path / "conv1"), spec.input, width, one)?,
            bn1: BatchNorm2d::new(&(path / "bn1"), width)?,
            conv2: Conv2d::new(&(path / "conv2"), width, width, grouped)?,
            bn2: BatchNorm2d::new(&(path / "bn2"), width)?,
            conv3: Conv2d::new(&(path / "conv3"), width, output, one)?,
            bn3: BatchNorm2d::zero_init(&(path / "bn3"), output)?,
            se: SqueezeExcite::new(&(path / "se"), output, squeezed, SqueezeNames::ResNet)?,
            downsample: Downsample::where_needed(path, spec)?,
            drop_path: spec.drop_path,
        })
    }
}

impl Block for SeResNextBottleneck {
    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let mut y = self.bn1.forward(&self.conv1.forward(x)?, pass)?.f_relu_()?;
        y = self
            .bn2
            .forward(&self.conv2.forward(&y)?, pass)?
            .f_relu_()?;
        y = self.bn3.forward(&self.conv3.forward(&y)?, pass)?;
        y = drop_path(self.se.forward(&y)?, self.drop_path, pass)?;
        let shortcut = match &self.downsample {
            Some(downsample) => downsample.forward(x, pass)?,
            None => x.shallow_clone(),
        };
        Ok(y.f_add_(&shortcut)?.f_relu_()?)
    }
}
