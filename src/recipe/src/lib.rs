//! The recipe: everything that a user may say about a run, typed and validated.
//!
//! YAML text and `--set` overlays go in; a [`Recipe`] comes out, or every fault at once, each with
//! its file, line, key path and what to write instead. Nothing here knows of plans, ranks or files
//! on disk other than the recipe itself and those that it extends.

mod architecture;
mod chain;
mod fault;
mod fold;
mod model;
mod models;
mod read;
mod reader;
mod section;
mod stages;
mod study_models;
mod telemetry;
mod tree;
mod update;

pub use architecture::ARCHITECTURES;
pub use fault::{Fault, RecipeError};
pub use fold::Fold;
pub use model::{
    Augment, BadStudy, BoxLoss, Cache, Check, Checkpointing, Data, Device, Elastic, Gpus, Logs,
    Mode, Position, REPLICA_CHECK, Recipe, Sequence, Shards, Stage1a, Stage1b, Stage2, Stage3,
    StartFrom, StudyModel, Tensorboard, Training, Window,
};
pub use models::{Model, StageModel};
pub use read::{Source, load, parse, to_yaml};
pub use telemetry::{Otlp, OtlpProtocol, Telemetry};
pub use update::{Numerics, Optimization, Optimizer, Precision, Schedule};
