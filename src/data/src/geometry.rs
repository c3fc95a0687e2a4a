//! Where voxels are in the patient: the grid of a DICOM stack, affines, and the way from a NIfTI grid onto it.
//!
//! DICOM counts millimetres towards the patient's left, back and head (LPS); NIfTI towards right, front and head (RAS).
//! Indices of a stack are (column, row, slice) where a matrix is applied to them, and arrays are (slice, row, column).

use std::path::Path;

use crate::error::{DataError, Result};

/// The grid of a stack of parallel, equally sized slices.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// LPS position of the centre of voxel (0, 0, 0), mm: ImagePositionPatient of the first slice.
    pub origin: [f64; 3],
    /// LPS unit vector along a row, that is of increasing column index: the first half of ImageOrientationPatient.
    pub row: [f64; 3],
    /// LPS unit vector along a column, that is of increasing row index: the second half.
    pub col: [f64; 3],
    /// Distance between rows, then between columns, mm: PixelSpacing.
    pub spacing: [f64; 2],
    /// LPS vector from a slice to the next one, mm; the mean step where slices are not evenly spaced.
    pub step: [f64; 3],
    /// Rows of a slice (its height).
    pub rows: usize,
    /// Columns of a slice (its width).
    pub cols: usize,
    /// Number of slices.
    pub slices: usize,
}

impl Geometry {
    /// (slices, rows, columns), the shape of arrays on this grid.
    pub fn shape(&self) -> [usize; 3] {
        [self.slices, self.rows, self.cols]
    }

    /// Number of voxels.
    pub fn voxels(&self) -> usize {
        self.slices * self.rows * self.cols
    }

    /// Distance between neighbouring slices, mm.
    pub fn slice_spacing(&self) -> f64 {
        dot(self.step, self.step).sqrt()
    }

    /// (column, row, slice) to LPS millimetres (DICOM PS3.3, C.7.6.2.1.1).
    pub fn voxel_to_lps(&self) -> Affine {
        let [between_rows, between_columns] = self.spacing;
        Affine::from_columns(
            self.row.map(|v| v * between_columns),
            self.col.map(|v| v * between_rows),
            self.step,
            self.origin,
        )
    }

    /// (column, row, slice) to RAS millimetres, as NIfTI wants it.
    pub fn voxel_to_ras(&self) -> Affine {
        LPS_TO_RAS.after(&self.voxel_to_lps())
    }
}

/// `x -> linear * x + offset` in three dimensions; `linear` is row-major.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine {
    /// The 3x3 matrix, by rows.
    pub linear: [[f64; 3]; 3],
    /// What is added.
    pub offset: [f64; 3],
}

/// Left becomes right and back becomes front; it is its own inverse.
const LPS_TO_RAS: Affine = Affine {
    linear: [[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]],
    offset: [0.0; 3],
};

impl Affine {
    /// The map that takes the unit vectors to `x`, `y`, `z` and zero to `offset`.
    pub fn from_columns(x: [f64; 3], y: [f64; 3], z: [f64; 3], offset: [f64; 3]) -> Self {
        Self {
            linear: std::array::from_fn(|i| [x[i], y[i], z[i]]),
            offset,
        }
    }

    /// The image of a point.
    pub fn apply(&self, point: [f64; 3]) -> [f64; 3] {
        std::array::from_fn(|i| dot(self.linear[i], point) + self.offset[i])
    }

    /// First `inner`, then this.
    pub fn after(&self, inner: &Self) -> Self {
        let column = |j: usize| inner.linear.map(|row| row[j]);
        Self {
            linear: self
                .linear
                .map(|row| std::array::from_fn(|j| dot(row, column(j)))),
            offset: self.apply(inner.offset),
        }
    }

    /// The inverse map; `None` where there is none (a flat or non-finite matrix).
    pub fn inverse(&self) -> Option<Self> {
        let [a, b, c] = self.linear;
        // The rows of the adjugate's transpose: det = a . (b x c).
        let cofactors = [cross(b, c), cross(c, a), cross(a, b)];
        let determinant = dot(a, cofactors[0]);
        if !determinant.is_normal() {
            return None;
        }
        let linear: [[f64; 3]; 3] =
            std::array::from_fn(|i| std::array::from_fn(|j| cofactors[j][i] / determinant));
        let offset = linear.map(|row| -dot(row, self.offset));
        let all_finite = linear
            .iter()
            .flatten()
            .chain(&offset)
            .all(|v| v.is_finite());
        all_finite.then_some(Self { linear, offset })
    }
}

