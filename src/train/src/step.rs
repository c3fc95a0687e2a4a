//! One update of the weights: micro-batches, gradients averaged over ranks, clip, optimizer.

use std::collections::BTreeMap;
use std::time::Instant;

use checkpoint::TensorData;
use collective::{ProcessGroup, ReduceOp, Reducer, ReducerOptions, backward, kernels};
use event::Phase;
use tch::{Kind, Tensor};

use crate::config::UpdateConfig;
use crate::optimizer::Optimizer;
use crate::report::Report;
use crate::state::{self, Parameters};
use crate::{Result, TrainError};

/// The loss of a micro-batch and what it is made of; each a mean over the micro-batch's samples.
pub struct Losses {
    pub total: Tensor,
    /// By head, in the same order at every call.
    pub parts: Vec<(&'static str, Tensor)>,
    /// Images that went through the network.
    pub images: usize,
}

/// What one update came to, over all ranks.
#[derive(Debug)]
pub struct Outcome {
    /// Mean over the micro-batches of all ranks.
    pub loss: f64,
    pub parts: BTreeMap<String, f64>,
    /// L2 norm of the averaged gradient before clipping.
    pub gradient_norm: f64,
    pub images: u64,
    /// Wall time of this rank, in seconds.
    pub phases: BTreeMap<Phase, f64>,
    /// Some rank was asked to stop.
    pub stop: bool,
}

/// Updates a model's parameters, over all ranks of a group.
pub struct Stepper<'a> {
    pub(crate) parameters: Parameters,
    pub(crate) optimizer: Optimizer,
    group: &'a ProcessGroup,
    report: &'a dyn Report,
    /// None in a world of one rank: there is nothing to average.
    reducer: Option<Reducer>,
    clip_norm: Option<f64>,
}

impl<'a> Stepper<'a> {
    /// All ranks have the same values in `parameters` by now, in their final memory layout.
    pub fn new(
        parameters: Parameters,
        config: &UpdateConfig,
        group: &'a ProcessGroup,
        report: &'a dyn Report,
    ) -> Result<Self> {
        let optimizer = Optimizer::new(&parameters, config.rule, &config.grouping)?;
        let reducer = (group.world_size() > 1)
            .then(|| Reducer::new(&parameters.tensors, group, ReducerOptions::default()))
            .transpose()?;
        Ok(Stepper {
            parameters,
            optimizer,
            group,
            report,
            reducer,
            clip_norm: config.clip_norm,
        })
    }

