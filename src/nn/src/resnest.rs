//! ResNeSt (Zhang et al., "ResNeSt: Split-Attention Networks", arXiv:2004.08955) as timm's
//! resnest14d, 26d and 50d build it: deep 3x3 stem, radix 2, average-pooled downsampling.

use tch::Tensor;
use tch::nn::Path;

use crate::error::Result;
use crate::layer::{BatchNorm2d, Conv2d, ConvConfig};

const RADIX: i64 = 2;
const STEM_WIDTH: i64 = 32;
const EXPANSION: i64 = 4;
/// Width of the attention's hidden layer: a quarter of its input, at least this.
const MIN_ATTENTION: i64 = 32;

const CONV_3X3: ConvConfig = ConvConfig {
    kernel: 3,
    stride: 1,
    groups: 1,
    bias: false,
};

/// The network up to its last feature map.
#[derive(Debug)]
pub struct ResNest {
    stem: [(Conv2d, BatchNorm2d); 3],
    blocks: Vec<Bottleneck>,
}

impl ResNest {
    /// `blocks`: residual blocks in each of the four stages.
    pub fn new(path: &Path, blocks: [usize; 4]) -> Result<Self> {
        let stem_path = path / "conv1";
        let stride_2 = ConvConfig {
            stride: 2,
            ..CONV_3X3
        };
        let stem = [
            (
                Conv2d::new(&(&stem_path / 0), 3, STEM_WIDTH, stride_2)?,
                BatchNorm2d::new(&(&stem_path / 1), STEM_WIDTH)?,
            ),
            (
                Conv2d::new(&(&stem_path / 3), STEM_WIDTH, STEM_WIDTH, CONV_3X3)?,
                BatchNorm2d::new(&(&stem_path / 4), STEM_WIDTH)?,
            ),
            (
                Conv2d::new(&(&stem_path / 6), STEM_WIDTH, 2 * STEM_WIDTH, CONV_3X3)?,
                BatchNorm2d::new(&(path / "bn1"), 2 * STEM_WIDTH)?,
            ),
        ];
        let mut channels = 2 * STEM_WIDTH;
        let mut built = Vec::new();
        for (stage, count) in blocks.into_iter().enumerate() {
            let stage_path = path / format!("layer{}", stage + 1);
            let planes = 64 << stage;
            for i in 0..count {
                let stride = if stage > 0 && i == 0 { 2 } else { 1 };
                built.push(Bottleneck::new(
                    &(&stage_path / i),
                    channels,
                    planes,
                    stride,
                )?);
                channels = planes * EXPANSION;
            }
        }
        Ok(ResNest {
            stem,
            blocks: built,
        })
    }

    /// F: channels of the last feature map.
    pub fn features(&self) -> i64 {
        512 * EXPANSION
    }

    /// (B, 3, H, W) -> (B, F, H/32, W/32)
    pub fn forward(&self, image: &Tensor, train: bool) -> Result<Tensor> {
        let mut x = image.shallow_clone();
        for (conv, bn) in &self.stem {
            x = bn.forward(&conv.forward(&x)?, train)?.f_relu_()?;
        }
        x = x.f_max_pool2d(3, 2, 1, 1, false)?; // (B, 64, H/4, W/4)
        for block in &self.blocks {
            x = block.forward(&x, train)?;
        }
        Ok(x)
    }
}

/// 1x1 reduce, 3x3 split attention, 1x1 expand, around a shortcut.
#[derive(Debug)]
struct Bottleneck {
    conv1: Conv2d,
    bn1: BatchNorm2d,
    conv2: SplitAttention,
    /// In a strided block the stride is an average pool after the attention ("avd").
    pool: bool,
    conv3: Conv2d,
    bn3: BatchNorm2d,
    downsample: Option<Downsample>,
}

impl Bottleneck {
    fn new(path: &Path, input: i64, planes: i64, stride: i64) -> Result<Self> {
        let output = planes * EXPANSION;
        let one = ConvConfig::default();
        let downsample = (stride != 1 || input != output)
            .then(|| Downsample::new(&(path / "downsample"), input, output, stride))
            .transpose()?;
        Ok(Bottleneck {
            conv1: Conv2d::new(&(path / "conv1"), input, planes, one)?,
            bn1: BatchNorm2d::new(&(path / "bn1"), planes)?,
            conv2: SplitAttention::new(&(path / "conv2"), planes)?,
            pool: stride > 1,
            conv3: Conv2d::new(&(path / "conv3"), planes, output, one)?,
            bn3: BatchNorm2d::zero_init(&(path / "bn3"), output)?,
            downsample,
        })
    }

    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let mut y = self
            .bn1
            .forward(&self.conv1.forward(x)?, train)?
            .f_relu_()?;
        y = self.conv2.forward(&y, train)?;
        if self.pool {
            y = y.f_avg_pool2d(3, 2, 1, false, true, None)?;
        }
        y = self.bn3.forward(&self.conv3.forward(&y)?, train)?;
        let shortcut = match &self.downsample {
            Some(downsample) => downsample.forward(x, train)?,
            None => x.shallow_clone(),
        };
        Ok(y.f_add(&shortcut)?.f_relu_()?)
    }
}

/// The shortcut's change of size: average pool, then a 1x1 convolution ("d" in the names).
#[derive(Debug)]
struct Downsample {
    stride: i64,
    conv: Conv2d,
    bn: BatchNorm2d,
}

impl Downsample {
    fn new(path: &Path, input: i64, output: i64, stride: i64) -> Result<Self> {
        Ok(Downsample {
            stride,
            conv: Conv2d::new(&(path / 1), input, output, ConvConfig::default())?,
            bn: BatchNorm2d::new(&(path / 2), output)?,
        })
    }

    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let pooled = match self.stride {
            1 => x.shallow_clone(),
            stride => x.f_avg_pool2d(2, stride, 0, true, false, None)?,
        };
        self.bn.forward(&self.conv.forward(&pooled)?, train)
    }
}

/// A 3x3 convolution into RADIX branches that are weighted by a softmax over the branches.
#[derive(Debug)]
struct SplitAttention {
    conv: Conv2d,
    bn0: BatchNorm2d,
    fc1: Conv2d,
    bn1: BatchNorm2d,
    fc2: Conv2d,
}

impl SplitAttention {
    fn new(path: &Path, channels: i64) -> Result<Self> {
        let wide = channels * RADIX;
        // Rounded to multiples of 8, which all widths here already are.
        let hidden = (wide / 4).max(MIN_ATTENTION);
        let conv = ConvConfig {
            groups: RADIX,
            ..CONV_3X3
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
    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let x = self.bn0.forward(&self.conv.forward(x)?, train)?.f_relu_()?;
        let (b, wide, h, w) = x.size4()?;
        let channels = wide / RADIX;
        let branches = x.f_reshape([b, RADIX, channels, h, w])?;
        let gap = branches
            .f_sum_dim_intlist(&[1i64][..], false, None)?
            .f_mean_dim(&[2i64, 3][..], true, None)?; // (B, C, 1, 1)
        let gap = self
            .bn1
            .forward(&self.fc1.forward(&gap)?, train)?
            .f_relu_()?;
        let weights = self
            .fc2
            .forward(&gap)?
            .f_view([b, RADIX, channels, 1, 1])?
            .f_softmax(1, None)?;
        Ok(branches
            .f_mul(&weights)?
            .f_sum_dim_intlist(&[1i64][..], false, None)?)
    }
}
