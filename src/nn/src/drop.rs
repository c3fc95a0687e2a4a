//! Random parts of a network switched off in training.

use tch::Tensor;

use crate::error::Result;
use crate::pass::Pass;

/// Stochastic depth (Huang et al., arXiv:1603.09382): whole samples of `x`, (B, ...), become 0 with probability `rate`; the
/// others are scaled up so that the mean stays.
pub(crate) fn drop_path(x: Tensor, rate: f64, pass: &Pass) -> Result<Tensor> {
    if rate == 0.0 || !pass.train {
        return Ok(x);
    }
    let mut shape = vec![1; x.dim()];
    shape[0] = x.size()[0];
    let keep = 1.0 - rate;
    let mask = x
        .f_new_empty(shape, (x.kind(), x.device()))?
        .f_bernoulli_float_(keep)?
        .f_div_scalar_(keep)?;
    Ok(x.f_mul(&mask)?)
}

/// Dropout of single features.
pub(crate) fn dropout(x: Tensor, rate: f64, pass: &Pass) -> Result<Tensor> {
    if rate == 0.0 || !pass.train {
        return Ok(x);
    }
    Ok(x.f_dropout(rate, true)?)
}
