//! Multi-tensor kernels: one call for all parameters of a model instead of one for each.
//!
//! Lists are parallel: entry `i` of each belongs to parameter `i`. All of them run without recording a graph.

use tch::Tensor;

use crate::error::{CollectiveError, Result};
use crate::ffi::{self, call};

/// The settings of AdamW (Loshchilov and Hutter, <https://arxiv.org/abs/1711.05101>); `default` is PyTorch's choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 1e-2,
        }
    }
}

/// One update of AdamW with decoupled weight decay, in place. For each parameter p with gradient g, moments m and v, step t:
///
/// ```text
/// t += 1;  p -= lr * weight_decay * p;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
/// p -= lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
/// ```
///
/// `steps` holds one f32 a parameter, on the parameter's device, beginning at 0; this call increments them. Parameters share
/// one type and one device; a gradient and the moments have their parameter's shape, strides and type (make moments with
/// `zeros_like`).
///
/// # Errors
/// `Invalid` for empty lists and lists of different length; `Torch` names the parameter whose tensors do not fit.
pub fn fused_adamw(
    parameters: &[Tensor],
    gradients: &[Tensor],
    exp_avg: &[Tensor],
    exp_avg_sq: &[Tensor],
    steps: &[Tensor],
    settings: &AdamW,
) -> Result<()> {
    some("fused_adamw", parameters, "parameters")?;
    let count = parameters.len();
    for (name, list) in [
        ("gradients", gradients),
        ("exp_avg", exp_avg),
        ("exp_avg_sq", exp_avg_sq),
        ("steps", steps),
    ] {
        if list.len() != count {
            let reason = format!("{count} parameters but {} {name}", list.len());
            return Err(CollectiveError::invalid("fused_adamw", reason));
        }
    }
    let lists = [parameters, gradients, exp_avg, exp_avg_sq, steps].map(ffi::handles);
    let [parameters, gradients, exp_avg, exp_avg_sq, steps] = &lists;
    let AdamW {
        lr,
        beta1,
        beta2,
        eps,
        weight_decay,
    } = *settings;
    // SAFETY: the tensors are live, and the lists have one length.
    run("fused_adamw", |message| unsafe {
        ffi::spc_fused_adamw(
            parameters.as_ptr(),
            gradients.as_ptr(),
            exp_avg.as_ptr(),
            exp_avg_sq.as_ptr(),
            steps.as_ptr(),
            count,
            lr,
            beta1,
            beta2,
            eps,
            weight_decay,
            message,
        )
    })
}

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
