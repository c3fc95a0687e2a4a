//! How a network is run: in training or not, and what the world outside adds to a pass.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use tch::Tensor;

use crate::error::Result;

/// One forward pass. A clone shares what was given from outside.
#[derive(Clone, Default)]
pub struct Pass {
    /// Batch normalisation by the batch's own statistics; drop path and dropout are active.
    pub train: bool,
    /// Running statistics stay as they are, also in training: a second run over a batch must not count it twice.
    pub statistics_stay: bool,
    /// Whose statistics batch normalisation takes in training: this device's where absent.
    pub norm: Option<Rc<dyn SyncNorm>>,
    /// Blocks of a backbone keep no activations in training but are run again for their gradients.
    pub recompute: Option<Rc<dyn Recompute>>,
    /// Records intermediate maps.
    pub taps: Option<Rc<Taps>>,
}

impl Pass {
    /// Inference.
    pub fn eval() -> Self {
        Pass::default()
    }

    /// Training on one device.
    pub fn train() -> Self {
        Pass {
            train: true,
            ..Pass::default()
        }
    }

    /// Keeps a copy of `x` under timm's name of the module that made it.
    pub(crate) fn tap(&self, name: impl FnOnce() -> String, x: &Tensor) -> Result<()> {
        if let Some(taps) = &self.taps {
            // In its memory layout, which `detach_copy` would not keep.
            let x = x.f_detach()?;
            let mut copy = x.f_empty_like()?;
            copy.f_copy_(&x)?;
            taps.0.borrow_mut().push((name(), copy));
        }
        Ok(())
    }
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pass")
            .field("train", &self.train)
            .field("statistics_stay", &self.statistics_stay)
            .field("norm", &self.norm.is_some())
            .field("recompute", &self.recompute.is_some())
            .field("taps", &self.taps.is_some())
            .finish()
    }
}

/// Maps by the name of the module that made them, in the order of the pass.
#[derive(Debug, Default)]
pub struct Taps(RefCell<Vec<(String, Tensor)>>);

impl Taps {
    /// What was recorded since the last call.
    pub fn take(&self) -> Vec<(String, Tensor)> {
        self.0.take()
    }
}

/// The parameters of a batch normalisation, each (C,).
#[derive(Debug)]
pub struct Norm<'a> {
    pub weight: &'a Tensor,
    pub bias: &'a Tensor,
    /// Mean and variance; absent where they stay as they are.
    pub running: Option<(&'a Tensor, &'a Tensor)>,
    pub momentum: f64,
    pub eps: f64,
}

/// Batch normalisation by the statistics of all ranks' batches.
pub trait SyncNorm {
    /// (B, C, H, W) -> the same
    fn batch_norm(&self, x: &Tensor, norm: &Norm) -> Result<Tensor>;
}

/// A part of a network. It is told whether it runs for the first time: only then may it move running statistics.
pub type Segment = Box<dyn Fn(&Tensor, bool) -> Result<Tensor>>;

/// Runs a part of a network such that its activations are not kept but computed anew in the backward pass
/// (Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174).
pub trait Recompute {
    fn run(&self, segment: Segment, x: &Tensor) -> Result<Tensor>;
}
