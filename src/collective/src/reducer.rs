//! c10d's Reducer: gradients averaged over ranks in buckets, while the backward pass still runs.
//!
//! One synchronised step: [`Reducer::prepare_for_forward`], forward, [`Reducer::prepare_for_backward`],
//! [`Reducer::backward`], [`Reducer::check_finished`]. A micro-step of gradient accumulation is forward and [`backward`]
//! alone: gradients add up locally, and the next synchronised step sends the sum.

use std::fmt;
use std::ptr::NonNull;

use tch::Tensor;

use crate::autograd::run_backward;
use crate::error::{CollectiveError, Result};
use crate::ffi::{self, Failure, call};
use crate::peer::Peers;
use crate::process_group::ProcessGroup;

/// The settings of PyTorch's `DistributedDataParallel` that a [`Reducer`] has; `default` is PyTorch's choice but for
/// `gradient_as_bucket_view`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReducerOptions {
    /// Size of a bucket, MiB.
    pub bucket_cap_mb: f64,
    /// Size of the bucket that is sent first, MiB: small, so that sending starts early.
    pub first_bucket_mb: f64,
    /// Look in each backward pass for parameters that take no part in it. Costs a walk of the graph a step.
    pub find_unused: bool,
    /// Let gradients be views of the buckets, which saves a copy of each. Clear them with [`crate::kernels::zero_grad`].
    pub gradient_as_bucket_view: bool,
}

impl Default for ReducerOptions {
    fn default() -> Self {
        Self {
            bucket_cap_mb: 25.0,
            first_bucket_mb: 1.0,
            find_unused: false,
            gradient_as_bucket_view: true,
        }
    }
}

/// Hooks on the parameters that average their gradients over the ranks of a group.
pub struct Reducer {
    handle: NonNull<ffi::Reducer>,
    find_unused: bool,
    peers: Peers,
}

// SAFETY: c10d's Reducer is not bound to a thread.
unsafe impl Send for Reducer {}

impl Reducer {
    /// Checks that every rank has the same parameters, and hooks into them.
    ///
    /// `parameters` are the trainable ones, in the same order on every rank, in their final memory layout, and with the same
    /// values (see [`ProcessGroup::broadcast_all`]); a hash map's order will not do.
    ///
    /// # Errors
    /// `Invalid` for options out of range and for no parameters; otherwise as a collective, since shapes are compared over
    /// the group.
    pub fn new(
        parameters: &[Tensor],
        group: &ProcessGroup,
        options: ReducerOptions,
    ) -> Result<Self> {
        let operation = format!("rank {}: reducer", group.rank());
        if parameters.is_empty() {
            return Err(CollectiveError::invalid(
                &operation,
                "there are no parameters to reduce the gradients of",
            ));
        }
        let bytes = |mebibytes: f64, option: &str| {
            let size = mebibytes * 1024.0 * 1024.0;
            if (1.0..=i64::MAX as f64).contains(&size) {
                Ok(size as i64)
            } else {
                Err(CollectiveError::invalid(
                    &operation,
                    format!("{option} is {mebibytes}; give a size in MiB"),
                ))
            }
        };
        let bucket_bytes = bytes(options.bucket_cap_mb, "bucket_cap_mb")?;
        let first_bucket_bytes = bytes(options.first_bucket_mb, "first_bucket_mb")?;
        let handles = ffi::handles(parameters);
        let mut handle = std::ptr::null_mut();
        // SAFETY: the group and the tensors are live, and the output lives across the call.
        call(|message| unsafe {
            ffi::spc_reducer_new(
                handles.as_ptr(),
                handles.len(),
                group.as_ptr(),
                bucket_bytes,
                first_bucket_bytes,
                options.find_unused.into(),
                options.gradient_as_bucket_view.into(),
                &raw mut handle,
                message,
            )
        })
        .map_err(|failure| group.peers().error("reducer", failure))?;
        let handle = NonNull::new(handle).ok_or_else(|| {
            CollectiveError::invalid(&operation, "libtorch made none and reported no error")
        })?;
        Ok(Self {
            handle,
            find_unused: options.find_unused,
            peers: group.peers().clone(),
        })
    }

