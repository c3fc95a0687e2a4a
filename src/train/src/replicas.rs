//! The replica sentinel: whether all ranks hold the same weights, to the bit.
//!
//! Averaged gradients keep replicas the same only while every rank computes what it should. A bit that flips in one rank's
//! memory makes no error anywhere: each rank then trains another model, and a checkpoint holds that of rank 0.

use std::collections::BTreeMap;

use collective::ProcessGroup;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::{Result, TrainError};

/// Values hashed at once: what is in the making takes some 0.5 GB at most.
const CHUNK: i64 = 1 << 24;

/// Odd constants of splitmix64: multiplying by one loses no bit.
const PLACE: i64 = 0x9e37_79b9_7f4a_7c15_u64 as i64;
const MIX: [i64; 2] = [
    0xbf58_476d_1ce4_e5b9_u64 as i64,
    0x94d0_49bb_1331_11eb_u64 as i64,
];

/// Compares a model's replicas.
pub(crate) struct Replicas<'a> {
    /// Parameters and buffers, in order of name.
    variables: BTreeMap<String, Tensor>,
    group: &'a ProcessGroup,
    /// Updates between two comparisons; 0 where there are none.
    every: u64,
}

impl<'a> Replicas<'a> {
    pub fn new(store: &VarStore, group: &'a ProcessGroup, every: u64) -> Self {
        Replicas {
            variables: store.variables().into_iter().collect(),
            group,
            every,
        }
    }

    /// After `done` updates: compares where it is time to, and ahead of each checkpoint, so that none holds what a single
    /// rank has come to. All ranks call it with the same.
    ///
    /// # Errors
    /// `Replicas`, on every rank; what the collective fails with.
    pub fn after(&self, done: u64, checkpoint: bool) -> Result<()> {
        match self.every > 0 && (checkpoint || done.is_multiple_of(self.every)) {
            true => self.compare(done),
            false => Ok(()),
        }
    }

    fn compare(&self, done: u64) -> Result<()> {
        if self.group.world_size() < 2 || self.variables.is_empty() {
            return Ok(());
        }
        let _no_grad = tch::no_grad_guard();
        let hashes = self.variables.values().map(hash);
        let hashes = Tensor::f_stack(&hashes.collect::<Result<Vec<_>>>()?, 0)?;
        let of_ranks = self.group.all_gather(&hashes)?;
        let of_ranks = of_ranks.iter().map(|hashes| {
            let host = hashes.f_to_device(Device::Cpu)?;
            Ok(Vec::<i64>::try_from(host)?)
        });
        let of_ranks = of_ranks.collect::<Result<Vec<_>>>()?;
        let Some(Difference {
            variable,
            ranks,
            majority,
        }) = difference(&of_ranks)
        else {
            return Ok(());
        };
        let name = self.variables.keys().nth(variable);
        Err(TrainError::Replicas {
            step: done,
            variable: name.cloned().unwrap_or_default(),
            who: in_words(&ranks, majority),
        })
    }
}

/// 64 bits of a tensor's bits, (), on its device. Integers wrap and do not round: the sum is the same in every order, and a
/// value that differs alone always shows. Each value is mixed with its place, so that swapped values differ.
fn hash(tensor: &Tensor) -> Result<Tensor> {
    let kind = match tensor.kind().elt_size_in_bytes() {
        1 => Kind::Uint8,
        2 => Kind::Int16,
        4 => Kind::Int,
        _ => Kind::Int64,
    };
    let bits = tensor.f_detach()?.f_view_dtype(kind)?.f_reshape([-1])?;
    let count = bits.size1()?;
    let mut sum = Tensor::f_zeros([1], (Kind::Int64, bits.device()))?;
    for start in (0..count).step_by(CHUNK as usize) {
        let end = (start + CHUNK).min(count);
        let values = bits
            .f_narrow(0, start, end - start)?
            .f_to_kind(Kind::Int64)?;
        let mut mixed = Tensor::f_arange_start(start, end, (Kind::Int64, bits.device()))?
            .f_mul_scalar(PLACE)?;
        let _ = mixed.f_add_(&values)?;
        for factor in MIX {
            let _ = mixed.f_mul_scalar_(factor)?;
            // The upper half into the lower one: the shift keeps the sign, which the mask takes off.
            let upper = mixed
                .f_bitwise_right_shift_tensor_scalar(32)?
                .f_bitwise_and(0xffff_ffff_i64)?;
            let _ = mixed.f_bitwise_xor_tensor_(&upper)?;
        }
        let _ = sum.f_add_(&mixed.f_sum(Kind::Int64)?)?;
    }
    Ok(sum.f_squeeze()?)
}

/// Where replicas differ.
#[derive(Debug, PartialEq, Eq)]
struct Difference {
    /// Place of the first variable that is not the same on all ranks.
    variable: usize,
    /// The ranks that differ from the majority; all of them where there is none.
    ranks: Vec<usize>,
    /// Ranks that hold the same, where those are more than half.
    majority: Option<usize>,
}

/// Compares the hashes of all variables, by rank.
fn difference(of_ranks: &[Vec<i64>]) -> Option<Difference> {
    let first = of_ranks.first()?;
    let variable =
        (0..first.len()).find(|i| of_ranks.iter().any(|hashes| hashes[*i] != first[*i]))?;
    let held = |hashes: &Vec<i64>| of_ranks.iter().filter(|other| *other == hashes).count();
    let most = of_ranks
        .iter()
        .find(|hashes| 2 * held(hashes) > of_ranks.len());
    let differs = |rank: &usize| most.is_none_or(|most| of_ranks[*rank] != *most);
    Some(Difference {
        variable,
        ranks: (0..of_ranks.len()).filter(differs).collect(),
        majority: most.map(held),
    })
}

fn in_words(ranks: &[usize], majority: Option<usize>) -> String {
    let list: Vec<String> = ranks.iter().map(usize::to_string).collect();
    let list = list.join(", ");
    match (majority, ranks) {
        (Some(held), [_]) => format!("rank {list} holds other weights than the {held} others"),
        (Some(held), _) => format!("ranks {list} hold other weights than the {held} that agree"),
        (None, [a, b]) => {
            format!("ranks {a} and {b} hold different weights, and two cannot outvote each other")
        }
        (None, _) => format!("of ranks {list} no majority holds the same weights"),
    }
}

#[cfg(test)]
mod tests;
