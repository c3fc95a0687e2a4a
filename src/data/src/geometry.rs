//! Where voxels are in the patient: the grid of a DICOM stack, affines, and the way from a NIfTI grid onto it.
//!
//! DICOM counts millimetres towards the patient's left, back and head (LPS); NIfTI towards right, front and head (RAS).
//! Indices of a stack are (column, row, slice) where a matrix is applied to them, and arrays are (slice, row, column).

mod axes;

pub use axes::AxisMap;

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
pub(crate) const LPS_TO_RAS: Affine = Affine {
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
}
