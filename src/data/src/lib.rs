//! The data set on disk and in memory: DICOM studies, NIfTI volumes, tables, windows of slices. No torch.

pub mod atomic_file;
pub mod augment;
pub mod cache;
pub mod check;
pub mod csv_table;
pub mod data_set;
pub mod dicom;
mod discretion;
pub mod error;
pub mod fingerprint;
pub mod folds;
pub mod geometry;
pub mod image;
pub mod leakage;
pub mod ledger;
pub mod loader;
pub mod nifti;
pub mod phantom;
pub mod predicted;
pub mod sampler;
pub mod stack;
pub mod stage_tables;
pub mod study;
pub mod tables;
pub mod targets;
pub mod volume;

pub use discretion::Discretion;
pub use error::{DataError, Result};
pub use geometry::Geometry;
pub use study::StudyUid;
