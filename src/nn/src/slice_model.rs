//! Stage 1b and 2: a 2.5D CNN and a bidirectional LSTM over a window of slices.

use tch::Tensor;
use tch::nn::Path;

use crate::arch::{Backbone, BackboneConfig};
use crate::error::Result;
use crate::layer::Linear;
use crate::pass::Pass;
use crate::position::{POSITION_WIDTH, position_embedding};
use crate::rnn::BiLstm;

/// Which heads the model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SliceHeads {
    /// Stage 1b: `head`, 7 vertebra ratios.
    Ratio,
    /// Stage 2: `head_ratio`, `head_fracture` (7 each) and `head_any` (1).
    Fracture,
}

#[derive(Debug)]
enum Heads {
    Ratio(Linear),
    Fracture {
        ratio: Linear,
        fracture: Linear,
        any: Linear,
    },
}

#[derive(Debug)]
pub struct SliceModel {
    backbone: Backbone,
    rnn: BiLstm,
    heads: Heads,
}

/// What a [`SliceModel`] says of the middle slice of every image.
pub struct SlicePrediction {
    /// (B, S, 7): how much of C1..C7 the slice shows, of that vertebra's largest slice.
    pub ratio: Tensor,
    /// (B, S, 7): ratio of each vertebra if it is fractured, else 0; stage 2 only.
    pub fracture: Option<Tensor>,
    /// (B, S): the largest of the seven; stage 2 only.
    pub any: Option<Tensor>,
}

impl SliceModel {
    /// `lstm_hidden`: D; the features' width with the position embedding where absent.
    pub fn new(
        path: &Path,
        config: &BackboneConfig,
        lstm_hidden: Option<i64>,
        heads: SliceHeads,
    ) -> Result<Self> {
        let backbone = Backbone::new(&(path / "backbone"), config)?;
        let input = backbone.features() + POSITION_WIDTH;
        let rnn = BiLstm::new(&(path / "rnn"), input, lstm_hidden.unwrap_or(input))?;
        let width = rnn.width();
        let heads = match heads {
            SliceHeads::Ratio => Heads::Ratio(Linear::new(&(path / "head"), width, 7)?),
            SliceHeads::Fracture => Heads::Fracture {
                ratio: Linear::new(&(path / "head_ratio"), width, 7)?,
                fracture: Linear::new(&(path / "head_fracture"), width, 7)?,
                any: Linear::new(&(path / "head_any"), width, 1)?,
            },
        };
        Ok(SliceModel {
            backbone,
            rnn,
            heads,
        })
    }

    /// `image`: (B, S, C, H, W), normalised; `position`: (B, S) in 0..1.
    pub fn forward(
        &self,
        image: &Tensor,
        position: &Tensor,
        pass: &Pass,
    ) -> Result<SlicePrediction> {
        let (b, s, c, h, w) = image.size5()?;
        let features = self
            .backbone
            .forward(&image.f_reshape([b * s, c, h, w])?, pass)?;
        let features = features.f_view([b, s, -1])?; // (B, S, F)
        let input = Tensor::f_cat(&[features, position_embedding(position)?], -1)?;
        let hidden = self.rnn.forward(&input, pass.train)?; // (B, S, 2 D)
        Ok(match &self.heads {
            Heads::Ratio(head) => SlicePrediction {
                ratio: head.forward(&hidden)?,
                fracture: None,
                any: None,
            },
            Heads::Fracture {
                ratio,
                fracture,
                any,
            } => SlicePrediction {
                ratio: ratio.forward(&hidden)?,
                fracture: Some(fracture.forward(&hidden)?),
                any: Some(any.forward(&hidden)?.f_squeeze_dim(-1)?),
            },
        })
    }
}
