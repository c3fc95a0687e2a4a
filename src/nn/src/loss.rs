//! The pipeline's losses. Each is a mean over the samples of the batch it is given, so that the
//! mean of equal shares on several ranks is the loss of the whole batch.

use tch::{Reduction, Tensor};

use crate::error::Result;

/// Stage 1a: root of the mean squared error of a slice's four sides, 0 where `has_box` is 0;
/// mean over slices. Boxes (B, 4), `has_box` (B,).
pub fn box_rmse(predicted: &Tensor, target: &Tensor, has_box: &Tensor) -> Result<Tensor> {
    // The root's slope at 0 is infinite: a small constant keeps gradients finite.
    let squared = predicted
        .f_sub(target)?
        .f_square()?
        .f_mean_dim(&[1i64][..], false, None)?;
    Ok(squared
        .f_add_scalar(1e-8)?
        .f_sqrt()?
        .f_mul(has_box)?
        .f_mean(None)?)
}

/// Stage 1a: mean absolute error of a slice's four sides, 0 where `has_box` is 0; mean over slices.
pub fn box_l1(predicted: &Tensor, target: &Tensor, has_box: &Tensor) -> Result<Tensor> {
    let absolute = predicted
        .f_sub(target)?
        .f_abs()?
        .f_mean_dim(&[1i64][..], false, None)?;
    Ok(absolute.f_mul(has_box)?.f_mean(None)?)
}

/// Stage 1a: binary cross-entropy of the logit, the target clipped to 0.05..0.95. (B,), (B,)
pub fn has_box_loss(logit: &Tensor, has_box: &Tensor) -> Result<Tensor> {
    let target = has_box.f_clamp(0.05, 0.95)?;
    Ok(logit.f_binary_cross_entropy_with_logits::<Tensor>(&target, None, None, Reduction::Mean)?)
}

/// Stage 1b and 2: mean squared error, squares counted twice where the target is not zero.
pub fn nonzero_weighted_mse(predicted: &Tensor, target: &Tensor) -> Result<Tensor> {
    let weight = target
        .f_ne(0.0)?
        .f_to_kind(predicted.kind())?
        .f_add_scalar(1.0)?;
    Ok(predicted
        .f_sub(target)?
        .f_square()?
        .f_mul(&weight)?
        .f_mean(None)?)
}

/// Stage 3: the competition's weighted log loss on logits; mean over studies.
///
/// Logits and labels (B, 8): patient_overall, C1..C7. Weights 14 and 7 (fractured or not) for
/// patient_overall, 2 and 1 for the vertebrae; each study's sum is divided by its weights' sum.
pub fn competition_loss(logits: &Tensor, label: &Tensor) -> Result<Tensor> {
    let base = Tensor::f_from_slice(&[7f32, 1., 1., 1., 1., 1., 1., 1.])?.f_to(logits.device())?;
    let weight = label.f_add_scalar(1.0)?.f_mul(&base)?; // (B, 8)
    let loss =
        logits.f_binary_cross_entropy_with_logits::<Tensor>(label, None, None, Reduction::None)?;
    let sum = |x: &Tensor| x.f_sum_dim_intlist(&[1i64][..], false, None);
    Ok(sum(&loss.f_mul(&weight)?)?
        .f_div(&sum(&weight)?)?
        .f_mean(None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(tensor: Tensor) -> f64 {
        tensor.double_value(&[])
    }

    #[test]
    fn an_error_on_a_nonzero_target_counts_twice() {
        let target = Tensor::from_slice(&[0f32, 0.5]);
        let predicted = Tensor::from_slice(&[0.1f32, 0.6]);
        let loss = value(nonzero_weighted_mse(&predicted, &target).unwrap());
        assert!((loss - (0.01 + 2.0 * 0.01) / 2.0).abs() < 1e-7);
    }

    #[test]
    fn slices_without_a_box_add_nothing() {
        let predicted = Tensor::from_slice(&[0.1f32, 0.1, 0.1, 0.1, 9., 9., 9., 9.]).view([2, 4]);
        let target = Tensor::zeros([2, 4], tch::kind::FLOAT_CPU);
        let has_box = Tensor::from_slice(&[1f32, 0.]);
        assert!((value(box_l1(&predicted, &target, &has_box).unwrap()) - 0.05).abs() < 1e-6);
        assert!((value(box_rmse(&predicted, &target, &has_box).unwrap()) - 0.05).abs() < 1e-6);
    }

    /// PIPELINE's formula by hand for one study with an overall and a C2 fracture.
    #[test]
    fn the_competition_loss_is_the_weighted_log_loss() {
        let p = [0.7, 0.1, 0.6, 0.1, 0.1, 0.1, 0.1, 0.2];
        let y = [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let (mut sum, mut weights) = (0.0, 0.0);
        for j in 0..8 {
            let w = if j == 0 { 7.0 } else { 1.0 } * (1.0 + y[j]);
            let bce = if y[j] > 0.0 {
                -f64::ln(p[j])
            } else {
                -f64::ln(1.0 - p[j])
            };
            sum += w * bce;
            weights += w;
        }
        let logit: Vec<f64> = p.iter().map(|p| (p / (1.0 - p)).ln()).collect();
        let loss = competition_loss(
            &Tensor::from_slice(&logit)
                .view([1, 8])
                .to_kind(tch::Kind::Float),
            &Tensor::from_slice(&y)
                .view([1, 8])
                .to_kind(tch::Kind::Float),
        );
        assert!((value(loss.unwrap()) - sum / weights).abs() < 1e-6);
    }
}
