//! Functions with a backward pass of their own, which libtorch has only in Python, and the backward pass itself.

mod backward;
mod batch_norm;
mod home;
mod recompute;

pub(crate) use backward::run as run_backward;
pub use batch_norm::sync_batch_norm;
pub use recompute::{Segment, recompute};
