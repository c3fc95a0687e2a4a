//! The sinusoidal embedding of a slice's relative position (as in fairseq; PIPELINE: 201 bins).

use tch::{Kind, Tensor};

use crate::error::Result;

/// Width of the embedding.
pub const POSITION_WIDTH: i64 = 16;

const BINS: f64 = 200.0;

/// Relative positions in 0..1 (B, S) -> (B, S, 16).
///
/// With frequencies f_i = exp(-i ln(10000) / 7), i = 0..7, and the bin p = round(200 x position),
/// the row is [sin(p f), cos(p f)].
pub fn position_embedding(position: &Tensor) -> Result<Tensor> {
    let half = POSITION_WIDTH / 2;
    let step = 10_000f64.ln() / (half - 1) as f64;
    let frequency = Tensor::f_arange(half, (Kind::Float, position.device()))?
        .f_mul_scalar(-step)?
        .f_exp()?;
    let bin = position.f_mul_scalar(BINS)?.f_round()?; // (B, S)
    let angle = bin.f_unsqueeze(-1)?.f_mul(&frequency)?; // (B, S, 8)
    Ok(Tensor::f_cat(&[angle.f_sin()?, angle.f_cos()?], -1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// p = 0.25 x 200 = 50:
    /// >>> f = torch.exp(torch.arange(8) * -(math.log(10000) / 7)); torch.sin(50 * f)[:3]
    #[test]
    fn rows_are_sines_then_cosines_of_the_bin() {
        let row = position_embedding(&Tensor::from_slice(&[0.25f32]).view([1, 1])).unwrap();
        let row = Vec::<f32>::try_from(row.view(-1)).unwrap();
        for i in 0..8 {
            let f = (-(i as f64) * 10_000f64.ln() / 7.0).exp();
            assert!((f64::from(row[i]) - (50.0 * f).sin()).abs() < 1e-4);
            assert!((f64::from(row[8 + i]) - (50.0 * f).cos()).abs() < 1e-4);
        }
    }
}
