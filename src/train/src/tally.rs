//! The numbers of an update, summed over its micro-batches and over ranks. They stay on the device until all are there, so
//! that a GPU does not wait for the host to look at each loss.

use collective::{ProcessGroup, ReduceOp};
use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::step::Losses;

#[derive(Debug)]
pub(crate) struct Tally {
    device: Device,
    micro_batches: usize,
    names: Vec<&'static str>,
    /// (1 + parts,) f64: the loss, then its parts
    losses: Option<Tensor>,
    images: usize,
    /// Of this rank's micro-batches, in order: what each sample is called in the data set.
    samples: Vec<usize>,
}

/// What all ranks came to together.
#[derive(Debug, PartialEq)]
pub(crate) struct Totals {
    /// Mean over the micro-batches of all ranks.
    pub loss: f64,
    pub parts: Vec<(&'static str, f64)>,
    pub images: u64,
    /// Some rank was asked to stop.
    pub stop: bool,
    /// Some rank has a gradient that is not finite.
    pub overflow: bool,
    /// The samples of each rank, in its order.
    pub samples: Vec<Vec<usize>>,
}

impl Tally {
    pub fn new(device: Device) -> Self {
        Tally {
            device,
            micro_batches: 0,
            names: Vec::new(),
            losses: None,
            images: 0,
            samples: Vec::new(),
        }
    }

    /// Notes which samples a micro-batch is of. All ranks note the same number.
    pub fn note(&mut self, samples: &[usize]) {
        self.samples.extend(samples);
    }

    pub fn add(&mut self, losses: &Losses) -> Result<()> {
        let values =
            std::iter::once(&losses.total).chain(losses.parts.iter().map(|(_, part)| part));
        let values = values
            .map(|value| Ok(value.f_detach()?.f_to_kind(Kind::Double)?.f_reshape([1])?))
            .collect::<Result<Vec<_>>>()?;
        let values = Tensor::f_cat(&values, 0)?;
        self.losses = Some(match &self.losses {
            None => values,
            Some(sum) => sum.f_add(&values)?,
        });
        self.names = losses.parts.iter().map(|(name, _)| *name).collect();
        self.images += losses.images;
        self.micro_batches += 1;
        Ok(())
    }

    /// One all-reduce for all numbers; each rank's samples have a place of their own in it, where the others add 0. `overflow`, (1,): above 0 where this rank has a gradient that is not finite.
    pub fn over_ranks(
        self,
        group: &ProcessGroup,
        stop: bool,
        overflow: Option<&Tensor>,
    ) -> Result<Totals> {
        let counts = [f64::from(u8::from(stop)), self.images as f64];
        let overflow = match overflow {
            Some(overflow) => overflow.f_to_kind(Kind::Double)?,
            None => Tensor::f_zeros([1], (Kind::Double, self.device))?,
        };
        let mut all = vec![
            Tensor::f_from_slice(&counts)?.f_to_device(self.device)?,
            overflow,
        ];
        // Before the losses, which may be none: each place has a meaning by its number.
        let mine = self.samples.len();
        let mut samples = vec![0.0; mine * group.world_size()];
        let places = samples[mine * group.rank()..].iter_mut();
        for (place, sample) in places.zip(&self.samples) {
            // Exact: no data set has 2^53 samples.
            *place = *sample as f64;
        }
        all.push(Tensor::f_from_slice(&samples)?.f_to_device(self.device)?);
        all.extend(self.losses);
        let all = Tensor::f_cat(&all, 0)?;
        if group.world_size() > 1 {
            group.all_reduce(&all, ReduceOp::Sum)?;
        }
        let all = Vec::<f64>::try_from(all.f_to_device(Device::Cpu)?)?;
        let count = (self.micro_batches * group.world_size()) as f64;
        let (samples, sums) = all[3..].split_at(samples.len());
        let mut means = sums.iter().map(|sum| sum / count);
        Ok(Totals {
            stop: all[0] > 0.0,
            images: all[1] as u64,
            overflow: all[2] > 0.0,
            samples: samples
                .chunks_exact(mine.max(1))
                .map(|of_rank| of_rank.iter().map(|sample| *sample as usize).collect())
                .collect(),
            loss: means.next().unwrap_or(f64::NAN),
            parts: self.names.into_iter().zip(means).collect(),
        })
    }
}
