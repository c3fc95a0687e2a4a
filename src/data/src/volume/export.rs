//! A study as a NIfTI volume in Hounsfield units.

use std::path::Path;

use super::StudyHeader;
use crate::error::Result;
use crate::nifti::write::{Layout, write_nifti_slices};

/// Slices that are read at once: 32 MB of 512 x 512.
const AT_ONCE: usize = 64;

/// Writes the study that `header` describes to a `.nii` or `.nii.gz` file, whole or not at all: HU as 16-bit integers, the
/// study's place kept in sform and, where it is no shear, qform. Of a DICOM study 64 slices are in memory at a time.
///
/// # Errors
/// As [`StudyHeader::read_slices`] and [`write_nifti_i16`](crate::nifti::write::write_nifti_i16).
pub fn export_nifti(header: &StudyHeader, path: &Path) -> Result<()> {
    // A NIfTI study is read as a whole: any part of it costs as much.
    let at_once = match header.is_dicom() {
        true => AT_ONCE,
        false => header.geometry.slices.max(1),
    };
    write_nifti_slices(path, &header.geometry, Layout::Kaggle, at_once, |range| {
        header.read_slices(range)
    })
}
