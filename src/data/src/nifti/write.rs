//! Writing volumes as NIfTI-1 files, with the study's place in the patient.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use flate2::{Compression, write::GzEncoder};

use crate::atomic_file;
use crate::error::{DataError, Result};
use crate::geometry::{Affine, Geometry, cross, dot};

/// The order of voxels in the file. Either way the affine says where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// As the segmentations of the RSNA 2022 data: (x, y, z) with the rows reversed, and the slices reversed where the
    /// study runs downwards, so that for axial slices y runs to the front and z to the head.
    #[default]
    Kaggle,
    /// (column, row, slice) as in the study.
    AsStored,
}

/// Writes labels, (slices, rows, columns) on the grid `geometry`, to a `.nii` or `.nii.gz` file, whole or not at all.
///
/// # Errors
/// [`DataError::VoxelCount`] where the number of labels is not the grid's, [`DataError::Nifti`] where the grid is larger
/// than the format holds, [`DataError::Io`].
pub fn write_nifti_u8(
    path: &Path,
    geometry: &Geometry,
    labels: &[u8],
    layout: Layout,
) -> Result<()> {
    write(path, geometry, layout, DT_UINT8, labels, |&v| [v])
}

/// Writes Hounsfield units, (slices, rows, columns) on the grid `geometry`; as [`write_nifti_u8`].
///
/// # Errors
/// As [`write_nifti_u8`].
pub fn write_nifti_i16(path: &Path, geometry: &Geometry, hu: &[i16], layout: Layout) -> Result<()> {
    write(path, geometry, layout, DT_INT16, hu, |v| v.to_le_bytes())
}

/// As [`write_nifti_i16`], from slices that `read` hands over by runs of at most `at_once`, (slices, rows, columns), in the
/// order in which they are written.
///
/// # Errors
/// As [`write_nifti_i16`], and what `read` says; then nothing is written.
pub fn write_nifti_slices(
    path: &Path,
    geometry: &Geometry,
    layout: Layout,
    at_once: usize,
    mut read: impl FnMut(Range<usize>) -> Result<Vec<i16>>,
) -> Result<()> {
    let grid = DiskGrid::new(geometry, layout);
    let header = grid.header(path, DT_INT16, 2)?;
    let at_once = at_once.max(1);
    let mut failed = None;
    let written = to_file(path, |file| {
        file.write_all(&header)?;
        for start in (0..geometry.slices).step_by(at_once) {
            let end = (start + at_once).min(geometry.slices);
            let run = match grid.flip_slices {
                true => geometry.slices - end..geometry.slices - start,
                false => start..end,
            };
            let voxels = read(run.clone()).and_then(|voxels| {
                let expected = run.len() * geometry.rows * geometry.cols;
                counted(path, voxels.len(), expected).map(|()| voxels)
            });
            let voxels = voxels.map_err(|error| {
                failed = Some(error);
                io::Error::other("its voxels could not be read")
            })?;
            grid.write_voxels(file, &voxels, |v| v.to_le_bytes())?;
        }
        Ok(())
    });
    failed.map_or(written, Err)
}

const DT_UINT8: i16 = 2;
const DT_INT16: i16 = 4;

fn write<T, const BYTES: usize>(
    path: &Path,
    geometry: &Geometry,
    layout: Layout,
    datatype: i16,
    voxels: &[T],
    to_bytes: impl Fn(&T) -> [u8; BYTES],
) -> Result<()> {
    counted(path, voxels.len(), geometry.voxels())?;
    let grid = DiskGrid::new(geometry, layout);
    let header = grid.header(path, datatype, BYTES)?;
    to_file(path, |file| {
        file.write_all(&header)?;
        grid.write_voxels(file, voxels, to_bytes)
    })
}

fn counted(path: &Path, found: usize, expected: usize) -> Result<()> {
    match found == expected {
        true => Ok(()),
        false => Err(DataError::VoxelCount {
            path: path.to_path_buf(),
            found,
            expected,
        }),
    }
}

/// Lets `write` fill the file, compressed where its name ends in .gz.
fn to_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let compressed = path.extension() == Some(OsStr::new("gz"));
    atomic_file::replace(path, |file| {
        if compressed {
            let mut encoder = GzEncoder::new(file, Compression::fast());
            write(&mut encoder)?;
            encoder.finish().map(drop)
        } else {
            write(file)
        }
    })
}

/// The grid as it lies in the file.
struct DiskGrid {
    /// Columns, rows, slices.
    shape: [usize; 3],
    flip_rows: bool,
    flip_slices: bool,
    /// File indices to RAS millimetres.
    affine: Affine,
}

impl DiskGrid {
    fn new(geometry: &Geometry, layout: Layout) -> Self {
        let flip_rows = layout == Layout::Kaggle;
        let flip_slices = layout == Layout::Kaggle && geometry.step[2] < 0.0;
        let shape = [geometry.cols, geometry.rows, geometry.slices];
        let reversed = |flip: bool, n: usize| match flip {
            true => (-1.0, n.saturating_sub(1) as f64),
            false => (1.0, 0.0),
        };
        let (row_sign, last_row) = reversed(flip_rows, geometry.rows);
        let (slice_sign, last_slice) = reversed(flip_slices, geometry.slices);
        let to_study = Affine {
            linear: [
                [1.0, 0.0, 0.0],
                [0.0, row_sign, 0.0],
                [0.0, 0.0, slice_sign],
            ],
            offset: [0.0, last_row, last_slice],
        };
        Self {
            shape,
            flip_rows,
            flip_slices,
            affine: geometry.voxel_to_ras().after(&to_study),
        }
    }

