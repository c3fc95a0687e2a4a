//! AdamW (Loshchilov and Hutter, arXiv:1711.05101) through libtorch's fused kernel, with its state in the open.

use std::collections::BTreeMap;

use checkpoint::TensorData;
use collective::kernels;
use tch::{Kind, Tensor};

use crate::Result;
use crate::state::{self, Parameters};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPS: f64 = 1e-8;

/// The optimizer and its moments, in the order of the parameters.
#[derive(Debug)]
pub struct AdamW {
    exp_avg: Vec<Tensor>,
    exp_avg_sq: Vec<Tensor>,
    /// Updates done, one f32 scalar for each parameter, as the kernel wants it.
    steps: Vec<Tensor>,
    weight_decay: f64,
}

impl AdamW {
    pub fn new(parameters: &Parameters, weight_decay: f64) -> Result<Self> {
        let zeros = || -> Result<Vec<Tensor>> {
            parameters
                .tensors
                .iter()
                .map(|p| Ok(p.f_zeros_like()?.f_detach()?))
                .collect()
        };
        let steps = parameters
            .tensors
            .iter()
            .map(|p| Ok(Tensor::f_zeros([0i64; 0], (Kind::Float, p.device()))?))
            .collect::<Result<Vec<_>>>()?;
        Ok(AdamW {
            exp_avg: zeros()?,
            exp_avg_sq: zeros()?,
            steps,
            weight_decay,
        })
    }

    /// One update from the parameters' gradients.
    pub fn update(&mut self, parameters: &Parameters, gradients: &[Tensor], lr: f64) -> Result<()> {
        let config = kernels::AdamW {
            lr,
            beta1: BETA1,
            beta2: BETA2,
            eps: EPS,
            weight_decay: self.weight_decay,
        };
        kernels::fused_adamw(
            &parameters.tensors,
            gradients,
            &self.exp_avg,
            &self.exp_avg_sq,
            &self.steps,
            &config,
        )?;
        Ok(())
    }

    /// Its state by name: `exp_avg.<parameter>`, `exp_avg_sq.<parameter>`, `step.<parameter>`.
    fn tensors(&self, parameters: &Parameters) -> BTreeMap<String, Tensor> {
        let named = |prefix: &'static str, tensors: &[Tensor]| {
            let names = parameters.names.iter();
            names
                .zip(tensors)
                .map(|(name, tensor)| (format!("{prefix}.{name}"), tensor.shallow_clone()))
                .collect::<Vec<_>>()
        };
        let mut all: BTreeMap<String, Tensor> =
            named("exp_avg", &self.exp_avg).into_iter().collect();
        all.extend(named("exp_avg_sq", &self.exp_avg_sq));
        all.extend(named("step", &self.steps));
        all
    }

    pub fn save(&self, parameters: &Parameters) -> Result<Vec<TensorData>> {
        self.tensors(parameters)
            .iter()
            .map(|(name, tensor)| state::to_host(name, tensor))
            .collect()
    }

    pub fn load(
        &mut self,
        parameters: &Parameters,
        saved: &[TensorData],
        place: &str,
    ) -> Result<()> {
        state::load(&self.tensors(parameters), saved, place)
    }
}
