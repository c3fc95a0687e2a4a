//! One update of the weights: micro-batches, gradients averaged over ranks, unscale, clip, optimizer, average.
//!
//! It knows neither recipes nor loaders nor checkpoints: samples and their loss come from outside.

use std::collections::BTreeMap;
use std::time::Instant;

use collective::{ProcessGroup, Reducer, ReducerOptions, backward, kernels};
use event::{Histogram, Phase};
use tch::{Cuda, Device, Tensor};

use crate::config::UpdateConfig;
use crate::ema::Ema;
use crate::histogram;
use crate::optimizer::Optimizer;
use crate::report::Report;
use crate::scaler::Scaler;
use crate::state::Parameters;
use crate::statistics::Statistics;
use crate::tally::Tally;
use crate::{Result, TrainError};

/// The loss of a micro-batch and what it is made of; each a mean over the micro-batch's samples.
pub struct Losses {
    pub total: Tensor,
    /// By head, in the same order at every call.
    pub parts: Vec<(&'static str, Tensor)>,
    /// Images that went through the network.
    pub images: usize,
}

/// The samples of a micro-batch.
pub struct MicroBatch<S> {
    pub samples: S,
    /// What each is called in its data set; as many on every rank, and none where nobody keeps a ledger.
    pub numbers: Vec<usize>,
}

impl<S> From<S> for MicroBatch<S> {
    /// Samples without numbers.
    fn from(samples: S) -> Self {
        MicroBatch {
            samples,
            numbers: Vec::new(),
        }
    }
}

/// What one update came to, over all ranks.
#[derive(Debug)]
pub struct Outcome {
    /// Mean over the micro-batches of all ranks.
    pub loss: f64,
    pub parts: BTreeMap<String, f64>,
    /// L2 norm of the averaged gradient before clipping.
    pub gradient_norm: f64,
    /// And after it; none where nothing is clipped.
    pub clipped_norm: Option<f64>,
    pub images: u64,
    /// Wall time of this rank, in seconds. On a GPU that of queueing, but for the phase that waits for the results; see
    /// [`UpdateConfig::timed`].
    pub phases: BTreeMap<Phase, f64>,
    /// Some rank was asked to stop.
    pub stop: bool,
    /// The factor of fp16's losses in this update.
    pub loss_scale: Option<f64>,
    /// A gradient was not finite under that factor: the weights stay as they were, the next update has a smaller one.
    pub skipped: bool,
    /// Numbers of the samples that each rank loaded, in its order.
    pub samples: Vec<Vec<usize>>,
}

/// Updates a model's parameters, over all ranks of a group.
pub struct Stepper<'a> {
    pub(crate) parameters: Parameters,
    pub(crate) optimizer: Optimizer,
    pub(crate) scaler: Option<Scaler>,
    pub(crate) ema: Option<Ema>,
    statistics: Statistics,
    group: &'a ProcessGroup,
    report: &'a dyn Report,
    /// None in a world of one rank: there is nothing to average.
    reducer: Option<Reducer>,
    clip_norm: Option<f64>,
    sync_batch_norm: bool,
    timed: bool,
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
        let device = parameters.device();
        let scaler = config.loss_scaling.as_ref();
        let scaler = scaler
            .map(|scaling| Scaler::new(scaling, device))
            .transpose()?;
        let ema = config.ema.map(|decay| Ema::new(&parameters, decay));
        let reducer = (group.world_size() > 1)
            .then(|| Reducer::new(&parameters.tensors, group, ReducerOptions::default()))
            .transpose()?;
        Ok(Stepper {
            statistics: Statistics::new(&parameters.buffers),
            parameters,
            optimizer,
            scaler,
            ema: ema.transpose()?,
            group,
            report,
            reducer,
            clip_norm: config.clip_norm,
            sync_batch_norm: config.sync_batch_norm,
            timed: config.timed,
        })
    }

    /// Update number `step` (from 0): `load` gives the samples of a micro-batch, `forward` their loss, in f32.
    ///
    /// # Errors
    /// `NotFinite` for a loss or gradient that is not finite, `LossScale` where fp16 finds no scale under which it is; what
    /// `load`, `forward` and the collectives fail with. The parameters are then those of before the update.
    pub fn update<S>(
        &mut self,
        step: u64,
        lr: f64,
        accumulation: usize,
        mut load: impl FnMut() -> Result<MicroBatch<S>>,
        mut forward: impl FnMut(S) -> Result<Losses>,
        stop_requested: bool,
    ) -> Result<Outcome> {
        let device = self.parameters.device();
        let mut clock = Clock::start(device, self.timed);
        let enter = |phase| self.report.at(phase, step + 1, self.group.sequence());
        enter(Phase::DataWait);
        self.clear_gradients()?;
        if self.scaler.is_some() {
            self.statistics.remember()?;
        }
        let mut tally = Tally::new(device);
        for micro in 0..accumulation {
            let MicroBatch { samples, numbers } = load()?;
            tally.note(&numbers);
            clock.lap(Phase::DataWait);
            enter(Phase::Forward);
            // Only the last micro-batch communicates; the ones before add to the local gradients.
            let last = micro + 1 == accumulation;
            if let Some(reducer) = self.reducer.as_mut().filter(|_| last) {
                reducer.prepare_for_forward()?;
            }
            let losses = forward(samples)?;
            tally.add(&losses)?;
            let mut loss = losses.total.f_div_scalar(accumulation as f64)?;
            if let Some(scaler) = &self.scaler {
                loss = scaler.scaled(&loss)?;
            }
            clock.lap(Phase::Forward);
            enter(Phase::Backward);
            match self.reducer.as_mut().filter(|_| last) {
                Some(reducer) => {
                    reducer.prepare_for_backward(&[])?;
                    // Names rank and peer where the reduction inside it fails.
                    reducer.backward(&loss)?;
                }
                None => backward(&loss)?,
            }
            clock.lap(Phase::Backward);
            enter(Phase::DataWait);
        }
        if let Some(reducer) = &mut self.reducer {
            reducer.check_finished()?;
        }
        enter(Phase::AllReduce);
        if !self.sync_batch_norm {
            self.statistics.average(self.group)?;
        }
        let gradients = kernels::grads(&self.parameters.tensors)?;
        let scaler = self.scaler.as_ref();
        let overflow = scaler
            .map(|scaler| scaler.unscale(&gradients))
            .transpose()?;
        let totals = tally.over_ranks(self.group, stop_requested, overflow.as_ref())?;
        clock.lap(Phase::AllReduce);
        enter(Phase::Optimizer);

        let gradient_norm = match self.clip_norm {
            Some(limit) => kernels::clip_grad_norm(&gradients, limit)?,
            None => kernels::grad_norm(&gradients)?.f_double_value(&[])?,
        };
        let mut loss_scale = None;
        if let Some(scaler) = &mut self.scaler {
            loss_scale = Some(scaler.scale()?);
            scaler.moved(!totals.overflow, step + 1)?;
        }
        if totals.overflow {
            self.statistics.recover()?;
        } else {
            // All ranks have the same averaged gradient and loss, so all come to the same verdict.
            for (what, value) in [("loss", totals.loss), ("gradient's norm", gradient_norm)] {
                if !value.is_finite() {
                    return Err(TrainError::NotFinite {
                        step: step + 1,
                        what,
                        value,
                    });
                }
            }
            self.optimizer.update(&self.parameters, &gradients, lr)?;
            if let Some(ema) = &self.ema {
                ema.update(&self.parameters)?;
            }
        }
        clock.lap(Phase::Optimizer);
        let of = |phase| clock.phases.get(&phase).copied().unwrap_or_default();
        self.report.took(of(Phase::DataWait) + of(Phase::Forward));
        Ok(Outcome {
            loss: totals.loss,
            parts: totals
                .parts
                .into_iter()
                .map(|(name, mean)| (name.to_owned(), mean))
                .collect(),
            gradient_norm,
            clipped_norm: self.clip_norm.map(|limit| gradient_norm.min(limit)),
            images: totals.images,
            phases: clock.phases,
            stop: totals.stop,
            loss_scale,
            skipped: totals.overflow,
            samples: totals.samples,
        })
    }

    /// How the weights and the gradients of the last update are spread, by name; no gradients ahead of the first update of
    /// this process.
    pub fn spread(&self, step: u64) -> Result<Vec<Histogram>> {
        let named = |kind: &str, tensors: &[Tensor]| -> Result<Vec<Histogram>> {
            let named = self.parameters.names.iter().zip(tensors);
            named
                .map(|(name, tensor)| histogram::of(tensor, step, format!("{kind}/{name}")))
                .collect()
        };
        let mut all = named("weights", &self.parameters.tensors)?;
        if let Ok(gradients) = kernels::grads(&self.parameters.tensors) {
            all.extend(named("gradients", &gradients)?);
        }
        Ok(all)
    }

    /// Runs `body` on the averaged weights, where there are any, and puts the weights of the training back.
    pub fn averaged<T>(&self, body: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some(ema) = &self.ema else {
            return body();
        };
        ema.swap(&self.parameters)?;
        let result = body();
        ema.swap(&self.parameters)?;
        result
    }

    /// Ends the training: the parameters keep the averaged weights, where there are any.
    pub fn finish(self) -> Result<()> {
        match &self.ema {
            Some(ema) => ema.swap(&self.parameters),
            None => Ok(()),
        }
    }

    /// Gradients are made anew by the first micro-batch, which needs less memory than to hold them through its forward
    /// pass; those of a reducer lie in its buckets and stay.
    fn clear_gradients(&self) -> Result<()> {
        match self.reducer {
            Some(_) => kernels::zero_grad(&self.parameters.tensors)?,
            None => kernels::free_grad(&self.parameters.tensors)?,
        }
        Ok(())
    }
}

/// Wall time by phase.
struct Clock {
    last: Instant,
    phases: BTreeMap<Phase, f64>,
    /// The GPU to wait for at the end of a phase.
    gpu: Option<i64>,
}

impl Clock {
    fn start(device: Device, timed: bool) -> Self {
        Clock {
            last: Instant::now(),
            phases: BTreeMap::new(),
            gpu: match device {
                Device::Cuda(index) if timed => Some(index as i64),
                _ => None,
            },
        }
    }

    fn lap(&mut self, phase: Phase) {
        if let Some(index) = self.gpu {
            Cuda::synchronize(index);
        }
        let now = Instant::now();
        *self.phases.entry(phase).or_default() += (now - self.last).as_secs_f64();
        self.last = now;
    }
}

#[cfg(test)]
mod tests;
