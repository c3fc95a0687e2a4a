//! Multi-tensor kernels: one call for all parameters of a model instead of one for each.
//!
//! Lists are parallel: entry `i` of each belongs to parameter `i`. All of them run without recording a graph.

mod optimizer;

use tch::Tensor;

use crate::error::{CollectiveError, Result};
use crate::ffi::{self, call};

pub use optimizer::{AdamW, Lamb, Sgd, fused_adamw, fused_sgd, lamb};

/// The 2-norm of all gradients taken as one vector: a scalar tensor on their device, so that nothing waits.
///
/// # Errors
/// `Invalid` for no gradients.
pub fn grad_norm(gradients: &[Tensor]) -> Result<Tensor> {
    some("grad_norm", gradients, "gradients")?;
    let list = ffi::handles(gradients);
    let mut norm = std::ptr::null_mut();
    // SAFETY: the tensors are live, and the output lives across the call.
    run("grad_norm", |message| unsafe {
        ffi::spc_grad_norm(list.as_ptr(), list.len(), &raw mut norm, message)
    })?;
    // SAFETY: a call that succeeds hands out a new handle.
    Ok(unsafe { Tensor::from_ptr(norm) })
}

/// `torch.nn.utils.clip_grad_norm_`: multiplies the gradients by `min(1, max_norm / (norm + 1e-6))` and returns the norm they
/// had. A norm that is not finite makes every gradient NaN, as in PyTorch: look at the returned value before the update.
///
/// # Errors
/// `Invalid` for no gradients or a `max_norm` that is not a positive number.
pub fn clip_grad_norm(gradients: &[Tensor], max_norm: f64) -> Result<f64> {
    some("clip_grad_norm", gradients, "gradients")?;
    if max_norm.is_nan() || max_norm <= 0.0 {
        return Err(CollectiveError::invalid(
            "clip_grad_norm",
            format!("max_norm is {max_norm}; give a positive number"),
        ));
    }
    let list = ffi::handles(gradients);
    let mut norm = 0.0;
    // SAFETY: the tensors are live, and the output lives across the call.
    run("clip_grad_norm", |message| unsafe {
        ffi::spc_clip_grad_norm(list.as_ptr(), list.len(), max_norm, &raw mut norm, message)
    })?;
    Ok(norm)
}

/// Multiplies each tensor by `factor`, in place.
///
/// # Errors
/// `Torch`: libtorch refused.
pub fn foreach_mul_(tensors: &[Tensor], factor: f64) -> Result<()> {
    if tensors.is_empty() {
        return Ok(());
    }
    let list = ffi::handles(tensors);
    // SAFETY: the tensors are live.
    run("foreach_mul_", |message| unsafe {
        ffi::spc_foreach_mul(list.as_ptr(), list.len(), factor, message)
    })
}

/// Moves each tensor towards its end, in place: `tensor + weight (end - tensor)`.
///
/// # Errors
/// `Invalid` for lists of different length; `Torch`: libtorch refused.
pub fn foreach_lerp_(tensors: &[Tensor], ends: &[Tensor], weight: f64) -> Result<()> {
    if tensors.len() != ends.len() {
        let reason = format!("{} tensors but {} ends", tensors.len(), ends.len());
        return Err(CollectiveError::invalid("foreach_lerp_", reason));
    }
    if tensors.is_empty() {
        return Ok(());
    }
    let (list, end_list) = (ffi::handles(tensors), ffi::handles(ends));
    // SAFETY: the tensors are live, and the lists have one length.
    run("foreach_lerp_", |message| unsafe {
        ffi::spc_foreach_lerp(
            list.as_ptr(),
            end_list.as_ptr(),
            list.len(),
            weight,
            message,
        )
    })
}

/// Sets to zero, in place, the gradients of the parameters that have one. Works on views of a reducer's buckets, where tch's
/// own `zero_grad` panics.
///
/// # Errors
/// `Torch`: libtorch refused.
pub fn zero_grad(parameters: &[Tensor]) -> Result<()> {
    let list = ffi::handles(parameters);
    // SAFETY: the tensors are live.
    run("zero_grad", |message| unsafe {
        ffi::spc_zero_grad(list.as_ptr(), list.len(), message)
    })
}

/// Takes the gradients off the parameters, which frees their memory; those of a reducer with `gradient_as_bucket_view` lie in
/// its buckets, which stay.
///
/// # Errors
/// `Torch`: libtorch refused.
pub fn free_grad(parameters: &[Tensor]) -> Result<()> {
    let list = ffi::handles(parameters);
    // SAFETY: the tensors are live.
    run("free_grad", |message| unsafe {
        ffi::spc_free_grad(list.as_ptr(), list.len(), message)
    })
}