    /// Writes a run of whole slices of the study in the order of the file.
    fn write_voxels<T, const BYTES: usize>(
        &self,
        file: &mut dyn Write,
        voxels: &[T],
        to_bytes: impl Fn(&T) -> [u8; BYTES],
    ) -> io::Result<()> {
        let [cols, rows, _] = self.shape;
        let slices = voxels.len() / (cols * rows).max(1);
        let mut bytes = Vec::with_capacity(cols * rows * BYTES);
        for k in 0..slices {
            let slice = if self.flip_slices { slices - 1 - k } else { k };
            for j in 0..rows {
                let row = if self.flip_rows { rows - 1 - j } else { j };
                let start = (slice * rows + row) * cols;
                bytes.extend(voxels[start..start + cols].iter().flat_map(&to_bytes));
            }
            file.write_all(&bytes)?;
            bytes.clear();
        }
        Ok(())
    }

    /// The 348 bytes of nifti1.h and the four that say that no extension follows.
    fn header(&self, path: &Path, datatype: i16, bytes: usize) -> Result<[u8; 352]> {
        let mut header = [0; 352];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        let mut dim = [3, 1, 1, 1, 1, 1, 1, 1_i16];
        for (dim, n) in dim.iter_mut().skip(1).zip(self.shape) {
            *dim = i16::try_from(n).map_err(|_| DataError::Nifti {
                path: path.to_path_buf(),
                field: "dim",
                problem: format!("would be {n}, and NIfTI-1 ends at {}", i16::MAX),
                remedy: "write fewer slices",
            })?;
        }
        let (lengths, rotation) = self.quaternion();
        let [qfac, b, c, d] = rotation.unwrap_or([1.0, 0.0, 0.0, 0.0]);
        let [dx, dy, dz] = lengths;

        put(0, &348_i32.to_le_bytes());
        put(38, b"r");
        put(40, &dim.map(i16::to_le_bytes).concat());
        put(70, &datatype.to_le_bytes());
        put(72, &(bytes as i16 * 8).to_le_bytes());
        put(76, &floats(&[qfac, dx, dy, dz]));
        put(108, &floats(&[352.0]));
        put(112, &floats(&[1.0]));
        put(123, &[MILLIMETRES]);
        put(148, b"spinectl");
        put(
            252,
            &(if rotation.is_some() { SCANNER } else { 0 }).to_le_bytes(),
        );
        put(254, &SCANNER.to_le_bytes());
        put(256, &floats(&[b, c, d]));
        put(268, &floats(&self.affine.offset));
        for (i, row) in self.affine.linear.iter().enumerate() {
            put(280 + 16 * i, &floats(row));
            put(292 + 16 * i, &floats(&self.affine.offset[i..=i]));
        }
        put(344, b"n+1\0");
        Ok(header)
    }

    /// Voxel lengths, and qfac with the quaternion's b, c, d (nifti1_io's `nifti_mat44_to_quatern`); no quaternion where
    /// the axes are not perpendicular, as with a tilted gantry.
    fn quaternion(&self) -> ([f64; 3], Option<[f64; 4]>) {
        let column = |j: usize| self.affine.linear.map(|row| row[j]);
        let columns = [column(0), column(1), column(2)];
        let lengths = columns.map(|c| dot(c, c).sqrt());
        let unit = |j: usize| columns[j].map(|v| v / lengths[j]);
        let (x, y, z) = (unit(0), unit(1), unit(2));
        let slanted = [dot(x, y), dot(x, z), dot(y, z)]
            .iter()
            .any(|v| v.is_nan() || v.abs() > 1e-4);
        if slanted {
            return (lengths, None);
        }
        let qfac = if dot(cross(x, y), z) < 0.0 { -1.0 } else { 1.0 };
        let z = z.map(|v| v * qfac);
        // The largest of the four parts is found from the diagonal, the others from it, so that nothing small divides.
        let squares = [
            1.0 + x[0] + y[1] + z[2],
            1.0 + x[0] - y[1] - z[2],
            1.0 - x[0] + y[1] - z[2],
            1.0 - x[0] - y[1] + z[2],
        ];
        let mut largest = 0;
        for (i, square) in squares.iter().enumerate() {
            if *square > squares[largest] {
                largest = i;
            }
        }
        let s = squares[largest].sqrt();
        let [a, b, c, d] = match largest {
            0 => [s * s, y[2] - z[1], z[0] - x[2], x[1] - y[0]],
            1 => [y[2] - z[1], s * s, x[1] + y[0], z[0] + x[2]],
            2 => [z[0] - x[2], x[1] + y[0], s * s, y[2] + z[1]],
            _ => [x[1] - y[0], z[0] + x[2], y[2] + z[1], s * s],
        }
        .map(|v| v / (2.0 * s));
        let sign = if a < 0.0 { -1.0 } else { 1.0 };
        (lengths, Some([qfac, sign * b, sign * c, sign * d]))
    }
}

/// xyzt_units: NIFTI_UNITS_MM.
const MILLIMETRES: u8 = 2;
/// qform_code and sform_code: NIFTI_XFORM_SCANNER_ANAT.
const SCANNER: i16 = 1;

fn floats(values: &[f64]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|&v| (v as f32).to_le_bytes())
        .collect()
}
