//! Reading label volumes from NIfTI-1 files onto the grid of their study.
//!
//! Volumes are read by planes, through the affine of the sform, or else of the qform, so the files' orientation does not
//! matter. Compressed files are read to their end, because only there their checksum stands.

pub mod write;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use nifti::{Endianness, NiftiHeader, NiftiType};

use crate::error::{DataError, Result};
use crate::geometry::{Affine, AxisMap, Geometry, cross};

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
    open(path)?.grid()
}

/// Reads the labels at `path` and puts them in the order of the study with grid `geometry`.
///
/// Labels may be stored as any integer or float type, scaled or not, as long as their values are whole numbers of 0 to
/// 255.
///
/// # Errors
/// [`DataError::SegmentationShape`] and [`DataError::SegmentationGrid`] where the volume is not on the study's grid,
/// [`DataError::Nifti`] where the file is damaged, holds other than labels or is not NIfTI-1, [`DataError::Io`].
pub fn read_labels(path: &Path, geometry: &Geometry) -> Result<LabelVolume> {
    let mut file = open(path)?;
    let NiftiGrid { shape, affine } = file.grid()?;
    let map = AxisMap::between(path, geometry, &affine, shape)?;
    let decode = file.voxel_decoder()?;

    // Where the labels go: an offset for voxel (0, 0, 0) and a step for each NIfTI axis.
    let strides = [1, geometry.cols, geometry.rows * geometry.cols];
    let mut first = 0;
    let mut steps = [0_isize; 3];
    for ((stride, along), flip) in strides.into_iter().zip(map.source).zip(map.flip) {
        steps[along] = match flip {
            false => stride as isize,
            true => {
                first += (shape[along] - 1) * stride;
                -(stride as isize)
            }
        };
    }

    let [ni, nj, nk] = shape;
    let mut labels = vec![0; geometry.voxels()];
    let mut plane = vec![0; ni * nj * decode.bytes];
    file.skip_to_voxels()?;
    for k in 0..nk {
        file.input
            .read_exact(&mut plane)
            .map_err(|error| file_fault(path, error, format!("ends in plane {} of {nk}", k + 1)))?;
        for (row, j) in plane.chunks_exact(ni * decode.bytes).zip(0..) {
            let mut at = first as isize + j * steps[1] + k as isize * steps[2];
            for voxel in row.chunks_exact(decode.bytes) {
                labels[at as usize] = decode
                    .label(voxel)
                    .map_err(|problem| fault(path, "a voxel", problem, NOT_LABELS))?;
                at += steps[0];
            }
        }
    }
    io::copy(&mut file.input, &mut io::sink())
        .map_err(|error| file_fault(path, error, "is damaged at its end".into()))?;
    Ok(LabelVolume {
        labels,
        shape: geometry.shape(),
    })
}

const COPY_AGAIN: &str = "copy the file again from its source";
const EXPORT_AGAIN: &str = "export the segmentation again as a three-dimensional NIfTI-1 file";
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

/// An open file, read up to the end of its header.
struct NiftiFile<'a> {
    path: &'a Path,
    header: NiftiHeader,
    input: Box<dyn Read>,
}

fn open(path: &Path) -> Result<NiftiFile<'_>> {
    let mut file = BufReader::new(File::open(path).map_err(DataError::io("open", path))?);
    let beginning = io::BufRead::fill_buf(&mut file).map_err(DataError::io("read", path))?;
    let mut input: Box<dyn Read> = match beginning {
        [0x1F, 0x8B, ..] => Box::new(MultiGzDecoder::new(file)),
        _ => Box::new(file),
    };
    let mut bytes = [0; HEADER_BYTES];
    input
        .read_exact(&mut bytes)
        .map_err(|error| file_fault(path, error, "ends in its header".into()))?;
    let header = NiftiHeader::from_reader(bytes.as_slice())
        .map_err(|error| fault(path, "the header", error.to_string(), EXPORT_AGAIN))?;
    if &header.magic != b"n+1\0" || header.sizeof_hdr != HEADER_BYTES as i32 {
        let problem = "are not those of one NIfTI-1 file".into();
        return Err(fault(path, "magic and sizeof_hdr", problem, EXPORT_AGAIN));
    }
    Ok(NiftiFile {
        path,
        header,
        input,
    })
}

