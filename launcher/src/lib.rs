//! Runs a plan's jobs on this machine: ranks as processes, supervised, resumable, without libtorch.
//!
//! What decides is apart from what does: `decide` turns events into actions and knows
//! neither processes nor clocks; everything else here is thin and carries out what it says.

mod action;
mod attempt;
mod compare;
mod database;
mod decide;
mod error;
mod events;
mod exit;
mod facts;
pub mod gpu;
mod gpu_watch;
mod guardian;
mod holds;
mod journal;
mod launch;
mod lifeline;
mod lock;
mod logs;
mod mark;
mod memory;
mod numa;
mod outcome;
mod pace;
mod pidfd;
mod policy;
mod predict;
mod presence;
mod process;
mod program;
mod ranks;
mod rendezvous;
mod room;
mod run_dir;
#[cfg(test)]
mod sample;
mod signals;
mod stall;
mod status;
mod stop;
mod straggler;
mod supervise;
mod verdict;

pub use compare::{Compared, What, compare};
pub use error::LaunchError;
pub use holds::{Hold, hold};
pub use launch::{LaunchOptions, Resume, launch};
pub use logs::{LogLine, LogQuery, Logs};
pub use outcome::Outcome;
pub use predict::{Prediction, predict};
pub use program::rank_program;
pub use recipe::Device;
pub use room::{HostMemory, host_memory, memory_of_a_rank};
pub use signals::StopSignals;
pub use status::{JobStatus, LastFailure, RankStatus, RunStatus, status};
pub use stop::{Running, running};
