//! The table of backbones by timm's names. Where the blocks exist, a new one is one line.

use tch::Tensor;
use tch::nn::Path;

use crate::error::{NnError, Result};
use crate::resnest::ResNest;

/// Blocks in each of the four stages.
const RESNEST: [(&str, [usize; 4]); 3] = [
    ("resnest14d", [1, 1, 1, 1]),
    ("resnest26d", [2, 2, 2, 2]),
    ("resnest50d", [3, 4, 6, 3]),
];

/// The architectures that [`Backbone::new`] knows.
pub fn architectures() -> impl Iterator<Item = &'static str> {
    RESNEST.iter().map(|(name, _)| *name)
}

/// A CNN without its classifier.
#[derive(Debug)]
pub struct Backbone {
    net: ResNest,
}

impl Backbone {
    /// Makes the named architecture for 3-channel input, with timm's initial weights.
    pub fn new(path: &Path, arch: &str) -> Result<Self> {
        let blocks = RESNEST.iter().find(|(name, _)| *name == arch);
        let (_, blocks) = blocks.ok_or_else(|| NnError::UnknownArchitecture {
            name: arch.to_owned(),
            known: architectures().collect::<Vec<_>>().join(", "),
        })?;
        Ok(Backbone {
            net: ResNest::new(path, *blocks)?,
        })
    }

    /// F: channels of what [`Backbone::forward`] returns.
    pub fn features(&self) -> i64 {
        self.net.features()
    }

    /// Pooled features, (B, 3, H, W) -> (B, F).
    pub fn forward(&self, image: &Tensor, train: bool) -> Result<Tensor> {
        let map = self.net.forward(image, train)?; // (B, F, H/32, W/32)
        Ok(map.f_mean_dim(&[2i64, 3][..], false, None)?)
    }
}
