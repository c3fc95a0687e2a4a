//! Runs a plan's jobs on this machine: ranks as processes, supervised, resumable, without libtorch.
//!
//! What decides is apart from what does: [`decide`](mod@decide) turns events into actions and knows
//! neither processes nor clocks; everything else here is thin and carries out what it says.

mod decide;
mod error;
pub mod gpu;
mod launch;
mod outcome;
mod predict;
mod program;
mod status;

pub use error::LaunchError;
pub use launch::{LaunchOptions, Resume, launch};
pub use outcome::Outcome;
pub use predict::predict;
pub use program::rank_program;
pub use recipe::Device;
pub use status::{JobStatus, RunStatus, status};
