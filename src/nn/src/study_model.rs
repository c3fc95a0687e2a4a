//! Stage 3: eight probabilities of a study, over the frozen CNN of stage 2.

use tch::nn::Path;
use tch::{Kind, Tensor};

use crate::arch::{Backbone, BackboneConfig};
use crate::error::Result;
use crate::layer::{Linear, uniform};
use crate::pass::Pass;
use crate::rnn::BiLstm;

/// patient_overall, C1..C7.
const LABELS: i64 = 8;

/// Scores of padded images, before the softmax-like normalisation and the maximum.
const MASKED: f64 = -1e4;

#[derive(Debug)]
pub struct StudyModel {
    backbone: Backbone,
    rnn: BiLstm,
    attention: Attention,
    head: Linear,
}

impl StudyModel {
    /// `max_images`: the S that sequences are brought to; `hidden`: D, the features' width where absent.
    pub fn new(
        path: &Path,
        config: &BackboneConfig,
        hidden: Option<i64>,
        max_images: i64,
    ) -> Result<Self> {
        let backbone = Backbone::new(&(path / "backbone"), config)?;
        let rnn = BiLstm::new(
            &(path / "rnn"),
            backbone.features(),
            hidden.unwrap_or(backbone.features()),
        )?;
        let width = rnn.width();
        Ok(StudyModel {
            attention: Attention::new(&(path / "attention"), width, max_images)?,
            head: Linear::new(&(path / "head"), 2 * width, LABELS)?,
            backbone,
            rnn,
        })
    }

    /// F: width of the features.
    pub fn width(&self) -> i64 {
        self.backbone.features()
    }

    /// The frozen CNN, (n, C, H, W) -> (n, F), without gradient.
    pub fn features(&self, image: &Tensor) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        self.backbone.forward(image, &Pass::eval())
    }

    /// `features`: (B, S, F), zero where padded; `mask`: (B, S), 1 where there is an image.
    /// Returns logits (B, 8): patient_overall, C1..C7.
    pub fn forward(&self, features: &Tensor, mask: &Tensor, pass: &Pass) -> Result<Tensor> {
        let hidden = self.rnn.forward(features, pass.train)?; // (B, S, 2 D)
        let padded = mask.f_eq(0.0)?.f_unsqueeze(-1)?; // (B, S, 1)
        let largest = hidden
            .f_masked_fill(&padded, MASKED)?
            .f_amax(&[1i64][..], false)?;
        let attended = self.attention.forward(&hidden, mask)?;
        self.head.forward(&Tensor::f_cat(&[largest, attended], -1)?)
    }

    /// Brings the features of one study, (n, F), to (S, F) and its mask (S,): longer sequences are
    /// resampled by linear interpolation, shorter ones padded with zeros.
    pub fn fit(features: &Tensor, length: i64) -> Result<(Tensor, Tensor)> {
        let (n, width) = features.size2()?;
        let options = (Kind::Float, features.device());
        if n > length {
            let resampled = features
                .f_transpose(0, 1)?
                .f_unsqueeze(0)? // (1, F, n)
                .f_upsample_linear1d(length, false, None)?
                .f_squeeze_dim(0)?
                .f_transpose(0, 1)?
                .f_contiguous()?;
            return Ok((resampled, Tensor::f_ones(length, options)?));
        }
        let padding = Tensor::f_zeros([length - n, width], options)?;
        let mask = Tensor::f_cat(
            &[
                Tensor::f_ones(n, options)?,
                Tensor::f_zeros(length - n, options)?,
            ],
            0,
        )?;
        Ok((
            Tensor::f_cat(&[features.shallow_clone(), padding], 0)?,
            mask,
        ))
    }
}

/// A weighted mean over the sequence: score tanh(h w + b_s), exponentiated, masked, normalised.
#[derive(Debug)]
struct Attention {
    /// (2 D,)
    weight: Tensor,
    /// (S,), a bias for each position
    bias: Tensor,
}

impl Attention {
    fn new(path: &Path, width: i64, length: i64) -> Result<Self> {
        Ok(Attention {
            weight: path.f_var("weight", &[width], uniform(width))?,
            bias: path.f_zeros("bias", &[length])?,
        })
    }

    /// (B, S, 2 D), (B, S) -> (B, 2 D)
    fn forward(&self, hidden: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let score = hidden.f_matmul(&self.weight)?.f_add(&self.bias)?.f_tanh()?; // (B, S)
        let weight = score.f_exp()?.f_mul(mask)?;
        let total = weight
            .f_sum_dim_intlist(&[1i64][..], true, None)?
            .f_clamp_min(1e-10)?;
        let weight = weight.f_div(&total)?.f_unsqueeze(-1)?; // (B, S, 1)
        Ok(hidden
            .f_mul(&weight)?
            .f_sum_dim_intlist(&[1i64][..], false, None)?)
    }
}
