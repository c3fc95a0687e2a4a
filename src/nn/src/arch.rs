//! The table of backbones by timm's names. Where the blocks exist, a new one is one entry.

use tch::Tensor;
use tch::nn::Path;

use crate::drop::dropout;
use crate::efficientnet::{EfficientNet, EfficientNetConfig, MbKind, MbStage};
use crate::error::{NnError, Result};
use crate::pass::Pass;
use crate::resnet::{BottleneckKind, ResNet, ResNetConfig, Stem};

/// One architecture.
#[derive(Clone, Copy, Debug)]
pub struct Architecture {
    /// timm's.
    pub name: &'static str,
    family: Family,
}

#[derive(Clone, Copy, Debug)]
enum Family {
    ResNet(ResNetConfig),
    EfficientNet(EfficientNetConfig),
}

const ARCHITECTURES: [Architecture; 9] = [
    resnet("resnest14d", resnest([1, 1, 1, 1])),
    resnet("resnest26d", resnest([2, 2, 2, 2])),
    resnet("resnest50d", resnest([3, 4, 6, 3])),
    resnet(
        "seresnext26d_32x4d",
        ResNetConfig {
            stem: Stem::Deep,
            average_down: true,
            ..seresnext([2, 2, 2, 2])
        },
    ),
    resnet("seresnext50_32x4d", seresnext([3, 4, 6, 3])),
    efficientnet("efficientnet_b0", B, (32, 1280), 1.0, &[1.0; 7]),
    efficientnet("efficientnet_b1", B, (32, 1280), 1.0, &[1.1; 7]),
    efficientnet("efficientnetv2_rw_s", V2, (24, 1792), 1.0, &[1.0; 6]),
    efficientnet(
        "efficientnetv2_rw_m",
        V2,
        (24, 1792),
        1.2,
        &[1.2, 1.2, 1.2, 1.2, 1.6, 1.6],
    ),
];

/// Stages of EfficientNet-B0: kind, blocks, kernel, stride, expansion, channels.
const B: &[MbStage] = &[
    stage(MbKind::DepthwiseSeparable, 1, 3, 1, 1, 16),
    stage(MbKind::Inverted, 2, 3, 2, 6, 24),
    stage(MbKind::Inverted, 2, 5, 2, 6, 40),
    stage(MbKind::Inverted, 3, 3, 2, 6, 80),
    stage(MbKind::Inverted, 3, 5, 1, 6, 112),
    stage(MbKind::Inverted, 4, 5, 2, 6, 192),
    stage(MbKind::Inverted, 1, 3, 1, 6, 320),
];

/// Stages of timm's own EfficientNetV2-S, made before the official one.
const V2: &[MbStage] = &[
    stage(MbKind::Edge, 2, 3, 1, 1, 24),
    stage(MbKind::Edge, 4, 3, 2, 4, 48),
    stage(MbKind::Edge, 4, 3, 2, 4, 64),
    stage(MbKind::Inverted, 6, 3, 2, 4, 128),
    stage(MbKind::Inverted, 9, 3, 1, 6, 160),
    stage(MbKind::Inverted, 15, 3, 2, 6, 272),
];

const fn resnet(name: &'static str, config: ResNetConfig) -> Architecture {
    Architecture {
        name,
        family: Family::ResNet(config),
    }
}

const fn resnest(blocks: [usize; 4]) -> ResNetConfig {
    ResNetConfig {
        blocks,
        stem: Stem::Deep,
        bottleneck: BottleneckKind::ResNest,
        average_down: true,
    }
}

const fn seresnext(blocks: [usize; 4]) -> ResNetConfig {
    ResNetConfig {
        blocks,
        stem: Stem::Single,
        bottleneck: BottleneckKind::SeResNext,
        average_down: false,
    }
}

const fn efficientnet(
    name: &'static str,
    stages: &'static [MbStage],
    (stem, features): (i64, i64),
    width: f64,
    depth: &'static [f64],
) -> Architecture {
    Architecture {
        name,
        family: Family::EfficientNet(EfficientNetConfig {
            stages,
            stem,
            features,
            width,
            depth,
        }),
    }
}

