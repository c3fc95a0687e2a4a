//! The stages' losses, of a model's outputs and their targets; what each is made of beside the sum.

use nn::{
    Located, SlicePrediction, box_l1, box_rmse, competition_loss, has_box_loss,
    nonzero_weighted_mse,
};
use recipe::BoxLoss;
use tch::Tensor;
use train::Losses;

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
    let box_part = match box_loss {
        BoxLoss::Rmse => box_rmse(&located.bounds, bounds, has_box)?,
        BoxLoss::L1 => box_l1(&located.bounds, bounds, has_box)?,
    };
    let has_box_part = has_box_loss(&located.has_box, has_box)?;
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
    let mut parts = vec![("ratio", nonzero_weighted_mse(&predicted.ratio, ratio)?)];
    if let (Some(head), Some(any), Some(truth)) = (&predicted.fracture, &predicted.any, fracture) {
        parts.push(("fracture", nonzero_weighted_mse(head, truth)?));
        let largest = truth.f_amax(&[-1i64][..], false)?;
        parts.push(("any", nonzero_weighted_mse(any, &largest)?));
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
        total: competition_loss(logits, label)?,
        parts: Vec::new(),
        images,
    })
}