/// The gradient of each parameter; they share memory with the parameters' own.
///
/// # Errors
/// `Invalid` names the first parameter that has none.
pub fn grads(parameters: &[Tensor]) -> Result<Vec<Tensor>> {
    let gradient = |(index, parameter): (usize, &Tensor)| {
        let mut gradient = std::ptr::null_mut();
        // SAFETY: the tensor is live, and the output lives across the call.
        run("grads", |message| unsafe {
            ffi::spc_grad(ffi::handle(parameter), &raw mut gradient, message)
        })?;
        if gradient.is_null() {
            let reason =
                format!("parameter {index} has no gradient; freeze it or use it in the loss");
            return Err(CollectiveError::invalid("grads", reason));
        }
        // SAFETY: a handle that is not null is new.
        Ok(unsafe { Tensor::from_ptr(gradient) })
    };
    parameters.iter().enumerate().map(gradient).collect()
}

/// Lays the 4-dimensional parameters (convolution kernels) out in channels-last order; the others stay. The parameters stay
/// the same tensors. Call it before a [`crate::Reducer`] or optimizer state is made from them.
///
/// # Errors
/// `Torch`: libtorch refused.
pub fn channels_last(parameters: &[Tensor]) -> Result<()> {
    let list = ffi::handles(parameters);
    // SAFETY: the tensors are live.
    run("channels_last", |message| unsafe {
        ffi::spc_channels_last(list.as_ptr(), list.len(), message)
    })
}

/// A 4-dimensional tensor (B, C, H, W) with its values in channels-last order: itself where they lie so already, else a copy,
/// through which gradients flow. A tensor of another dimension comes back as it is.
///
/// # Errors
/// `OutOfMemory`; `Torch`: libtorch refused.
pub fn to_channels_last(tensor: &Tensor) -> Result<Tensor> {
    let mut output = std::ptr::null_mut();
    // SAFETY: the tensor is live, and the output lives across the call.
    run("to_channels_last", |message| unsafe {
        ffi::spc_to_channels_last(ffi::handle(tensor), &raw mut output, message)
    })?;
    // SAFETY: a call that succeeds hands out a new handle.
    Ok(unsafe { Tensor::from_ptr(output) })
}

/// Whether the values of a 4-dimensional tensor lie in channels-last order without gaps. A map of one channel, or of one
/// pixel, lies in both orders.
///
/// # Errors
/// `Torch`: libtorch refused.
pub fn is_channels_last(tensor: &Tensor) -> Result<bool> {
    let mut yes = 0;
    // SAFETY: the tensor is live, and the output lives across the call.
    run("is_channels_last", |message| unsafe {
        ffi::spc_is_channels_last(ffi::handle(tensor), &raw mut yes, message)
    })?;
    Ok(yes != 0)
}

/// Multiplies the gradients by `inverse_scale` and sets `found_inf` to 1 where one was not finite. Both are f32 tensors of one
/// element, on the gradients' device; `found_inf` begins at 0.
///
/// # Errors
/// `Torch`: libtorch refused.
pub fn amp_unscale(gradients: &[Tensor], found_inf: &Tensor, inverse_scale: &Tensor) -> Result<()> {
    let list = ffi::handles(gradients);
    // SAFETY: the tensors are live.
    run("amp_unscale", |message| unsafe {
        ffi::spc_amp_unscale(
            list.as_ptr(),
            list.len(),
            ffi::handle(found_inf),
            ffi::handle(inverse_scale),
            message,
        )
    })
}

/// How a loss scale moves; `default` is that of PyTorch's `GradScaler`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScaleGrowth {
    /// After `interval` updates in a row with finite gradients.
    pub growth_factor: f64,
    /// After an update with a gradient that was not finite.
    pub backoff_factor: f64,
    /// In updates.
    pub interval: i64,
}

impl Default for ScaleGrowth {
    fn default() -> Self {
        Self {
            growth_factor: 2.0,
            backoff_factor: 0.5,
            interval: 2000,
        }
    }
}

/// Moves the loss scale after an update, in place. `scale` and `found_inf` are f32 tensors of one element, `growth_tracker`
/// (the updates in a row that were finite) an i32 one, all on one device.
///
/// # Errors
/// `Torch`: libtorch refused.
pub fn amp_update_scale(
    scale: &Tensor,
    growth_tracker: &Tensor,
    found_inf: &Tensor,
    growth: &ScaleGrowth,
) -> Result<()> {
    // SAFETY: the tensors are live.
    run("amp_update_scale", |message| unsafe {
        ffi::spc_amp_update_scale(
            ffi::handle(scale),
            ffi::handle(growth_tracker),
            ffi::handle(found_inf),
            growth.growth_factor,
            growth.backoff_factor,
            growth.interval,
            message,
        )
    })
}

fn run(operation: &str, body: impl FnOnce(ffi::Message) -> i32) -> Result<()> {
    call(body).map_err(|failure| CollectiveError::local(operation, failure))
}

fn some(operation: &str, list: &[Tensor], what: &str) -> Result<()> {
    if list.is_empty() {
        return Err(CollectiveError::invalid(
            operation,
            format!("there are no {what}"),
        ));
    }
    Ok(())
}
