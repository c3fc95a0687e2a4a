//! The plan: a recipe compiled into a graph of jobs, as plain data.
//!
//! ```text
//! labels -> stage1a (model x fold x seed) -> study-boxes -> stage1b (model x fold x seed) -> slice-labels
//!        -> stage2 (model x fold x seed) -> stage3 (model x fold x seed) -> summary
//! ```
//! Stage 2 and 3 have the fold `all`, too: a model that holds nothing out, which predicts but is not evaluated.
//!
//! [`compile`] is pure: no file, no clock, no machine. The launcher schedules what it returns and
//! ranks build their parts from one [`JobSpec`] of it; neither reads the recipe again.

mod address;
mod batch;
mod compile;
mod costs;
mod diff;
mod estimate;
mod file;
mod id;
mod inputs;
mod job;
mod leakage;
mod memory;
pub mod model_request;
pub mod probe;
pub mod schedule;
mod simulate;
mod state;
mod timeouts;
mod volume;

pub use address::ADDRESSES;
pub use batch::{
    BatchError, Split, Spread, accumulation, accumulation_of, elastic_words, halved, ranks_of,
    spread, widths,
};
pub use compile::{Files, PlanError, compile, compile_with};
pub use costs::{JobCost, Machine, Measured, Run, Source, at_a_time, costs, tasks};
pub use diff::{Change, Fate, Had, diff};
pub use estimate::{Cost, cost};
pub use file::{read, write};
pub use id::JobId;
pub use inputs::{Inputs, Part, Read};
pub use job::{JobKind, JobSpec, Plan, TrainStage};
pub use leakage::{WeightsLeak, weights_across_folds};
pub use memory::{Memory, memory, micro_batch_that_fits};
pub use simulate::{Span, Timeline, simulate};
pub use state::{JobState, Progress, ready};
pub use timeouts::Timeouts;

// What a job spec is made of, so that readers of a plan need not name the recipe.
pub use recipe::{
    Augment, BoxLoss, Checkpointing, Data, Elastic, Fold, Gpus, Logs, Position, Sequence,
    StartFrom, StudyModel, Tensorboard, Training, Window,
};