const HEADER_BYTES: usize = 348;
const NO_VOXELS: &str = "ends before its first voxel";

impl NiftiFile<'_> {
    fn fault(&self, field: &'static str, problem: impl Into<String>) -> DataError {
        fault(self.path, field, problem.into(), EXPORT_AGAIN)
    }

    fn grid(&self) -> Result<NiftiGrid> {
        let [dimensions, ni, nj, nk, more @ ..] = self.header.dim;
        let extra = usize::from(dimensions.saturating_sub(3));
        let volume = (3..=7).contains(&dimensions)
            && [ni, nj, nk].iter().all(|&n| n > 0)
            && more.iter().take(extra).all(|&n| n == 1);
        if !volume {
            let problem = format!("is {:?}, not that of a volume", self.header.dim);
            return Err(self.fault("dim", problem));
        }
        Ok(NiftiGrid {
            shape: [ni, nj, nk].map(usize::from),
            affine: self.affine()?,
        })
    }

    fn affine(&self) -> Result<Affine> {
        let h = &self.header;
        if h.sform_code > 0 {
            let rows = [h.srow_x, h.srow_y, h.srow_z].map(|row| row.map(f64::from));
            return Ok(Affine {
                linear: rows.map(|[a, b, c, _]| [a, b, c]),
                offset: rows.map(|[_, _, _, d]| d),
            });
        }
        if h.qform_code <= 0 {
            return Err(self.fault(
                "sform_code and qform_code",
                "are 0, so where the volume lies is unknown",
            ));
        }
        let [qfac, dx, dy, dz, ..] = h.pixdim.map(f64::from);
        if ![dx, dy, dz].iter().all(|&mm| mm.is_finite() && mm > 0.0) {
            let problem = format!("is {:?}, not positive lengths", &h.pixdim[1..4]);
            return Err(self.fault("pixdim", problem));
        }
        let quaternion = [h.quatern_b, h.quatern_c, h.quatern_d].map(f64::from);
        let [x, y] = rotation_columns(quaternion);
        let z = cross(x, y).map(|v| if qfac < 0.0 { -v } else { v });
        Ok(Affine::from_columns(
            x.map(|v| v * dx),
            y.map(|v| v * dy),
            z.map(|v| v * dz),
            [h.quatern_x, h.quatern_y, h.quatern_z].map(f64::from),
        ))
    }

    /// Passes over what stands between the header and the voxels.
    fn skip_to_voxels(&mut self) -> Result<()> {
        let offset = self.header.vox_offset;
        // Extensions are a few kB; f32 holds whole numbers up to here exactly.
        if !(352.0..=16_777_216.0).contains(&offset) {
            return Err(self.fault(
                "vox_offset",
                format!("is {offset}, not 352 or a little more"),
            ));
        }
        let gap = offset as u64 - HEADER_BYTES as u64;
        let skipped = io::copy(&mut self.input.by_ref().take(gap), &mut io::sink())
            .map_err(|error| file_fault(self.path, error, NO_VOXELS.into()))?;
        match skipped == gap {
            true => Ok(()),
            false => Err(fault(self.path, "the file", NO_VOXELS.into(), COPY_AGAIN)),
        }
    }

    fn voxel_decoder(&self) -> Result<VoxelDecoder> {
        let (bytes, value): (usize, fn(&[u8]) -> f64) = match self.header.data_type() {
            Ok(NiftiType::Uint8) => (1, |b| f64::from(b[0])),
            Ok(NiftiType::Int8) => (1, |b| f64::from(b[0] as i8)),
            Ok(NiftiType::Uint16) => (2, |b| f64::from(u16::from_le_bytes(word(b)))),
            Ok(NiftiType::Int16) => (2, |b| f64::from(i16::from_le_bytes(word(b)))),
            Ok(NiftiType::Uint32) => (4, |b| f64::from(u32::from_le_bytes(word(b)))),
            Ok(NiftiType::Int32) => (4, |b| f64::from(i32::from_le_bytes(word(b)))),
            Ok(NiftiType::Float32) => (4, |b| f64::from(f32::from_le_bytes(word(b)))),
            Ok(NiftiType::Uint64) => (8, |b| u64::from_le_bytes(word(b)) as f64),
            Ok(NiftiType::Int64) => (8, |b| i64::from_le_bytes(word(b)) as f64),
            Ok(NiftiType::Float64) => (8, |b| f64::from_le_bytes(word(b))),
            _ => {
                let problem = format!("is {}, which holds no labels", self.header.datatype);
                return Err(self.fault("datatype", problem));
            }
        };
        // A slope of zero or no number means "not scaled", as for nibabel.
        let (slope, inter) = (self.header.scl_slope, self.header.scl_inter);
        let (slope, inter) = match slope != 0.0 && slope.is_finite() && inter.is_finite() {
            true => (slope.into(), inter.into()),
            false => (1.0, 0.0),
        };
        Ok(VoxelDecoder {
            bytes,
            big_endian: self.header.endianness == Endianness::Big,
            value,
            slope,
            inter,
        })
    }
}

