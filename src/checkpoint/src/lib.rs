//! Checkpoints of a job: written so that a crash at any moment leaves the older ones whole, and
//! read only where every byte is the one that was written.
//!
//! ```text
//! JOB/checkpoints/step-<8 digits>/   model.safetensors optimizer.safetensors trainer.json manifest.json
//! ```
//!
//! [`write`](fn@write) fills `.tmp-step-<8 digits>-<pid>`, syncs every file, writes the manifest
//! last and renames the folder: a `step-` folder is complete from the moment that it can be seen,
//! and durable when `write` returns. [`newest_valid_of`] finds what to resume from, [`read`] loads
//! it, [`diff`] compares it with the model that shall take it, [`retain`] deletes what is no longer
//! wanted.
//!
//! Where several processes hold the same state, each may write a part of it ([`write_part`]):
//!
//! ```text
//! step-<8 digits>/   model-00001-of-00002.safetensors ... optimizer-00002-of-00002.safetensors trainer.json manifest.json
//! ```
//!
//! One writer at a time per folder: a lock on it refuses a second one, and is gone with its
//! process.

mod divide;
mod error;
mod find;
mod fit_report;
mod folder;
mod guess;
mod hashing;
mod keys;
mod manifest;
mod matching;
mod read;
mod retain;
mod share;
mod tensor;
mod tensor_file;
mod weights_file;
mod write;

pub use divide::divide;
pub use error::{Error, Fault};
pub use find::{Entry, Found, Skipped, State, list, newest_valid, newest_valid_of};
pub use fit_report::{FitReport, Note};
pub use guess::other_architecture;
pub use keys::{KeyReport, Mismatch, TensorSpec, diff};
pub use manifest::{FileRecord, Manifest, verify};
pub use matching::{Assignment, Fit, Part, fit, is_first_convolution, unwrapped};
pub use read::{read, read_model, read_trainer};
pub use retain::{Retention, retain};
pub use share::{Mark, Share};
pub use tensor::{Dtype, TensorData};
pub use weights_file::{
    FitOptions, WeightsFile, file_sha256, load_safetensors, read_weights, safetensors_specs,
    save_safetensors,
};
pub use write::{Written, write, write_part};

/// All that a job needs to go on as if it had never stopped.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Updates of the weights done so far.
    pub step: u64,
    /// The model's parameters and buffers, under the names by which weights travel.
    pub model: Vec<TensorData>,
    /// The optimizer's moments.
    pub optimizer: Vec<TensorData>,
    /// The trainer's other state: scaler, schedule, generators, sampler position, best so far.
    /// Finite `f64` values survive exactly; JSON has no NaN and no infinity.
    pub trainer: serde_json::Value,
    pub meta: Meta,
}

/// Where a checkpoint comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Hash of the plan that the job belongs to.
    pub plan_hash: String,
    /// The job's identifier.
    pub job: String,
    /// The ranks that trained it.
    pub world_size: usize,
}
