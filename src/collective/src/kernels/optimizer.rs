//! One update of an optimizer, for all parameters in one call.

use tch::Tensor;

use super::{run, some};
use crate::error::{CollectiveError, Result};
use crate::ffi;

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
    let count = parallel(
        "fused_adamw",
        parameters,
        &[
            ("gradients", gradients),
            ("exp_avg", exp_avg),
            ("exp_avg_sq", exp_avg_sq),
            ("steps", steps),
        ],
    )?;
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

/// The settings of stochastic gradient descent; `default` is PyTorch's choice but for `lr`, which it leaves open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    pub lr: f64,
    /// 0: none.
    pub momentum: f64,
    /// Step along the gradient that the momentum leads to (Sutskever et al., 2013); needs a momentum.
    pub nesterov: bool,
    pub weight_decay: f64,
}

impl Default for Sgd {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            momentum: 0.0,
            nesterov: false,
            weight_decay: 0.0,
        }
    }
}

/// One update of SGD with momentum (no dampening), in place. For each parameter p with gradient g and momentum buffer b:
///
/// ```text
/// g += weight_decay * p;  b = first ? g : momentum b + g;  p -= lr * (nesterov ? g + momentum b : b)
/// ```
///
/// and `p -= lr * g` where momentum is 0: then `momentum_buffers` is not read and may be empty. `first` says that the buffers
/// hold nothing yet. Parameters share one type and one device; a gradient and the buffer have their parameter's shape, strides
/// and type. The gradients stay as they are.
///
/// # Errors
/// `Invalid` for no parameters, lists of different length, and Nesterov without a momentum; `Torch` names the parameter whose
/// tensors do not fit.
pub fn fused_sgd(
    parameters: &[Tensor],
    gradients: &[Tensor],
    momentum_buffers: &[Tensor],
    settings: &Sgd,
    first: bool,
) -> Result<()> {
    let Sgd {
        lr,
        momentum,
        nesterov,
        weight_decay,
    } = *settings;
    if nesterov && momentum == 0.0 {
        let reason = "nesterov is on and momentum 0; give a momentum, such as 0.9";
        return Err(CollectiveError::invalid("fused_sgd", reason));
    }
    let mut lists = vec![("gradients", gradients)];
    if momentum != 0.0 {
        lists.push(("momentum_buffers", momentum_buffers));
    }
    let count = parallel("fused_sgd", parameters, &lists)?;
    let [parameters, gradients, momentum_buffers] =
        &[parameters, gradients, momentum_buffers].map(ffi::handles);
    // SAFETY: the tensors are live, and the lists that are read have one length.
    run("fused_sgd", |message| unsafe {
        ffi::spc_fused_sgd(
            parameters.as_ptr(),
            gradients.as_ptr(),
            momentum_buffers.as_ptr(),
            count,
            lr,
            momentum,
            weight_decay,
            nesterov.into(),
            first.into(),
            message,
        )
    })
}

/// The settings of LAMB; `default` is timm's choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lamb {
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    /// Part of the update that the trust ratio scales, not decoupled from it.
    pub weight_decay: f64,
    /// Scale also the updates of parameters without weight decay by their trust ratio.
    pub always_adapt: bool,
}

impl Default for Lamb {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-6,
            weight_decay: 1e-2,
            always_adapt: false,
        }
    }
}

/// One update of LAMB (You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes",
/// arXiv:1904.00962) with bias correction, in place, as `timm.optim.Lamb` does it with `max_grad_norm=None`: clip before. For
/// each parameter p with gradient g, moments m and v, step t:
///
/// ```text
/// t += 1;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
/// u = (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay * p
/// p -= lr * r * u,  r = |p| / |u|, or 1 where one of the norms is 0, or where weight_decay is 0 and always_adapt is off
/// ```
///
/// The norms stay on the device, so that nothing waits. `steps` and what the tensors of a parameter have in common are as in
/// [`fused_adamw`].
///
/// # Errors
/// As [`fused_adamw`].
pub fn lamb(
    parameters: &[Tensor],
    gradients: &[Tensor],
    exp_avg: &[Tensor],
    exp_avg_sq: &[Tensor],
    steps: &[Tensor],
    settings: &Lamb,
) -> Result<()> {
    let count = parallel(
        "lamb",
        parameters,
        &[
            ("gradients", gradients),
            ("exp_avg", exp_avg),
            ("exp_avg_sq", exp_avg_sq),
            ("steps", steps),
        ],
    )?;
    let lists = [parameters, gradients, exp_avg, exp_avg_sq, steps].map(ffi::handles);
    let [parameters, gradients, exp_avg, exp_avg_sq, steps] = &lists;
    let Lamb {
        lr,
        beta1,
        beta2,
        eps,
        weight_decay,
        always_adapt,
    } = *settings;
    // SAFETY: the tensors are live, and the lists have one length.
    run("lamb", |message| unsafe {
        ffi::spc_lamb(
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
            always_adapt.into(),
            message,
        )
    })
}

/// The number of parameters, once every list is seen to have as many entries.
fn parallel(operation: &str, parameters: &[Tensor], lists: &[(&str, &[Tensor])]) -> Result<usize> {
    some(operation, parameters, "parameters")?;
    let count = parameters.len();
    for (name, list) in lists {
        if list.len() != count {
            let reason = format!("{count} parameters but {} {name}", list.len());
            return Err(CollectiveError::invalid(operation, reason));
        }
    }
    Ok(count)
}
