//! A moving average of the weights, which is evaluated and handed on in place of the weights themselves (Polyak and Juditsky,
//! 1992; with a constant decay, as timm's `ModelEmaV3`).

use std::collections::BTreeMap;

use collective::kernels;
use tch::Tensor;

use crate::Result;
use crate::state::Parameters;

#[derive(Debug)]
pub(crate) struct Ema {
    decay: f64,
    /// In the order of the parameters. Running statistics are not averaged: they are averages already.
    average: Vec<Tensor>,
}

impl Ema {
    /// Starts at the parameters' present values.
    pub fn new(parameters: &Parameters, decay: f64) -> Result<Self> {
        let _no_grad = tch::no_grad_guard();
        let copies = parameters.tensors.iter().map(|p| Ok(p.f_detach_copy()?));
        Ok(Ema {
            decay,
            average: copies.collect::<Result<_>>()?,
        })
    }

    /// After an update: average = decay average + (1 - decay) weights.
    pub fn update(&self, parameters: &Parameters) -> Result<()> {
        let weight = 1.0 - self.decay;
        Ok(kernels::foreach_lerp_(
            &self.average,
            &parameters.tensors,
            weight,
        )?)
    }

    /// Makes the parameters' present values the average.
    pub fn restart(&self, parameters: &Parameters) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        for (average, weight) in self.average.iter().zip(&parameters.tensors) {
            average.shallow_clone().f_copy_(weight)?;
        }
        Ok(())
    }

    /// Exchanges the values of the average and of the parameters.
    pub fn swap(&self, parameters: &Parameters) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        for (average, weight) in self.average.iter().zip(&parameters.tensors) {
            let kept = weight.f_detach_copy()?;
            weight.shallow_clone().f_copy_(average)?;
            average.shallow_clone().f_copy_(&kept)?;
        }
        Ok(())
    }

    /// The average under the parameters' names.
    pub fn tensors(&self, parameters: &Parameters) -> BTreeMap<String, Tensor> {
        let names = parameters.names.iter().cloned();
        names
            .zip(self.average.iter().map(Tensor::shallow_clone))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(values: &[f32]) -> Parameters {
        Parameters {
            names: vec!["head.weight".into()],
            tensors: vec![Tensor::from_slice(values).set_requires_grad(true)],
            buffers: Vec::new(),
        }
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor).unwrap()
    }

    /// ```python
    /// m = torch.nn.Linear(2, 1, bias=False); m.weight.data = torch.tensor([[1.0, -2.0]])
    /// e = timm.utils.ModelEmaV3(m, decay=0.75)
    /// for step in range(3): m.weight.data += 4.0; e.update(m)
    /// e.module.weight  # [[6.0625, 3.0625]]
    /// ```
    #[test]
    fn it_is_timms_average() {
        let parameters = parameters(&[1.0, -2.0]);
        let ema = Ema::new(&parameters, 0.75).unwrap();
        for _ in 0..3 {
            let _ =
                tch::no_grad(|| parameters.tensors[0].shallow_clone().f_add_scalar_(4.0)).unwrap();
            ema.update(&parameters).unwrap();
        }
        let average = &ema.tensors(&parameters)["head.weight"];
        assert_eq!(values(average), [6.0625, 3.0625]);
        assert!(!average.requires_grad());
    }

    #[test]
    fn a_swap_is_undone_by_another() {
        let parameters = parameters(&[1.0, 2.0]);
        let ema = Ema::new(&parameters, 0.5).unwrap();
        let _ = tch::no_grad(|| parameters.tensors[0].shallow_clone().f_zero_()).unwrap();
        ema.swap(&parameters).unwrap();
        assert_eq!(values(&parameters.tensors[0].detach()), [1.0, 2.0]);
        assert_eq!(values(&ema.average[0]), [0.0, 0.0]);
        ema.swap(&parameters).unwrap();
        assert_eq!(values(&parameters.tensors[0].detach()), [0.0, 0.0]);
        assert_eq!(values(&ema.average[0]), [1.0, 2.0]);
    }
}
