//! Which rank writes what of a training's checkpoints: rank 0 everything, or each rank a part.

use std::hash::{BuildHasher, Hasher, RandomState};

use checkpoint::{Mark, Share};
use collective::ProcessGroup;
use event::EventKind;
use recipe::Shards;
use tch::{Device, Tensor};

use crate::report::Report;
use crate::restore::agree_on;
use crate::trainer::CheckpointPlace;
use crate::{Result, TrainError};

/// From how many bytes of state on `checkpoint.shards: auto` is worth the files that it makes: 256 MiB, which one rank
/// copies in some 50 ms and writes in some 0.5 s.
const LARGE: usize = 256 << 20;

/// A rank's part in the writing of checkpoints, the same for all that one training writes.
#[derive(Debug)]
pub(crate) struct Writers {
    rank: usize,
    world_size: usize,
    share: Option<Share>,
    /// For each tensor of the model and of the optimizer, in order of name, whether this rank writes it; without shards rank 0
    /// writes all.
    own: [Vec<bool>; 2],
}

impl Writers {
    /// Rank 0 writes everything.
    pub fn one(rank: usize, world_size: usize) -> Self {
        Writers {
            rank,
            world_size,
            share: None,
            own: Default::default(),
        }
    }

    /// What the recipe asks for, as far as the state of these bytes for each tensor of the model and of the optimizer and the
    /// ranks' view of the disk allow. All ranks call it, and come to the same.
    ///
    /// # Errors
    /// The recipe insists on shards, and a rank does not see the folder that rank 0 sees.
    pub fn agree(
        place: &CheckpointPlace,
        sizes: &[Vec<usize>; 2],
        group: &ProcessGroup,
        device: Device,
        report: &dyn Report,
    ) -> Result<Self> {
        let one = Writers::one(group.rank(), group.world_size());
        let bytes: Vec<usize> = sizes.iter().flatten().copied().collect();
        let wanted = match place.settings.shards {
            Shards::Off => false,
            Shards::On => true,
            Shards::Auto => bytes.iter().sum::<usize>() >= LARGE,
        };
        if one.world_size == 1 || !wanted {
            return Ok(one);
        }

        // Rank 0's mark is there before the others hear of it, and stays until all have looked.
        let (token, mark) = match one.rank {
            0 => {
                let token = RandomState::new().build_hasher().finish() >> 1;
                (Some(token), Some(Mark::leave(&place.root, token)?))
            }
            _ => (None, None),
        };
        let token = agree_on(group, device, token)?.unwrap_or_default();
        let sees = i64::from(Mark::is_seen(&place.root, token));
        let sees = Tensor::f_from_slice(&[sees])?.f_to_device(device)?;
        let mut blind = Vec::new();
        for (rank, sees) in group.all_gather(&sees)?.iter().enumerate() {
            if sees.f_int64_value(&[0])? == 0 {
                blind.push(rank);
            }
        }
        drop(mark);
        if !blind.is_empty() {
            let error = TrainError::NotShared {
                root: place.root.display().to_string(),
                ranks: blind,
            };
            if place.settings.shards == Shards::On {
                return Err(error);
            }
            if one.rank == 0 {
                let message = format!("rank 0 writes the checkpoints alone: {error}");
                report.report(EventKind::Warning { message });
            }
            return Ok(one);
        }

        let own = checkpoint::divide(&bytes, one.world_size);
        let mut own: Vec<bool> = own.into_iter().map(|part| part == one.rank).collect();
        let of_model = sizes.first().map_or(0, Vec::len).min(own.len());
        let optimizer = own.split_off(of_model);
        Ok(Writers {
            share: Some(Share {
                part: one.rank,
                parts: one.world_size,
                token,
                patience: place.patience,
            }),
            own: [own, optimizer],
            ..one
        })
    }

    pub fn world_size(&self) -> usize {
        self.world_size
    }

    /// Where each rank writes a part: this rank's.
    pub fn share(&self) -> Option<&Share> {
        self.share.as_ref()
    }

    /// Whether this rank writes at all.
    pub fn writes(&self) -> bool {
        self.rank == 0 || self.share.is_some()
    }

    /// Of all tensors of the model, in order of name, those that this rank writes.
    pub fn own_of_model<T>(&self, all: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
        let [model, _] = &self.own;
        self.own_of(model, all)
    }

    /// As [`Writers::own_of_model`], of the optimizer.
    pub fn own_of_optimizer<T>(&self, all: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
        let [_, optimizer] = &self.own;
        self.own_of(optimizer, all)
    }

    fn own_of<T>(&self, own: &[bool], all: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
        let whole = self.share.is_none();
        let mut own = own.iter().copied();
        all.into_iter().filter(move |_| own.next().unwrap_or(whole))
    }
}

#[cfg(test)]
mod tests;
