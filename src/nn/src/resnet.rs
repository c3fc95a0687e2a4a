//! The ResNet family as timm builds it: a stem, four stages of bottleneck blocks, each stage but the first halving the map.

use std::rc::Rc;

use tch::Tensor;
use tch::nn::Path;

use crate::block::{self, Block};
use crate::bottleneck::{ResNestBottleneck, SeResNextBottleneck};
use crate::error::Result;
use crate::layer::{BatchNorm2d, Conv2d, ConvConfig};
use crate::pass::Pass;

/// Channels that a bottleneck gives out, by its planes.
pub(crate) const EXPANSION: i64 = 4;

/// Channels after the stem.
const STEM_OUT: i64 = 64;

/// What differs between the architectures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResNetConfig {
    /// Blocks in each of the four stages.
    pub blocks: [usize; 4],
    pub stem: Stem,
    pub bottleneck: BottleneckKind,
    /// The shortcut's change of size is an average pool and a 1x1 convolution, not a strided convolution ("d" in the names).
    pub average_down: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stem {
    /// One 7x7 convolution.
    Single,
    /// Three 3x3 convolutions of 32, 32 and 64 channels.
    Deep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BottleneckKind {
    ResNest,
    SeResNext,
}

/// The network up to its last feature map.
#[derive(Debug)]
pub(crate) struct ResNet {
    stem: Vec<(Conv2d, BatchNorm2d)>,
    /// By stage.
    blocks: [Vec<Rc<dyn Block>>; 4],
}

impl ResNet {
    /// `drop_path`: the rate of the last block; earlier ones have less, in proportion to their place.
    pub fn new(path: &Path, config: ResNetConfig, in_chans: i64, drop_path: f64) -> Result<Self> {
        let stem = match config.stem {
            Stem::Single => single_stem(path, in_chans)?,
            Stem::Deep => deep_stem(path, in_chans)?,
        };
        let total: usize = config.blocks.iter().sum();
        let (mut channels, mut place) = (STEM_OUT, 0);
        let mut blocks: [Vec<Rc<dyn Block>>; 4] = Default::default();
        for (stage, count) in config.blocks.into_iter().enumerate() {
            let stage_path = path / format!("layer{}", stage + 1);
            for i in 0..count {
                let spec = BlockSpec {
                    input: channels,
                    planes: 64 << stage,
                    stride: if stage > 0 && i == 0 { 2 } else { 1 },
                    average_down: config.average_down,
                    drop_path: drop_path * place as f64 / (total - 1) as f64,
                };
                let path = &stage_path / i;
                blocks[stage].push(match config.bottleneck {
                    BottleneckKind::ResNest => Rc::new(ResNestBottleneck::new(&path, spec)?),
                    BottleneckKind::SeResNext => Rc::new(SeResNextBottleneck::new(&path, spec)?),
                });
                channels = spec.output();
                place += 1;
            }
        }
        Ok(ResNet { stem, blocks })
    }

    /// F: channels of the last feature map.
    pub fn features(&self) -> i64 {
        512 * EXPANSION
    }

    /// (B, C, H, W) -> (B, F, H/32, W/32)
    pub fn forward(&self, image: &Tensor, pass: &Pass) -> Result<Tensor> {
        let mut x = image.shallow_clone();
        for (conv, bn) in &self.stem {
            x = bn.forward(&conv.forward(&x)?, pass)?.f_relu_()?;
        }
        pass.tap(|| "act1".into(), &x)?;
        x = x.f_max_pool2d(3, 2, 1, 1, false)?; // (B, 64, H/4, W/4)
        pass.tap(|| "maxpool".into(), &x)?;
        for (stage, blocks) in self.blocks.iter().enumerate() {
            for block in blocks {
                x = block::run(block, &x, pass)?;
            }
            pass.tap(|| format!("layer{}", stage + 1), &x)?;
        }
        Ok(x)
    }
}

fn single_stem(path: &Path, in_chans: i64) -> Result<Vec<(Conv2d, BatchNorm2d)>> {
    let conv = ConvConfig {
        kernel: 7,
        stride: 2,
        ..ConvConfig::default()
    };
    Ok(vec![(
        Conv2d::new(&(path / "conv1"), in_chans, STEM_OUT, conv)?,
        BatchNorm2d::new(&(path / "bn1"), STEM_OUT)?,
    )])
}

fn deep_stem(path: &Path, in_chans: i64) -> Result<Vec<(Conv2d, BatchNorm2d)>> {
    let width = STEM_OUT / 2;
    let conv = |stride| ConvConfig {
        kernel: 3,
        stride,
        ..ConvConfig::default()
    };
    let stem = path / "conv1";
    Ok(vec![
        (
            Conv2d::new(&(&stem / 0), in_chans, width, conv(2))?,
            BatchNorm2d::new(&(&stem / 1), width)?,
        ),
        (
            Conv2d::new(&(&stem / 3), width, width, conv(1))?,
            BatchNorm2d::new(&(&stem / 4), width)?,
        ),
        (
            Conv2d::new(&(&stem / 6), width, STEM_OUT, conv(1))?,
            BatchNorm2d::new(&(path / "bn1"), STEM_OUT)?,
        ),
    ])
}

/// One block's place in the network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockSpec {
    pub input: i64,
    pub planes: i64,
    pub stride: i64,
    pub average_down: bool,
    pub drop_path: f64,
}

impl BlockSpec {
    pub fn output(&self) -> i64 {
        self.planes * EXPANSION
    }
}

/// The shortcut's change of size, where block's input and output differ.
#[derive(Debug)]
pub(crate) struct Downsample {
    /// Stride of an average pool before the convolution.
    pool: Option<i64>,
    conv: Conv2d,
    bn: BatchNorm2d,
}

impl Downsample {
    /// `path`: the block's.
    pub fn where_needed(path: &Path, spec: BlockSpec) -> Result<Option<Self>> {
        let (input, output, stride) = (spec.input, spec.output(), spec.stride);
        if stride == 1 && input == output {
            return Ok(None);
        }
        let path = path / "downsample";
        let pooled = spec.average_down;
        // timm counts the pool as the first module of three, also where its stride is 1 and it is left out.
        let (conv, bn) = if pooled { (1, 2) } else { (0, 1) };
        let config = ConvConfig {
            stride: if pooled { 1 } else { stride },
            ..ConvConfig::default()
        };
        Ok(Some(Downsample {
            pool: (pooled && stride > 1).then_some(stride),
            conv: Conv2d::new(&(&path / conv), input, output, config)?,
            bn: BatchNorm2d::new(&(&path / bn), output)?,
        }))
    }

    /// (B, C, H, W) -> (B, C', H/stride, W/stride)
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let pooled = match self.pool {
            None => x.shallow_clone(),
            Some(stride) => x.f_avg_pool2d(2, stride, 0, true, false, None)?,
        };
        self.bn.forward(&self.conv.forward(&pooled)?, pass)
    }
}