/// How a voxel's bytes become a label.
struct VoxelDecoder {
    bytes: usize,
    big_endian: bool,
    /// From little-endian bytes, as many as `bytes`.
    value: fn(&[u8]) -> f64,
    slope: f64,
    inter: f64,
}

impl VoxelDecoder {
    fn label(&self, voxel: &[u8]) -> std::result::Result<u8, String> {
        let stored = if self.big_endian {
            let mut reversed: [u8; 8] = word(voxel);
            let reversed = &mut reversed[..self.bytes];
            reversed.reverse();
            (self.value)(reversed)
        } else {
            (self.value)(voxel)
        };
        let value = stored * self.slope + self.inter;
        let label = value.round();
        // Scaled labels carry the rounding of an f32 slope.
        if (0.0..=255.0).contains(&label) && (value - label).abs() <= 1e-3 {
            Ok(label as u8)
        } else {
            Err(format!("is {value}, which is no label"))
        }
    }
}

/// The first `N` bytes, zeros where there are fewer.
fn word<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut word = [0; N];
    for (to, from) in word.iter_mut().zip(bytes) {
        *to = *from;
    }
    word
}

/// The first two columns of the rotation by a unit quaternion whose last three parts these are (nifti1.h, method 2).
fn rotation_columns([b, c, d]: [f64; 3]) -> [[f64; 3]; 2] {
    let imaginary = b * b + c * c + d * d;
    // Rounding may leave the vector part a little too long for a unit quaternion.
    let (a, scale) = match imaginary < 1.0 {
        true => ((1.0 - imaginary).sqrt(), 1.0),
        false => (0.0, imaginary.sqrt().recip()),
    };
    let [b, c, d] = [b * scale, c * scale, d * scale];
    [
        [
            a * a + b * b - c * c - d * d,
            2.0 * (b * c + a * d),
            2.0 * (b * d - a * c),
        ],
        [
            2.0 * (b * c - a * d),
            a * a + c * c - b * b - d * d,
            2.0 * (c * d + a * b),
        ],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quaternions_turn_as_the_format_defines() {
        assert_eq!(
            rotation_columns([0.0; 3]),
            [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
        );
        // Half a turn about z, slightly too long.
        assert_eq!(
            rotation_columns([0.0, 0.0, 1.0001]),
            [[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]
        );
        // A quarter turn about z takes x to y.
        let [x, y] = rotation_columns([0.0, 0.0, 0.5_f64.sqrt()]);
        let close = |a: [f64; 3], b: [f64; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(close(x, [0.0, 1.0, 0.0]) && close(y, [-1.0, 0.0, 0.0]));
    }

    #[test]
    fn labels_are_whole_numbers_of_any_type() {
        let decoder = |big_endian, slope, inter| VoxelDecoder {
            bytes: 8,
            big_endian,
            value: |b| f64::from_le_bytes(word(b)),
            slope,
            inter,
        };
        assert_eq!(decoder(false, 1.0, 0.0).label(&7_f64.to_le_bytes()), Ok(7));
        assert_eq!(decoder(true, 1.0, 0.0).label(&7_f64.to_be_bytes()), Ok(7));
        assert_eq!(
            decoder(false, 0.1_f32.into(), 1.0).label(&20_f64.to_le_bytes()),
            Ok(3)
        );
        for wrong in [0.5, -1.0, 256.0, f64::NAN, f64::INFINITY] {
            assert!(
                decoder(false, 1.0, 0.0)
                    .label(&wrong.to_le_bytes())
                    .is_err(),
                "{wrong}"
            );
        }
    }
}
