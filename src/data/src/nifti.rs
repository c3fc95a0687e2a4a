//! NIfTI volumes: labels onto the grid of their study, and CT images that are studies themselves.
//!
//! Both places of a volume that the format knows are read, sform before qform, so that the order of a file's axes does
//! not matter. Voxels are scaled as nibabel's `get_fdata` scales them. Compressed files are always read to their end,
//! because only there their checksum stands.

mod header;
mod image;
mod voxels;
pub mod write;

use std::io;
use std::path::Path;

pub use self::image::NiftiImage;
use self::voxels::VoxelFile;
use crate::error::{DataError, Result};
use crate::geometry::{Affine, AxisMap, Geometry};

/// Labels on the grid of a study: 0 is background, 1..=7 are C1..C7, 8.. are T1 and on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelVolume {
    /// One label a voxel, (slices, rows, columns), in the order of the study's slices.
    pub labels: Vec<u8>,
    /// (slices, rows, columns).
    pub shape: [usize; 3],
}

impl LabelVolume {
    /// The labels of one slice, (rows, columns); empty past the last one.
    pub fn slice(&self, index: usize) -> &[u8] {
        let pixels = self.shape[1] * self.shape[2];
        self.labels
            .get(index * pixels..(index + 1) * pixels)
            .unwrap_or_default()
    }
}

/// The grid of a NIfTI volume.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NiftiGrid {
    /// Voxels along i, j, k.
    pub shape: [usize; 3],
    /// (i, j, k) to RAS millimetres.
    pub affine: Affine,
}

/// Reads the grid only, from the header.
///
/// # Errors
/// [`DataError::Io`] and [`DataError::Nifti`].
pub fn read_grid(path: &Path) -> Result<NiftiGrid> {
    VoxelFile::open(path)?.grid()
}

/// Reads all voxels as they lie in the file (i fastest), scaled, with their grid.
///
/// # Errors
/// [`DataError::Io`] and [`DataError::Nifti`].
pub fn read_values(path: &Path) -> Result<(NiftiGrid, Vec<f64>)> {
    let file = VoxelFile::open(path)?;
    let grid = file.grid()?;
    let mut values = Vec::new();
    file.for_each_row(0..grid.shape[2], |_, _, row| {
        values.extend_from_slice(row);
        Ok(())
    })?;
    Ok((grid, values))
}

/// Reads the labels at `path` and puts them in the order of the study with grid `geometry`.
///
/// Labels may be stored as any integer or float type, scaled or not, as long as their values are whole numbers of 0 to
/// 255.
///
/// # Errors
/// [`DataError::SegmentationShape`] and [`DataError::SegmentationGrid`] where the volume is not on the study's grid,
/// [`DataError::Nifti`] where the file is damaged or holds other than labels, [`DataError::Io`].
pub fn read_labels(path: &Path, geometry: &Geometry) -> Result<LabelVolume> {
    let file = VoxelFile::open(path)?;
    let NiftiGrid { shape, affine } = file.grid()?;
    let map = AxisMap::between(path, geometry, &affine, shape)?;
    let (first, steps) = map.placement(geometry);

    let mut labels = vec![0; geometry.voxels()];
    file.for_each_row(0..shape[2], |j, k, row| {
        let mut at = first + j as isize * steps[1] + k as isize * steps[2];
        for &value in row {
            labels[at as usize] =
                label(value).map_err(|problem| fault(path, "a voxel", problem, NOT_LABELS))?;
            at += steps[0];
        }
        Ok(())
    })?;
    Ok(LabelVolume {
        labels,
        shape: geometry.shape(),
    })
}

fn label(value: f64) -> std::result::Result<u8, String> {
    let label = value.round();
    // Scaled labels carry the rounding of an f32 slope.
    if (0.0..=255.0).contains(&label) && (value - label).abs() <= 1e-3 {
        Ok(label as u8)
    } else {
        Err(format!("is {value}, which is no label"))
    }
}

const COPY_AGAIN: &str = "copy the file again from its source";
const EXPORT_AGAIN: &str = "export it again as one three-dimensional NIfTI file";
const NOT_LABELS: &str = "a segmentation holds whole numbers: 0 for background, 1 to 7 for C1 to C7, 8 and on for T1 and on";

fn fault(path: &Path, field: &'static str, problem: String, remedy: &'static str) -> DataError {
    DataError::Nifti {
        path: path.to_path_buf(),
        field,
        problem,
        remedy,
    }
}

/// An error of reading: the file's contents, or else the operating system.
fn file_fault(path: &Path, error: io::Error, problem: String) -> DataError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => fault(path, "the file", problem, COPY_AGAIN),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            fault(path, "the file", format!("is damaged: {error}"), COPY_AGAIN)
        }
        _ => DataError::io("read", path)(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_whole_numbers() {
        assert_eq!(label(7.0), Ok(7));
        assert_eq!(label(20.0 * f64::from(0.1_f32) + 1.0), Ok(3));
        for wrong in [0.5, -1.0, 256.0, f64::NAN, f64::INFINITY] {
            assert!(label(wrong).is_err(), "{wrong}");
        }
    }
}
