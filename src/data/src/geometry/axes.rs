//! Two grids of one volume: the same voxels with axes exchanged and reversed.

use std::path::Path;

use super::{Affine, Geometry, LPS_TO_RAS, dot};
use crate::error::{DataError, Result};

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
/// How far apart the two grids' centres may be, in voxels of any axis: writers count from a voxel's middle or its edge.
const CENTRE_TOLERANCE: f64 = 1.25;
/// How far apart corners may be, in columns and rows.
const CORNER_TOLERANCE: f64 = 2.0;
/// And in slices, as a share of them more: where slices are not evenly spaced, their mean step is not every writer's.
const SLICE_DRIFT: f64 = 0.02;

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
        let map = Self { source, flip };
        for corner in 0..8 {
            // A corner of the study, and where the file's own matrix puts the voxel that the map takes for it.
            let index: [f64; 3] = std::array::from_fn(|i| {
                if corner >> i & 1 == 1 {
                    expected[i] as f64 - 1.0
                } else {
                    0.0
                }
            });
            let mut voxel = [0.0; 3];
            for i in 0..3 {
                voxel[source[i]] = if flip[i] {
                    expected[i] as f64 - 1.0 - index[i]
                } else {
                    index[i]
                };
            }
            for (axis, at) in to_index.apply(voxel).into_iter().enumerate() {
                let drift = if axis == 2 {
                    SLICE_DRIFT * expected[2] as f64
                } else {
                    0.0
                };
                let apart = (at - index[axis]).abs();
                if apart.is_nan() || apart > CORNER_TOLERANCE + drift {
                    return Err(off_grid(format!(
                        "a corner of it is {apart:.1} {} off",
                        AXIS_NAMES[axis]
                    )));
                }
            }
        }
        Ok(map)
    }

    /// The map from a NIfTI volume to a study of its own: slices run to the feet, rows of a slice to the back, columns to
    /// the left, as far as exchanging and reversing axes goes. The slices' axis is the one closest to head-feet.
    ///
    /// `None` where the affine is flat or no number, so that the volume has no place.
    pub fn head_first(affine: &Affine, shape: [usize; 3]) -> Option<(Self, Geometry)> {
        affine.inverse()?;
        let to_lps = LPS_TO_RAS.after(affine);
        let vector = |axis: usize| to_lps.linear.map(|row| row[axis]);
        let length = |axis: usize| dot(vector(axis), vector(axis)).sqrt();
        let along = |axis: usize, lps: usize| vector(axis)[lps].abs() / length(axis);

        let slices = (1..3).fold(0, |best, axis| match along(axis, 2) > along(best, 2) {
            true => axis,
            false => best,
        });
        let (a, b) = ((slices + 1) % 3, (slices + 2) % 3);
        let source = match along(a, 0) + along(b, 1) >= along(b, 0) + along(a, 1) {
            true => [a, b, slices],
            false => [b, a, slices],
        };
        let [left, back, feet] = [1.0, 1.0, -1.0];
        let flip: [bool; 3] =
            std::array::from_fn(|i| vector(source[i])[i] * [left, back, feet][i] < 0.0);

        let mut first = [0.0; 3];
        for (along, flip) in source.into_iter().zip(flip) {
            if flip {
                first[along] = shape[along].saturating_sub(1) as f64;
            }
        }
        let [across, down, step]: [[f64; 3]; 3] =
            std::array::from_fn(|i| vector(source[i]).map(|v| if flip[i] { -v } else { v }));
        let (between_columns, between_rows) = (length(source[0]), length(source[1]));
        let geometry = Geometry {
            origin: to_lps.apply(first),
            row: across.map(|v| v / between_columns),
            col: down.map(|v| v / between_rows),
            spacing: [between_rows, between_columns],
            step,
            rows: shape[source[1]],
            cols: shape[source[0]],
            slices: shape[source[2]],
        };
        Some((Self { source, flip }, geometry))
    }

    /// Where the NIfTI voxel (0, 0, 0) lies in an array (slices, rows, columns) on `geometry`, and how far it is there
    /// to the next voxel along each NIfTI axis.
    pub(crate) fn placement(&self, geometry: &Geometry) -> (isize, [isize; 3]) {
        let sides = [geometry.cols, geometry.rows, geometry.slices];
        let strides = [1, geometry.cols, geometry.rows * geometry.cols];
        let mut first = 0;
        let mut steps = [0; 3];
        for (i, along) in self.source.into_iter().enumerate() {
            let stride = strides[i] as isize;
            steps[along] = match self.flip[i] {
                false => stride,
                true => {
                    first += (sides[i] as isize - 1) * stride;
                    -stride
                }
            };
        }
        (first, steps)
    }
}

const AXIS_NAMES: [&str; 3] = ["columns", "rows", "slices"];

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

    /// All 48 ways to exchange and reverse the axes of one volume give one study back.
    #[test]
    fn a_volume_in_any_order_of_axes_is_one_study() {
        let lps = axial().voxel_to_lps();
        let sides = [6, 5, 7];
        for order in [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ] {
            for reversed in 0..8 {
                let flips: [bool; 3] = std::array::from_fn(|i| reversed >> i & 1 == 1);
                // File axis j is the study's axis order[j], reversed where flips says so.
                let mut to_study = Affine {
                    linear: [[0.0; 3]; 3],
                    offset: [0.0; 3],
                };
                for (j, i) in order.into_iter().enumerate() {
                    to_study.linear[i][j] = if flips[j] { -1.0 } else { 1.0 };
                    to_study.offset[i] = if flips[j] { sides[i] as f64 - 1.0 } else { 0.0 };
                }
                let affine = LPS_TO_RAS.after(&lps).after(&to_study);
                let shape = order.map(|i| sides[i]);
                let (map, geometry) = AxisMap::head_first(&affine, shape).unwrap();
                let close =
                    |a: [f64; 3], b: [f64; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9);
                assert_eq!(geometry.shape(), axial().shape());
                assert!(close(geometry.origin, axial().origin), "{geometry:?}");
                assert!(close(geometry.step, axial().step) && close(geometry.row, axial().row));
                assert_eq!(
                    AxisMap::between(Path::new("s.nii"), &axial(), &affine, shape).unwrap(),
                    map
                );
            }
        }
        let flat = Affine {
            linear: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]],
            offset: [0.0; 3],
        };
        assert_eq!(AxisMap::head_first(&flat, sides), None);
    }

    #[test]
    fn the_axis_closest_to_head_feet_becomes_the_slices() {
        // A quarter of a right angle off: i runs to the front and up, j to the feet and front, k to the left.
        let (sin, cos) = 0.4_f64.sin_cos();
        let affine = Affine::from_columns(
            [0.0, 2.0 * cos, 2.0 * sin],
            [0.0, 3.0 * sin, -3.0 * cos],
            [-1.0, 0.0, 0.0],
            [0.0; 3],
        );
        let (map, geometry) = AxisMap::head_first(&affine, [4, 5, 6]).unwrap();
        assert_eq!((map.source, map.flip), ([2, 0, 1], [false, true, false]));
        assert_eq!(geometry.shape(), [5, 4, 6]);
        assert_eq!(geometry.spacing, [2.0, 1.0]);
        assert!((geometry.step[2] + 3.0 * cos).abs() < 1e-12);
    }
}