/// How a NIfTI grid lies on a DICOM grid: the same voxels with axes exchanged and reversed.
///
/// Entry `i` speaks of the DICOM index `i` of (column, row, slice).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AxisMap {
    /// Which NIfTI axis runs along it.
    pub source: [usize; 3],
    /// Whether that axis runs the other way.
    pub flip: [bool; 3],
}

/// How far an entry of the matrix between two index grids may be from 0 or 1: 10 % in spacing, 6 degrees in direction.
const AXIS_TOLERANCE: f64 = 0.1;
/// How far apart the two grids' centres may be, in voxels of any axis.
const CENTRE_TOLERANCE: f64 = 2.0;

impl AxisMap {
    /// The map from the NIfTI volume at `path`, with index-to-RAS matrix `affine` and `shape` (i, j, k), to `geometry`.
    ///
    /// # Errors
    /// [`DataError::SegmentationShape`] and [`DataError::SegmentationGrid`] where no exchange and reversal of axes puts
    /// the one grid on the other, because voxel size, orientation, extent or place differ.
    pub fn between(
        path: &Path,
        geometry: &Geometry,
        affine: &Affine,
        shape: [usize; 3],
    ) -> Result<Self> {
        let off_grid = |problem: String| DataError::SegmentationGrid {
            path: path.to_path_buf(),
            problem,
        };
        let to_index = geometry
            .voxel_to_ras()
            .inverse()
            .ok_or_else(|| off_grid("the study's own geometry has no volume".into()))?
            .after(affine);

        let mut source = [0; 3];
        let mut flip = [false; 3];
        for (axis, row) in to_index.linear.iter().enumerate() {
            let Some(along) = row
                .iter()
                .position(|v| (v.abs() - 1.0).abs() <= AXIS_TOLERANCE)
            else {
                return Err(off_grid(format!(
                    "none of its axes follows the study's {} with the same voxel size (factors {:.3?})",
                    AXIS_NAMES[axis], row
                )));
            };
            let slanted = row
                .iter()
                .enumerate()
                .any(|(j, v)| j != along && (v.is_nan() || v.abs() > AXIS_TOLERANCE));
            if slanted || source[..axis].contains(&along) {
                return Err(off_grid(format!(
                    "its axes are turned against the study's {} (factors {:.3?})",
                    AXIS_NAMES[axis], row
                )));
            }
            source[axis] = along;
            flip[axis] = row[along] < 0.0;
        }

        let expected = [geometry.cols, geometry.rows, geometry.slices];
        let found = source.map(|along| shape[along]);
        if found != expected {
            return Err(DataError::SegmentationShape {
                path: path.to_path_buf(),
                found: [found[2], found[1], found[0]],
                expected: geometry.shape(),
            });
        }

        let centre = to_index.apply(shape.map(|n| (n as f64 - 1.0) / 2.0));
        for (axis, (at, n)) in centre.into_iter().zip(expected).enumerate() {
            let shift = at - (n as f64 - 1.0) / 2.0;
            if shift.is_nan() || shift.abs() > CENTRE_TOLERANCE {
                return Err(off_grid(format!(
                    "it is shifted by {shift:.1} {}",
                    AXIS_NAMES[axis]
                )));
            }
        }
        Ok(Self { source, flip })
    }
}

const AXIS_NAMES: [&str; 3] = ["columns", "rows", "slices"];

