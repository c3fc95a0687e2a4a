//! A residual block as a backbone sees it: something to run, now or again in the backward pass.

use std::fmt::Debug;
use std::rc::Rc;

use tch::Tensor;

use crate::error::Result;
use crate::pass::Pass;

/// A part of a backbone with parameters of its own.
pub(crate) trait Block: Debug {
    /// (B, C, H, W) -> (B, C', H', W')
    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor>;
}

/// Runs a block, without keeping its activations where the pass says so.
pub(crate) fn run(block: &Rc<dyn Block>, x: &Tensor, pass: &Pass) -> Result<Tensor> {
    let Some(recompute) = pass.recompute.as_ref().filter(|_| pass.train) else {
        return block.forward(x, pass);
    };
    let block = Rc::clone(block);
    let inner = Pass {
        recompute: None,
        taps: None,
        ..pass.clone()
    };
    let segment = move |x: &Tensor, first: bool| {
        let again = Pass {
            statistics_stay: inner.statistics_stay || !first,
            ..inner.clone()
        };
        block.forward(x, &again)
    };
    recompute.run(Box::new(segment), x)
}
