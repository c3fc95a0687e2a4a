//! The plan: a recipe compiled into a graph of jobs, as plain data.
//!
//! ```text
//! labels -> stage1a (fold x seed) -> study-boxes -> stage1b (fold x seed) -> slice-labels
//!        -> stage2 (fold x seed) -> stage3 (fold x seed) -> summary
//! ```
//! [`compile`] is pure: no file, no clock, no machine. The launcher schedules what it returns and
//! ranks build their parts from one [`JobSpec`] of it; neither reads the recipe again.

mod batch;
mod compile;
mod estimate;
mod file;
mod id;
mod job;
mod leakage;
pub mod model_request;
pub mod probe;
pub mod schedule;
mod simulate;
mod state;
mod timeouts;

pub use batch::{
    BatchError, Split, Spread, accumulation, accumulation_of, elastic_words, halved, ranks_of,
    spread, widths,
};
pub use compile::{FileHashes, PlanError, compile, compile_with};
pub use estimate::{Cost, cost};
pub use file::{read, write};
pub use id::JobId;
pub use job::{Fold, JobKind, JobSpec, Plan, TrainStage};
pub use leakage::{WeightsLeak, weights_across_folds};
pub use simulate::{Span, Timeline, simulate};
pub use state::{JobState, Progress, ready};
pub use timeouts::Timeouts;

// What a job spec is made of, so that readers of a plan need not name the recipe.
pub use recipe::{
    Augment, BoxLoss, Checkpointing, Data, Elastic, Gpus, Logs, Position, Sequence, StartFrom,
    StudyModel, Tensorboard, Training, Window,
};
