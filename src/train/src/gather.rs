//! Work that ranks share study by study, its results brought together, and its end where one of them is asked to stop.

use collective::{ProcessGroup, ReduceOp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::{Device, Kind, Tensor};

use crate::{Result, TrainError, progress};

/// This rank's stride of the items.
pub fn share<'a, T>(items: &'a [T], group: &ProcessGroup) -> impl Iterator<Item = &'a T> {
    items.iter().skip(group.rank()).step_by(group.world_size())
}

/// Ends work that is shared where some rank has left its part of it early. All ranks call it, also those that are done with
/// theirs: so nobody waits in a collective for one that has gone.
///
/// # Errors
/// `Stopped`, on all ranks or on none.
pub fn go_on_together(left_early: bool, group: &ProcessGroup, device: Device) -> Result<()> {
    let stopped = match group.world_size() {
        1 => left_early,
        _ => {
            let _waiting = progress::waiting();
            let some =
                Tensor::f_from_slice(&[f32::from(u8::from(left_early))])?.f_to_device(device)?;
            group.all_reduce(&some, ReduceOp::Max)?;
            some.f_double_value(&[0])? > 0.0
        }
    };
    match stopped {
        true => Err(TrainError::Stopped),
        false => Ok(()),
    }
}

/// The rows of all ranks, in order of rank, on every rank.
pub fn gather_rows<T: Serialize + DeserializeOwned>(
    rows: Vec<T>,
    group: &ProcessGroup,
    device: Device,
) -> Result<Vec<T>> {
    if group.world_size() == 1 {
        return Ok(rows);
    }
    let _waiting = progress::waiting();
    let mut bytes = serde_json::to_vec(&rows).map_err(TrainError::Gather)?;
    let length = Tensor::f_from_slice(&[bytes.len() as i64])?.f_to_device(device)?;
    let lengths = group
        .all_gather(&length)?
        .iter()
        .map(|n| Ok(usize::try_from(n.f_int64_value(&[0])?).unwrap_or(0)))
        .collect::<Result<Vec<usize>>>()?;
    // All ranks send the same length; what is past a rank's own is cut off again.
    bytes.resize(lengths.iter().copied().max().unwrap_or(0), 0);
    let sent = Tensor::f_from_slice(&bytes)?.f_to_device(device)?;
    let mut all = Vec::new();
    for (part, length) in group.all_gather(&sent)?.iter().zip(lengths) {
        let part = part.f_to_device(Device::Cpu)?.f_to_kind(Kind::Uint8)?;
        let mut bytes = vec![0u8; part.numel()];
        part.f_copy_data_u8(&mut bytes, part.numel())?;
        bytes.truncate(length);
        all.extend(serde_json::from_slice::<Vec<T>>(&bytes).map_err(TrainError::Gather)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::on_ranks;

    #[test]
    fn all_ranks_go_on_or_none_does() {
        for (leaves, world_size) in [(None, 2), (Some(0), 1), (Some(1), 2)] {
            let ended = on_ranks(world_size, |group| {
                let left_early = leaves == Some(group.rank());
                go_on_together(left_early, group, Device::Cpu)
            });
            for ended in ended {
                match leaves {
                    None => assert!(ended.is_ok(), "{ended:?}"),
                    Some(_) => assert!(matches!(ended, Err(TrainError::Stopped)), "{ended:?}"),
                }
            }
        }
    }
}