const fn stage(
    kind: MbKind,
    blocks: usize,
    kernel: i64,
    stride: i64,
    expansion: i64,
    channels: i64,
) -> MbStage {
    MbStage {
        kind,
        blocks,
        kernel,
        stride,
        expansion,
        channels,
    }
}

impl Architecture {
    /// The architecture of that name.
    pub fn of(name: &str) -> Result<&'static Architecture> {
        let found = ARCHITECTURES.iter().find(|arch| arch.name == name);
        found.ok_or_else(|| NnError::UnknownArchitecture {
            name: name.to_owned(),
            known: architectures()
                .map(|arch| arch.name)
                .collect::<Vec<_>>()
                .join(", "),
        })
    }

    /// Whether GPUs train it faster with channels last, by timm's published rates of training in mixed precision:
    /// SE-ResNeXt gains a third, ResNeSt loses more than half.
    pub fn prefers_channels_last(&self) -> bool {
        match self.family {
            Family::ResNet(config) => config.bottleneck != BottleneckKind::ResNest,
            Family::EfficientNet(_) => true,
        }
    }
}

/// The architectures that [`Backbone::new`] knows.
pub fn architectures() -> impl Iterator<Item = &'static Architecture> {
    ARCHITECTURES.iter()
}

/// What a backbone is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct BackboneConfig {
    /// timm's name.
    pub arch: String,
    /// C, channels of an image.
    pub in_chans: i64,
    /// Rate of stochastic depth in the last block; earlier ones have less.
    pub drop_path: f64,
    /// Rate of dropout on the pooled features.
    pub drop_rate: f64,
}

impl BackboneConfig {
    /// The architecture for 3-channel images, nothing dropped.
    pub fn of(arch: &str) -> Self {
        BackboneConfig {
            arch: arch.to_owned(),
            in_chans: 3,
            drop_path: 0.0,
            drop_rate: 0.0,
        }
    }
}

/// A CNN without its classifier.
#[derive(Debug)]
pub struct Backbone {
    net: Net,
    drop_rate: f64,
}

#[derive(Debug)]
enum Net {
    ResNet(ResNet),
    EfficientNet(EfficientNet),
}

impl Backbone {
    /// Makes the architecture with timm's initial weights.
    ///
    /// # Errors
    /// `UnknownArchitecture`; `InChans` and `Rate` for values out of range.
    pub fn new(path: &Path, config: &BackboneConfig) -> Result<Self> {
        let arch = Architecture::of(&config.arch)?;
        let BackboneConfig {
            in_chans,
            drop_path,
            drop_rate,
            ..
        } = *config;
        if !(1..=1024).contains(&in_chans) {
            return Err(NnError::InChans {
                arch: arch.name.to_owned(),
                in_chans,
            });
        }
        for (what, value) in [("drop_path", drop_path), ("drop_rate", drop_rate)] {
            if !(0.0..1.0).contains(&value) {
                return Err(NnError::Rate { what, value });
            }
        }
        Ok(Backbone {
            net: match arch.family {
                Family::ResNet(config) => {
                    Net::ResNet(ResNet::new(path, config, in_chans, drop_path)?)
                }
                Family::EfficientNet(config) => {
                    Net::EfficientNet(EfficientNet::new(path, config, in_chans, drop_path)?)
                }
            },
            drop_rate,
        })
    }

    /// F: channels of what [`Backbone::forward`] returns.
    pub fn features(&self) -> i64 {
        match &self.net {
            Net::ResNet(net) => net.features(),
            Net::EfficientNet(net) => net.features(),
        }
    }

    /// Pooled features, (B, C, H, W) -> (B, F).
    pub fn forward(&self, image: &Tensor, pass: &Pass) -> Result<Tensor> {
        let map = match &self.net {
            Net::ResNet(net) => net.forward(image, pass)?,
            Net::EfficientNet(net) => net.forward(image, pass)?,
        }; // (B, F, H/32, W/32)
        let pooled = map.f_mean_dim(&[2i64, 3][..], false, None)?;
        dropout(pooled, self.drop_rate, pass)
    }
}
