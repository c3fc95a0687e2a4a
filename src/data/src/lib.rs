//! The data set on disk and in memory: DICOM studies, NIfTI volumes, tables, windows of slices. No torch.

pub mod dicom_write;
pub mod error;
pub mod geometry;
pub mod study;

pub use error::{DataError, Result};
pub use geometry::Geometry;
pub use study::StudyUid;
