//! EfficientNet (Tan and Le, arXiv:1905.11946) and EfficientNetV2 (arXiv:2104.00298) as timm builds them: a stem, stages of
//! inverted residuals, a 1x1 head; SiLU throughout.

use std::rc::Rc;

use tch::Tensor;
use tch::nn::Path;

use crate::block::{self, Block};
use crate::error::Result;
use crate::inverted_residual::{
    ConvNorm, DepthwiseSeparable, EdgeResidual, InvertedResidual, MbSpec,
};
use crate::pass::Pass;

/// What differs between the architectures, before scaling.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EfficientNetConfig {
    pub stages: &'static [MbStage],
    pub stem: i64,
    /// F, before scaling.
    pub features: i64,
    /// Factor on all channels.
    pub width: f64,
    /// Factor on the blocks of each stage.
    pub depth: &'static [f64],
}

/// A stage of equal blocks, of which the first may change channels and size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MbStage {
    pub kind: MbKind,
    pub blocks: usize,
    pub kernel: i64,
    pub stride: i64,
    pub expansion: i64,
    pub channels: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MbKind {
    /// Depthwise, squeeze-and-excitation, 1x1.
    DepthwiseSeparable,
    /// 1x1 expand, depthwise, squeeze-and-excitation, 1x1 project (MBConv).
    Inverted,
    /// Full convolution that expands, 1x1 project (Fused-MBConv).
    Edge,
}

/// Rounds to a multiple of 8, but never down by more than a tenth.
fn round_channels(channels: i64, width: f64) -> i64 {
    let wanted = channels as f64 * width;
    let rounded = (((wanted + 4.0) as i64) / 8 * 8).max(8);
    match (rounded as f64) < 0.9 * wanted {
        true => rounded + 8,
        false => rounded,
    }
}

/// The network up to its last feature map.
#[derive(Debug)]
pub(crate) struct EfficientNet {
    stem: ConvNorm,
    /// By stage.
    blocks: Vec<Vec<Rc<dyn Block>>>,
    head: ConvNorm,
    features: i64,
}

impl EfficientNet {
    /// `drop_path`: each block's rate grows with its place, from 0 towards this one.
    pub fn new(
        path: &Path,
        config: EfficientNetConfig,
        in_chans: i64,
        drop_path: f64,
    ) -> Result<Self> {
        let scaled = |channels| round_channels(channels, config.width);
        let counts: Vec<usize> = config
            .stages
            .iter()
            .zip(config.depth)
            .map(|(stage, depth)| (stage.blocks as f64 * depth).ceil() as usize)
            .collect();
        let total: usize = counts.iter().sum();
        let mut channels = scaled(config.stem);
        let stem = ConvNorm::new(path, ("conv_stem", "bn1"), in_chans, channels, 3, 2)?;
        let (mut blocks, mut place) = (Vec::new(), 0);
        for (index, (stage, count)) in config.stages.iter().zip(counts).enumerate() {
            let stage_path = path / "blocks" / index;
            let mut built: Vec<Rc<dyn Block>> = Vec::new();
            for i in 0..count {
                let spec = MbSpec {
                    input: channels,
                    output: scaled(stage.channels),
                    kernel: stage.kernel,
                    stride: if i == 0 { stage.stride } else { 1 },
                    expansion: stage.expansion,
                    drop_path: drop_path * place as f64 / total as f64,
                };
                let path = &stage_path / i;
                built.push(match stage.kind {
                    MbKind::DepthwiseSeparable => Rc::new(DepthwiseSeparable::new(&path, spec)?),
                    MbKind::Inverted => Rc::new(InvertedResidual::new(&path, spec)?),
                    MbKind::Edge => Rc::new(EdgeResidual::new(&path, spec)?),
                });
                channels = spec.output;
                place += 1;
            }
            blocks.push(built);
        }
        let features = scaled(config.features);
        Ok(EfficientNet {
            stem,
            blocks,
            head: ConvNorm::new(path, ("conv_head", "bn2"), channels, features, 1, 1)?,
            features,
        })
    }

    /// F: channels of the last feature map.
    pub fn features(&self) -> i64 {
        self.features
    }

    /// (B, C, H, W) -> (B, F, H/32, W/32)
    pub fn forward(&self, image: &Tensor, pass: &Pass) -> Result<Tensor> {
        let mut x = self.stem.forward(image, pass)?.f_silu_()?;
        pass.tap(|| "bn1".into(), &x)?;
        for (stage, blocks) in self.blocks.iter().enumerate() {
            for block in blocks {
                x = block::run(block, &x, pass)?;
            }
            pass.tap(|| format!("blocks.{stage}"), &x)?;
        }
        x = self.head.forward(&x, pass)?.f_silu_()?;
        pass.tap(|| "bn2".into(), &x)?;
        Ok(x)
    }
}

#[cfg(test)]
mod tests {
    use super::round_channels;

    /// >>> timm.models._efficientnet_builder.round_channels(c, 1.2) for c in (24, 48, 64, 128, 160, 272, 1792)
    #[test]
    fn channels_are_rounded_to_multiples_of_eight() {
        let channels = [24, 48, 64, 128, 160, 272, 1792].map(|c| round_channels(c, 1.2));
        assert_eq!(channels, [32, 56, 80, 152, 192, 328, 2152]);
        assert_eq!(round_channels(24, 1.0), 24);
    }
}
