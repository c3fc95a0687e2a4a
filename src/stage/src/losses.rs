//! The stages' losses, of a model's outputs and their targets; what each is made of beside the sum. Outputs may be of a half
//! type; losses are computed in f32.

use nn::{
    Located, SlicePrediction, box_l1, box_rmse, competition_loss, has_box_loss,
    nonzero_weighted_mse,
};
use recipe::BoxLoss;
use tch::Tensor;
use train::{Losses, full};

use crate::Result;

/// Weights of stage 1a's two losses.
const BOX_WEIGHT: f64 = 0.8;
const HAS_BOX_WEIGHT: f64 = 0.2;

/// Stage 1a. `bounds` (B, 4), `has_box` (B,)
pub(crate) fn localizer_loss(
    located: &Located,
    bounds: &Tensor,
    has_box: &Tensor,
    box_loss: BoxLoss,
) -> Result<Losses> {
    let predicted = full(&located.bounds)?;
    let box_part = match box_loss {
        BoxLoss::Rmse => box_rmse(&predicted, bounds, has_box)?,
        BoxLoss::L1 => box_l1(&predicted, bounds, has_box)?,
    };
    let has_box_part = has_box_loss(&full(&located.has_box)?, has_box)?;
    let total = box_part
        .f_mul_scalar(BOX_WEIGHT)?
        .f_add(&has_box_part.f_mul_scalar(HAS_BOX_WEIGHT)?)?;
    Ok(Losses {
        total,
        parts: vec![("box", box_part), ("has_box", has_box_part)],
        images: has_box.numel(),
    })
}

/// Stage 1b (ratio alone) and 2: the sum of the heads' losses. `ratio`, `fracture` (B, S, 7); a slice's target of "any" is its
/// largest fracture.
pub(crate) fn slice_loss(
    predicted: &SlicePrediction,
    ratio: &Tensor,
    fracture: Option<&Tensor>,
) -> Result<Losses> {
    let loss = |head: &Tensor, truth: &Tensor| -> Result<Tensor> {
        Ok(nonzero_weighted_mse(&full(head)?, truth)?)
    };
    let mut parts = vec![("ratio", loss(&predicted.ratio, ratio)?)];
    if let (Some(head), Some(any), Some(truth)) = (&predicted.fracture, &predicted.any, fracture) {
        parts.push(("fracture", loss(head, truth)?));
        let largest = truth.f_amax(&[-1i64][..], false)?;
        parts.push(("any", loss(any, &largest)?));
    }
    let mut total = parts[0].1.shallow_clone();
    for (_, part) in &parts[1..] {
        total = total.f_add(part)?;
    }
    let (batch, images, _) = ratio.size3()?;
    Ok(Losses {
        total,
        parts,
        images: (batch * images) as usize,
    })
}

/// Stage 3: the competition's metric. `logits`, `label` (B, 8); `images` of all studies together.
pub(crate) fn study_loss(logits: &Tensor, label: &Tensor, images: usize) -> Result<Losses> {
    Ok(Losses {
        total: competition_loss(&full(logits)?, label)?,
        parts: Vec::new(),
        images,
    })
}
