//! Split attention (Zhang et al., arXiv:2004.08955, section 3.1), with one cardinal group.

use tch::Tensor;
use tch::nn::Path;

use crate::error::Result;
use crate::layer::{BatchNorm2d, Conv2d, ConvConfig};
use crate::pass::Pass;

const RADIX: i64 = 2;
/// Width of the attention's hidden layer: a quarter of its input, at least this.
const MIN_ATTENTION: i64 = 32;

/// A 3x3 convolution into RADIX branches that are weighted by a softmax over the branches.
#[derive(Debug)]
pub(crate) struct SplitAttention {
    conv: Conv2d,
    bn0: BatchNorm2d,
    fc1: Conv2d,
    bn1: BatchNorm2d,
    fc2: Conv2d,
}

impl SplitAttention {
    pub fn new(path: &Path, channels: i64) -> Result<Self> {
        let wide = channels * RADIX;
        // Rounded to multiples of 8, which all widths here already are.
        let hidden = (wide / 4).max(MIN_ATTENTION);
        let conv = ConvConfig {
            kernel: 3,
            groups: RADIX,
            ..ConvConfig::default()
        };
        let fc = ConvConfig {
            bias: true,
            ..ConvConfig::default()
        };
        Ok(SplitAttention {
            conv: Conv2d::new(&(path / "conv"), channels, wide, conv)?,
            bn0: BatchNorm2d::new(&(path / "bn0"), wide)?,
            fc1: Conv2d::new(&(path / "fc1"), channels, hidden, fc)?,
            bn1: BatchNorm2d::new(&(path / "bn1"), hidden)?,
            fc2: Conv2d::new(&(path / "fc2"), hidden, wide, fc)?,
        })
    }

    /// (B, C, H, W) -> the same
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let x = self.bn0.forward(&self.conv.forward(x)?, pass)?.f_relu_()?;
        let (b, wide, h, w) = x.size4()?;
        let channels = wide / RADIX;
        let branches = x.f_reshape([b, RADIX, channels, h, w])?;
        let pooled = branches
            .f_sum_dim_intlist(&[1i64][..], false, None)?
            .f_mean_dim(&[2i64, 3][..], true, None)?; // (B, C, 1, 1)
        let hidden = self
            .bn1
            .forward(&self.fc1.forward(&pooled)?, pass)?
            .f_relu_()?;
        let weights = self
            .fc2
            .forward(&hidden)?
            .f_view([b, RADIX, channels, 1, 1])?
            .f_softmax(1, None)?;
        // In the order of x, contiguous or channels last.
        Ok(branches
            .f_mul(&weights)?
            .f_sum_dim_intlist(&[1i64][..], false, None)?)
    }
}
