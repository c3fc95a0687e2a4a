//! The loss scale of fp16 (Micikevicius et al., "Mixed Precision Training", arXiv:1710.03740): gradients too small for
//! fp16 are lifted into its range before the backward pass and brought down again after it.
//!
//! As PyTorch's `GradScaler`: the scale doubles after 2,000 updates in a row with finite gradients; where a gradient is not
//! finite, the update is left out and the scale halves.

use collective::kernels::{self, ScaleGrowth};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::{Result, TrainError};

/// Where a loss scale starts and how it moves; `default` is `GradScaler`'s choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScaling {
    pub initial: f64,
    pub growth: ScaleGrowth,
}

impl Default for LossScaling {
    fn default() -> Self {
        LossScaling {
            initial: 65_536.0,
            growth: ScaleGrowth::default(),
        }
    }
}

/// The part of a scaler that outlives the process.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ScalerState {
    pub scale: f64,
    /// Updates in a row with finite gradients, since the scale moved.
    pub finite_in_a_row: i64,
    /// Updates left out so far.
    pub skipped: u64,
}

#[derive(Debug)]
pub(crate) struct Scaler {
    growth: ScaleGrowth,
    /// (1,) f32
    scale: Tensor,
    /// (1,) i32
    finite_in_a_row: Tensor,
    skipped: u64,
}

impl Scaler {
    pub fn new(scaling: &LossScaling, device: Device) -> Result<Self> {
        let state = ScalerState {
            scale: scaling.initial,
            finite_in_a_row: 0,
            skipped: 0,
        };
        let mut scaler = Scaler {
            growth: scaling.growth,
            scale: Tensor::f_zeros([1], (Kind::Float, device))?,
            finite_in_a_row: Tensor::f_zeros([1], (Kind::Int, device))?,
            skipped: 0,
        };
        scaler.load(&state)?;
        Ok(scaler)
    }

    /// The loss to go backward from.
    pub fn scaled(&self, loss: &Tensor) -> Result<Tensor> {
        Ok(loss.f_mul(&self.scale.f_squeeze_dim(0)?)?)
    }

    /// Takes the scale out of the gradients, in place. Returns (1,) f32: above 0 where one of them is not finite.
    pub fn unscale(&self, gradients: &[Tensor]) -> Result<Tensor> {
        let found = self.scale.f_zeros_like()?;
        // In f64, as GradScaler does: the scale of a long run may leave the range in which f32 has an exact inverse.
        let inverse = self.scale.f_to_kind(Kind::Double)?.f_reciprocal()?;
        kernels::amp_unscale(gradients, &found, &inverse.f_to_kind(Kind::Float)?)?;
        Ok(found)
    }

    /// Moves the scale after update number `step` (from 1), whose gradients were finite on all ranks or not. Returns the
    /// new scale.
    ///
    /// # Errors
    /// `LossScale` where it falls below 1: then it is not the scale that makes gradients overflow.
    pub fn moved(&mut self, finite: bool, step: u64) -> Result<f64> {
        let found = self.scale.f_full_like(if finite { 0.0 } else { 1.0 })?;
        kernels::amp_update_scale(&self.scale, &self.finite_in_a_row, &found, &self.growth)?;
        let scale = self.scale()?;
        if !finite {
            self.skipped += 1;
            if scale < 1.0 {
                return Err(TrainError::LossScale { step, scale });
            }
        }
        Ok(scale)
    }

    pub fn scale(&self) -> Result<f64> {
        Ok(self.scale.f_double_value(&[0])?)
    }

    pub fn state(&self) -> Result<ScalerState> {
        Ok(ScalerState {
            scale: self.scale()?,
            finite_in_a_row: self.finite_in_a_row.f_int64_value(&[0])?,
            skipped: self.skipped,
        })
    }

    pub fn load(&mut self, state: &ScalerState) -> Result<()> {
        let _ = self.scale.f_fill_(state.scale)?;
        let _ = self.finite_in_a_row.f_fill_(state.finite_in_a_row)?;
        self.skipped = state.skipped;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradients(values: &[f32]) -> Vec<Tensor> {
        vec![Tensor::from_slice(values), Tensor::from_slice(&[1.0f32])]
    }

    fn scaler(initial: f64, interval: i64) -> Scaler {
        let growth = ScaleGrowth {
            interval,
            ..ScaleGrowth::default()
        };
        Scaler::new(&LossScaling { initial, growth }, Device::Cpu).unwrap()
    }

    #[test]
    fn the_scale_goes_in_and_comes_out() {
        let scaler = scaler(1024.0, 2000);
        let loss = scaler.scaled(&Tensor::from(0.5f32)).unwrap();
        assert_eq!((loss.size(), loss.double_value(&[])), (vec![], 512.0));
        let scaled = gradients(&[2048.0, -512.0]);
        let found = scaler.unscale(&scaled).unwrap();
        assert_eq!(found.double_value(&[0]), 0.0);
        assert_eq!(Vec::<f32>::try_from(&scaled[0]).unwrap(), [2.0, -0.5]);
        assert_eq!(scaled[1].double_value(&[0]), 1.0 / 1024.0);
    }

    #[test]
    fn one_infinite_or_undefined_gradient_is_found() {
        let scaler = scaler(2.0, 2000);
        for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            let found = scaler.unscale(&gradients(&[1.0, bad])).unwrap();
            assert!(found.double_value(&[0]) > 0.0, "{bad}");
        }
    }

    /// ```python
    /// s = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3); s.scale(torch.zeros(()))
    /// p = torch.zeros(1, requires_grad=True); o = torch.optim.SGD([p], 0.1); scales = []
    /// for finite in [1, 1, 0, 1, 1, 1, 1, 0, 1]:
    ///     p.grad = torch.tensor([1.0 if finite else float("inf")]); s.step(o); s.update(); scales.append(s.get_scale())
    /// ```
    #[test]
    fn the_scale_moves_as_pytorchs() {
        let mut scaler = scaler(8.0, 3);
        let finite = [1, 1, 0, 1, 1, 1, 1, 0, 1].map(|finite| finite == 1);
        let scales = finite.map(|finite| scaler.moved(finite, 1).unwrap());
        assert_eq!(scales, [8.0, 8.0, 4.0, 4.0, 4.0, 8.0, 8.0, 4.0, 4.0]);
        let state = scaler.state().unwrap();
        assert_eq!((state.finite_in_a_row, state.skipped), (1, 2));
        let mut other = self::scaler(1.0, 3);
        other.load(&state).unwrap();
        assert_eq!(other.state().unwrap(), state);
    }

    #[test]
    fn a_scale_below_one_ends_the_training() {
        let mut scaler = scaler(2.0, 2000);
        assert_eq!(scaler.moved(false, 6).unwrap(), 1.0);
        let error = scaler.moved(false, 7).unwrap_err();
        assert!(error.to_string().starts_with("update 7: "), "{error}");
        assert_eq!(error.class(), event::FailureClass::Diverged);
    }
}
