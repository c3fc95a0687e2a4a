//! Functions with a backward pass of their own, which libtorch has only in Python, and the backward pass itself.

mod backward;
mod home;
mod recompute;

pub(crate) use backward::run as run_backward;
pub use recompute::{Segment, recompute};
