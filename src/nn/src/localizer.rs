//! Stage 1a: where the vertebrae are in one slice.

use tch::Tensor;
use tch::nn::Path;

use crate::arch::{Backbone, BackboneConfig};
use crate::error::Result;
use crate::layer::Linear;
use crate::pass::Pass;

/// Backbone with two linear heads.
#[derive(Debug)]
pub struct Localizer {
    backbone: Backbone,
    head_box: Linear,
    head_has_box: Linear,
}

/// What a [`Localizer`] says of B slices.
pub struct Located {
    /// (B, 4): x0, y0, x1, y1 as shares of the image's side, not clamped.
    pub bounds: Tensor,
    /// (B,): logit of "this slice shows a vertebra".
    pub has_box: Tensor,
}

impl Localizer {
    pub fn new(path: &Path, config: &BackboneConfig) -> Result<Self> {
        let backbone = Backbone::new(&(path / "backbone"), config)?;
        let features = backbone.features();
        Ok(Localizer {
            backbone,
            head_box: Linear::new(&(path / "head_box"), features, 4)?,
            head_has_box: Linear::new(&(path / "head_has_box"), features, 1)?,
        })
    }

    /// `image`: (B, C, H, W), normalised.
    pub fn forward(&self, image: &Tensor, pass: &Pass) -> Result<Located> {
        let features = self.backbone.forward(image, pass)?;
        Ok(Located {
            bounds: self.head_box.forward(&features)?,
            has_box: self.head_has_box.forward(&features)?.f_squeeze_dim(-1)?,
        })
    }
}
