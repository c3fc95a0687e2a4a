//! The pipeline's stages: each one data set, model, loss and metric, and the table that it hands to the next.
//!
//! ```text
//! labels:       segmentations, train.csv -> folds.csv, slice_targets.csv
//! stage1a:      slice_targets            -> out-of-fold boxes of every slice
//! study boxes:  the models' boxes        -> study_boxes.csv
//! stage1b:      targets, boxes           -> out-of-fold vertebra ratios of every slice
//! slice labels: the models' ratios       -> slice_labels.csv
//! stage2:       slice labels, boxes      -> out-of-fold fractures of every slice, and a CNN
//! stage3:       that CNN, frozen         -> out-of-fold probabilities of every study
//! summary:      all of them              -> predictions.csv, summary.json
//! ```

mod boxes;
mod context;
mod ensemble;
mod finished;
mod labels;
mod localizer;
mod losses;
pub mod model;
mod place;
mod predict;
mod prediction;
mod run;
mod show;
mod shown_settings;
mod slice_labels;
mod slice_scores;
mod slice_task;
mod study;
mod summary;
mod views;
mod windows;

pub use boxes::merge_boxes;
pub use context::{Cohort, Context};
pub use ensemble::Models;
pub use finished::Finished;
pub use labels::make_labels;
pub use place::RunPlace;
pub use predict::{Counts, Request, predict};
pub use run::{Settings, Stage, finish, run_stage};
pub use show::Album;
pub use slice_labels::merge_ratios;
pub use summary::{Members, summarise};

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, train::TrainError>;