/// The inner product.
pub(crate) fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// The vector product.
pub(crate) fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An axial study running to the feet.
    fn axial() -> Geometry {
        Geometry {
            origin: [-100.0, -80.0, 500.0],
            row: [1.0, 0.0, 0.0],
            col: [0.0, 1.0, 0.0],
            spacing: [0.4, 0.3],
            step: [0.0, 0.0, -2.0],
            rows: 5,
            cols: 6,
            slices: 7,
        }
    }

    /// A volume whose x runs to the left, y to the front, z to the head, as the RSNA segmentations do.
    fn kaggle_affine(g: &Geometry) -> Affine {
        let last_row = g.origin[1] + 0.4 * (g.rows - 1) as f64;
        let lowest = g.origin[2].min(g.origin[2] + g.step[2] * (g.slices - 1) as f64);
        Affine::from_columns(
            [-0.3, 0.0, 0.0],
            [0.0, 0.4, 0.0],
            [0.0, 0.0, 2.0],
            [-g.origin[0], -last_row, lowest],
        )
    }

    #[test]
    fn spacing_is_between_rows_then_between_columns() {
        let place = axial().voxel_to_lps().apply([2.0, 3.0, 1.0]);
        let expected = [-100.0 + 2.0 * 0.3, -80.0 + 3.0 * 0.4, 498.0];
        assert!(
            place
                .iter()
                .zip(expected)
                .all(|(a, b)| (a - b).abs() < 1e-9),
            "{place:?}"
        );
        let ras = axial().voxel_to_ras().apply([2.0, 3.0, 1.0]);
        assert_eq!(ras, [-place[0], -place[1], place[2]]);
        assert_eq!((axial().voxels(), axial().slice_spacing()), (210, 2.0));
    }

    #[test]
    fn an_inverse_undoes_and_a_flat_matrix_has_none() {
        let affine = Affine {
            linear: [[0.0, -2.0, 0.5], [1.0, 0.1, 0.0], [0.3, 0.0, 4.0]],
            offset: [5.0, -7.0, 11.0],
        };
        let identity = affine.inverse().unwrap().after(&affine);
        for (i, row) in identity.linear.iter().enumerate() {
            for (j, v) in row.iter().enumerate() {
                assert!((v - f64::from(u8::from(i == j))).abs() < 1e-12);
            }
            assert!(identity.offset[i].abs() < 1e-12);
        }
        for broken in [0.0, f64::NAN, f64::INFINITY] {
            let mut flat = affine;
            flat.linear[1] = [broken; 3];
            assert_eq!(flat.inverse(), None);
        }
    }

    #[test]
    fn axial_segmentations_flip_y_and_flip_z_where_the_study_runs_downwards() {
        let down = axial();
        let up = Geometry {
            origin: [-100.0, -80.0, 488.0],
            step: [0.0, 0.0, 2.0],
            ..down
        };
        for (geometry, flip_z) in [(down, true), (up, false)] {
            let map = AxisMap::between(
                Path::new("s.nii"),
                &geometry,
                &kaggle_affine(&geometry),
                [6, 5, 7],
            );
            assert_eq!(
                map.unwrap(),
                AxisMap {
                    source: [0, 1, 2],
                    flip: [false, true, flip_z]
                }
            );
        }
    }

    #[test]
    fn nothing_but_the_same_voxels_is_accepted() {
        let geometry = axial();
        let good = kaggle_affine(&geometry);
        let between =
            |affine: &Affine, shape| AxisMap::between(Path::new("s.nii"), &geometry, affine, shape);
        assert!(matches!(
            between(&good, [6, 5, 8]),
            Err(DataError::SegmentationShape {
                found: [8, 5, 6],
                ..
            })
        ));
        let mut thicker = good;
        thicker.linear[2][2] *= 1.2;
        let mut elsewhere = good;
        elsewhere.offset[2] -= 6.0;
        let mut flat = good;
        flat.linear[2] = [0.0; 3];
        let mut unreadable = good;
        unreadable.linear[0][1] = f64::NAN;
        let mut twice = good;
        twice.linear[1] = [0.3, 0.0, 0.0];
        for wrong in [thicker, elsewhere, flat, unreadable, twice] {
            let result = between(&wrong, [6, 5, 7]);
            assert!(
                matches!(result, Err(DataError::SegmentationGrid { .. })),
                "{result:?}"
            );
        }
        // Less than a tenth of a voxel's size, or of a slice's distance, is rounding.
        let mut rounded = good;
        rounded.linear[2][2] *= 1.05;
        assert!(between(&rounded, [6, 5, 7]).is_ok());
    }
}