    /// Update number `step` (from 0): `load` gives the samples of a micro-batch, `forward` their loss.
    pub fn update<S>(
        &mut self,
        step: u64,
        lr: f64,
        accumulation: usize,
        mut load: impl FnMut() -> Result<S>,
        mut forward: impl FnMut(S) -> Result<Losses>,
        stop_requested: bool,
    ) -> Result<Outcome> {
        let mut clock = Clock::start();
        let enter = |phase| self.report.at(phase, step + 1, self.group.sequence());
        enter(Phase::DataWait);
        kernels::zero_grad(&self.parameters.tensors)?;
        let mut sums: Vec<(&'static str, f64)> = Vec::new();
        let (mut loss_sum, mut images) = (0.0, 0);
        for micro in 0..accumulation {
            let samples = load()?;
            clock.lap(Phase::DataWait);
            enter(Phase::Forward);
            // Only the last micro-batch communicates; the ones before add to the local gradients.
            let last = micro + 1 == accumulation;
            if let Some(reducer) = self.reducer.as_mut().filter(|_| last) {
                reducer.prepare_for_forward()?;
            }
            let losses = forward(samples)?;
            let scaled = losses.total.f_div_scalar(accumulation as f64)?;
            loss_sum += losses.total.f_double_value(&[])?;
            for (i, (name, part)) in losses.parts.iter().enumerate() {
                if sums.len() <= i {
                    sums.push((name, 0.0));
                }
                sums[i].1 += part.f_double_value(&[])?;
            }
            images += losses.images;
            clock.lap(Phase::Forward);
            enter(Phase::Backward);
            match self.reducer.as_mut().filter(|_| last) {
                Some(reducer) => {
                    reducer.prepare_for_backward(&[])?;
                    // Names rank and peer where the reduction inside it fails.
                    reducer.backward(&scaled)?;
                }
                None => backward(&scaled)?,
            }
            clock.lap(Phase::Backward);
            enter(Phase::DataWait);
        }
        if let Some(reducer) = &mut self.reducer {
            reducer.check_finished()?;
        }
        enter(Phase::AllReduce);
        self.average_buffers()?;

        let mut values = vec![f64::from(u8::from(stop_requested)), images as f64, loss_sum];
        values.extend(sums.iter().map(|(_, sum)| sum));
        let values = self.sum_over_ranks(&values)?;
        clock.lap(Phase::AllReduce);
        enter(Phase::Optimizer);
        let mean = |sum: f64| sum / (accumulation * self.group.world_size()) as f64;
        let loss = mean(values[2]);

        let gradients = kernels::grads(&self.parameters.tensors)?;
        let gradient_norm = match self.clip_norm {
            Some(limit) => kernels::clip_grad_norm(&gradients, limit)?,
            None => kernels::grad_norm(&gradients)?.f_double_value(&[])?,
        };
        // All ranks have the same averaged gradient and loss, so all come to the same verdict.
        for (what, value) in [("loss", loss), ("gradient's norm", gradient_norm)] {
            if !value.is_finite() {
                return Err(TrainError::NotFinite {
                    step: step + 1,
                    what,
                    value,
                });
            }
        }
        self.optimizer.update(&self.parameters, &gradients, lr)?;
        clock.lap(Phase::Optimizer);
        Ok(Outcome {
            loss,
            parts: sums
                .iter()
                .zip(&values[3..])
                .map(|((name, _), sum)| ((*name).to_owned(), mean(*sum)))
                .collect(),
            gradient_norm,
            images: values[1] as u64,
            phases: clock.phases,
            stop: values[0] > 0.0,
        })
    }

    /// All that the next updates depend on beside the model, as a checkpoint holds it.
    pub(crate) fn state(&self) -> Result<Vec<TensorData>> {
        self.optimizer
            .tensors(&self.parameters)
            .iter()
            .map(|(name, tensor)| state::to_host(name, tensor))
            .collect()
    }

    /// Takes over what [`Stepper::state`] gave; `place` names the checkpoint in errors.
    pub(crate) fn load_state(&mut self, saved: &[TensorData], place: &str) -> Result<()> {
        state::load(&self.optimizer.tensors(&self.parameters), saved, place)
    }

    /// Running statistics become the mean over ranks at every update, so that any rank's state is the job's state and
    /// a checkpoint at any step resumes exactly.
    fn average_buffers(&self) -> Result<()> {
        if self.group.world_size() == 1 || self.parameters.buffers.is_empty() {
            return Ok(());
        }
        let _no_grad = tch::no_grad_guard();
        let buffers = &self.parameters.buffers;
        let flat: Vec<Tensor> = buffers
            .iter()
            .map(|b| b.f_view(-1))
            .collect::<std::result::Result<_, _>>()?;
        let all = Tensor::f_cat(&flat, 0)?;
        self.group.all_reduce(&all, ReduceOp::Mean)?;
        let mut from = 0;
        for mut target in flat {
            let length = target.numel() as i64;
            target.f_copy_(&all.f_narrow(0, from, length)?)?;
            from += length;
        }
        Ok(())
    }

    /// Sums a few numbers over ranks, in f64.
    fn sum_over_ranks(&self, values: &[f64]) -> Result<Vec<f64>> {
        if self.group.world_size() == 1 {
            return Ok(values.to_vec());
        }
        let device = self
            .parameters
            .tensors
            .first()
            .map_or(tch::Device::Cpu, Tensor::device);
        let sum = Tensor::f_from_slice(values)?
            .f_to_device(device)?
            .f_to_kind(Kind::Double)?;
        self.group.all_reduce(&sum, ReduceOp::Sum)?;
        Ok(Vec::<f64>::try_from(sum.f_to_device(tch::Device::Cpu)?)?)
    }
}

/// Wall time by phase.
struct Clock {
    last: Instant,
    phases: BTreeMap<Phase, f64>,
}

impl Clock {
    fn start() -> Self {
        Clock {
            last: Instant::now(),
            phases: BTreeMap::new(),
        }
    }

    fn lap(&mut self, phase: Phase) {
        let now = Instant::now();
        *self.phases.entry(phase).or_default() += (now - self.last).as_secs_f64();
        self.last = now;
    }
}
