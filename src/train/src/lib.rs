//! Training: epochs, one update, what moves between host and device, evaluation over ranks.
//!
//! The trainer knows neither stages nor recipes' YAML: a [`Task`] brings the samples, the loss and the metrics.

mod best;
mod checkpoint_writer;
mod config;
mod ema;
mod error;
mod execution;
mod feed;
mod gather;
mod groups;
mod histogram;
mod host_copy;
mod host_pixels;
mod memory;
mod optimizer;
pub mod progress;
mod record;
mod replicas;
mod report;
mod restore;
mod scaler;
mod schedule;
mod shown;
mod state;
mod statistics;
mod step;
mod stop;
mod tally;
#[cfg(test)]
mod testing;
mod trainer;
pub mod weights;
mod writers;

// What weights are asked for and what became of it.
pub use checkpoint::{FitOptions, FitReport, Part};
// The group that a training runs in: stages and ranks name it, but only this crate speaks to the engine below it.
pub use collective::{
    Backend, CollectiveError, Place, ProcessGroup, Rendezvous, Store, Tcp, cuda, tracing,
};
pub use config::UpdateConfig;
pub use error::TrainError;
pub use execution::{Execution, ExecutionConfig, full, host};
pub use feed::{shape, strength};
pub use gather::{gather_rows, go_on_together, share};
pub use groups::{Group, Grouping};
pub use host_pixels::{HostBytes, HostPixels};
pub use optimizer::Rule;
pub use report::{Names, Report};
pub use restore::{begins, is_final};
pub use scaler::LossScaling;
pub use schedule::learning_rate;
pub use state::{Parameters, copy_to_host, from_host, load_model, model_tensors, to_host};
pub use step::{Losses, MicroBatch, Outcome, Stepper};
pub use stop::StopFlag;
pub use trainer::{CheckpointPlace, Ended, Resume, Setup, Task, train};

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, TrainError>;
