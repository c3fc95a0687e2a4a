//! Batch normalisation over the batches of all ranks (as PyTorch's `SyncBatchNorm`).

use tch::Tensor;

use crate::error::{CollectiveError, Result};
use crate::ffi::{self, call};
use crate::process_group::ProcessGroup;

/// Training-mode batch normalisation of `x`, (B, C, ...), by the mean and variance that each channel has over all ranks:
///
/// ```text
/// y = (x - mean) / sqrt(var + eps) * weight + bias
/// ```
///
/// `weight`, `bias` and the running mean and variance are (C,) in f32; B may differ between ranks. The running statistics,
/// where there are any, move by `momentum` towards those of this batch, the variance's unbiased: they are then the same on
/// every rank. Where `x` is of a half type, so is y, and the statistics are f32.
///
/// It is a collective, and so is its backward pass: every rank calls it as often and in the same order as the others. The
/// gradients of `weight` and `bias` are those of this rank's `x`; a [`crate::Reducer`] averages them like all others. In a
/// world of one rank it is `batch_norm`.
///
/// # Errors
/// `Torch` where shapes do not fit; `Timeout` and `PeerLost` as a collective. From the backward pass those come so through
/// [`crate::Reducer::backward`], and as `Torch` through [`crate::backward`], which knows of no peers.
pub fn sync_batch_norm(
    group: &ProcessGroup,
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    running: Option<(&Tensor, &Tensor)>,
    momentum: f64,
    eps: f64,
) -> Result<Tensor> {
    for (name, tensor) in [("x", x), ("weight", weight), ("bias", bias)] {
        if !tensor.defined() {
            let reason = format!("{name} is an undefined tensor");
            return Err(CollectiveError::invalid("sync_batch_norm", reason));
        }
    }
    let (running_mean, running_var) = match running {
        Some((mean, var)) => (ffi::handle(mean), ffi::handle(var)),
        None => (std::ptr::null_mut(), std::ptr::null_mut()),
    };
    let mut output = std::ptr::null_mut();
    // SAFETY: the group and the tensors are live, and the output lives across the call.
    call(|message| unsafe {
        ffi::spc_sync_batch_norm(
            group.as_ptr(),
            ffi::handle(x),
            ffi::handle(weight),
            ffi::handle(bias),
            running_mean,
            running_var,
            momentum,
            eps,
            &raw mut output,
            message,
        )
    })
    .map_err(|failure| group.peers().error("sync_batch_norm", failure))?;
    // SAFETY: a call that succeeds hands out a new handle.
    Ok(unsafe { Tensor::from_ptr(output) })
}
