//! A CT image in a NIfTI file, read slice by slice as a study: Hounsfield units, head first.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::voxels::VoxelFile;
use super::{COPY_AGAIN, EXPORT_AGAIN, NiftiGrid, fault};
use crate::error::Result;
use crate::geometry::{AxisMap, Geometry};

/// A volume's header, and how its axes become those of a study.
#[derive(Debug, Clone, PartialEq)]
pub struct NiftiImage {
    path: PathBuf,
    grid: NiftiGrid,
    map: AxisMap,
    geometry: Geometry,
}

/// Slices larger than this are none of a scanner's.
const LARGEST_SLICE: usize = 4096 * 4096;

impl NiftiImage {
    /// Reads the header at `path`.
    ///
    /// # Errors
    /// [`DataError::Nifti`](crate::DataError::Nifti) and [`DataError::Io`](crate::DataError::Io).
    pub fn open(path: &Path) -> Result<Self> {
        let grid = VoxelFile::open(path)?.grid()?;
        let unplaced = || fault(path, "the affine", "is flat".into(), EXPORT_AGAIN);
        let (map, geometry) = AxisMap::head_first(&grid.affine, grid.shape).ok_or_else(unplaced)?;
        if geometry.rows.saturating_mul(geometry.cols) > LARGEST_SLICE {
            let problem = format!(
                "makes slices of {} x {}, beyond 4096 x 4096 in all",
                geometry.rows, geometry.cols
            );
            return Err(fault(path, "dim", problem, EXPORT_AGAIN));
        }
        Ok(Self {
            path: path.to_path_buf(),
            grid,
            map,
            geometry,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The study's grid.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Reads a run of slices: HU, (slices, rows, columns), rounded to the nearest integer (half away from zero) and
    /// limited to i16. The file is gone through once, and a compressed one to its end: the whole study costs no more than
    /// a slice.
    ///
    /// # Errors
    /// [`DataError::Nifti`](crate::DataError::Nifti), also where the file has changed since it was opened or holds a
    /// voxel that is no number, and [`DataError::Io`](crate::DataError::Io).
    pub fn read_slices(&self, range: Range<usize>) -> Result<Vec<i16>> {
        let pixels = self.geometry.rows * self.geometry.cols;
        let start = (range.start * pixels) as isize;
        let mut hu = vec![0; range.len() * pixels];
        self.go_through(&range, |at, step, row| {
            let mut at = at - start;
            for &value in row {
                // Voxels of other slices fall outside.
                if let Some(voxel) = usize::try_from(at).ok().and_then(|at| hu.get_mut(at)) {
                    *voxel = self.hounsfield(value)?;
                }
                at += step;
            }
            Ok(())
        })?;
        Ok(hu)
    }

    /// Hands slices to `visit` with their index, in the order of the file, which may be feet first. Holds one slice where
    /// the file is stored by such slices, and all of `range` where it is not.
    ///
    /// # Errors
    /// As [`Self::read_slices`], and what `visit` says.
    pub fn for_each_slice(
        &self,
        range: Range<usize>,
        mut visit: impl FnMut(usize, &[i16]) -> Result<()>,
    ) -> Result<()> {
        let pixels = self.geometry.rows * self.geometry.cols;
        if self.map.source[2] != 2 {
            let hu = self.read_slices(range.clone())?;
            return range
                .zip(hu.chunks_exact(pixels))
                .try_for_each(|(index, slice)| visit(index, slice));
        }
        let mut slice = vec![0; pixels];
        let mut rows_left = self.grid.shape[1];
        self.go_through(&range, |at, step, row| {
            let index = at as usize / pixels;
            let mut at = at - (index * pixels) as isize;
            for &value in row {
                if let Some(voxel) = slice.get_mut(at as usize) {
                    *voxel = self.hounsfield(value)?;
                }
                at += step;
            }
            rows_left -= 1;
            if rows_left == 0 {
                rows_left = self.grid.shape[1];
                visit(index, &slice)?;
            }
            Ok(())
        })
    }

    /// Hands rows that may touch the slices of `range` to `visit`: where the first value goes in the array of the whole
    /// study, how far it is to where the next one goes, and the values.
    fn go_through(
        &self,
        range: &Range<usize>,
        mut visit: impl FnMut(isize, isize, &[f64]) -> Result<()>,
    ) -> Result<()> {
        let file = VoxelFile::open(&self.path)?;
        if file.grid()? != self.grid {
            let problem = "has changed since the study was looked at".into();
            return Err(fault(&self.path, "the header", problem, COPY_AGAIN));
        }
        let planes = match (self.map.source[2], self.map.flip[2]) {
            (2, false) => range.clone(),
            (2, true) => self.geometry.slices - range.end..self.geometry.slices - range.start,
            _ => 0..self.grid.shape[2],
        };
        let (first, [i, j, k]) = self.map.placement(&self.geometry);
        file.for_each_row(planes, |row, plane, values| {
            visit(first + row as isize * j + plane as isize * k, i, values)
        })
    }

    fn hounsfield(&self, value: f64) -> Result<i16> {
        match value.is_finite() {
            // A cast from float limits to the range of the integer.
            true => Ok(value.round() as i16),
            false => Err(fault(
                &self.path,
                "a voxel",
                format!("is {value}"),
                "fill what lies outside of the scan with -1024, air",
            )),
        }
    }
}
