//! Work that ranks share study by study, and its results brought together.

use collective::ProcessGroup;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::{Device, Kind, Tensor};

use crate::{Result, TrainError, progress};

/// This rank's stride of the items.
pub fn share<'a, T>(items: &'a [T], group: &ProcessGroup) -> impl Iterator<Item = &'a T> {
    items.iter().skip(group.rank()).step_by(group.world_size())
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