    /// Before the forward pass of a synchronised step. After the first one it orders the buckets as the gradients came, which
    /// is a collective.
    ///
    /// # Errors
    /// `UnusedParameters` when the last synchronised step was not finished; otherwise as a collective.
    pub fn prepare_for_forward(&self) -> Result<()> {
        // SAFETY: the handle is live.
        call(|message| unsafe {
            ffi::spc_reducer_prepare_for_forward(self.handle.as_ptr(), message)
        })
        .map_err(|failure| self.error("prepare_for_forward", failure))
    }

    /// Before the backward pass of a synchronised step: the next [`Reducer::backward`] communicates. `outputs` are those of
    /// the forward pass, which only a reducer with `find_unused` looks at.
    ///
    /// # Errors
    /// As [`Reducer::prepare_for_forward`].
    pub fn prepare_for_backward(&self, outputs: &[Tensor]) -> Result<()> {
        let handles = if self.find_unused {
            ffi::handles(outputs)
        } else {
            Vec::new()
        };
        // SAFETY: the handles are live.
        call(|message| unsafe {
            ffi::spc_reducer_prepare_for_backward(
                self.handle.as_ptr(),
                handles.as_ptr(),
                handles.len(),
                message,
            )
        })
        .map_err(|failure| self.error("prepare_for_backward", failure))
    }

    /// [`backward`], with errors that name this rank and its peers.
    ///
    /// # Errors
    /// `Timeout` and `PeerLost` when the all-reduce of a bucket fails; then the group is dead.
    pub fn backward(&self, loss: &Tensor) -> Result<()> {
        run_backward(loss).map_err(|failure| self.error("backward", failure))
    }

    /// After the backward pass of a synchronised step: every parameter got its gradient and every bucket was reduced.
    ///
    /// # Errors
    /// `UnusedParameters` names those that got none. Other ranks may then wait for this one: end the job.
    pub fn check_finished(&self) -> Result<()> {
        // SAFETY: the handle is live.
        call(|message| unsafe { ffi::spc_reducer_check_finished(self.handle.as_ptr(), message) })
            .map_err(|failure| self.error("check_finished", failure))
    }

    fn error(&self, operation: &str, failure: Failure) -> CollectiveError {
        match unused_parameters(&failure.text) {
            Some(indices) => CollectiveError::UnusedParameters {
                rank: self.peers.rank,
                indices,
            },
            None => self.peers.error(operation, failure),
        }
    }
}

impl Drop for Reducer {
    fn drop(&mut self) {
        // SAFETY: the handle is live and not used again.
        unsafe { ffi::spc_reducer_free(self.handle.as_ptr()) }
    }
}

impl fmt::Debug for Reducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reducer")
            .field("rank", &self.peers.rank)
            .field("find_unused", &self.find_unused)
            .finish_non_exhaustive()
    }
}

/// Adds the gradient of `loss`, a scalar, to the parameters.
///
/// # Errors
/// `OutOfMemory`; `Torch` where the loss has no graph.
pub fn backward(loss: &Tensor) -> Result<()> {
    run_backward(loss).map_err(|failure| CollectiveError::local("backward", failure))
}

/// The indices in the Reducer's text `Parameter indices which did not receive grad for rank 0: 2 3`.
fn unused_parameters(text: &str) -> Option<Vec<usize>> {
    let (_, list) = text
        .split_once("did not receive grad for rank ")?
        .1
        .split_once(": ")?;
    let indices: Vec<usize> = list
        .split_whitespace()
        .map_while(|word| word.parse().ok())
        .collect();
    (!indices.is_empty()).then_some(indices)
}

#[cfg(test)]
mod tests {
    use super::unused_parameters;

    #[test]
    fn unused_parameters_are_read_from_the_reducers_text() {
        let text = "Expected to have finished reduction.\nParameter indices which did not receive grad for rank 0: 2 13\n In addition, you can";
        assert_eq!(unused_parameters(text), Some(vec![2, 13]));
        assert_eq!(unused_parameters("did not receive grad for rank 0: "), None);
        assert_eq!(unused_parameters("Timed out"), None);
    }
}
