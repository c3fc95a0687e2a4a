//! The header of a NIfTI-1 or NIfTI-2 file, of either byte order: which voxels it announces and where they lie.
//!
//! Offsets are those of nifti1.h and nifti2.h. Both versions are read by one table into one struct, with room for
//! whatever the wider one holds.

use std::io::Read;
use std::path::Path;

use super::{EXPORT_AGAIN, NiftiGrid, fault, file_fault};
use crate::error::Result;
use crate::geometry::{Affine, cross};

/// What stands in a header, whichever version it is of.
#[derive(Debug)]
pub(super) struct Header {
    /// Bytes of the header itself: 348 or 540.
    pub(super) length: u64,
    pub(super) big_endian: bool,
    pub(super) datatype: i16,
    dim: [i64; 8],
    /// qfac, then the lengths of a voxel along i, j, k.
    pixdim: [f64; 4],
    vox_offset: f64,
    slope: f64,
    intercept: f64,
    qform_code: i32,
    sform_code: i32,
    /// b, c, d of the unit quaternion.
    quaternion: [f64; 3],
    qoffset: [f64; 3],
    srow: [[f64; 4]; 3],
}

const VERSION_1: usize = 348;
const VERSION_2: usize = 540;
/// Extensions are a few kB, with the odd one of some MB.
const FURTHEST_VOXELS: f64 = (1 << 24) as f64;

impl Header {
    /// Reads a header off the beginning of `input`; `path` is for errors.
    pub(super) fn read(path: &Path, input: &mut impl Read) -> Result<Self> {
        let mut bytes = [0; VERSION_2];
        let cut = |error| file_fault(path, error, "ends in its header".into());
        input.read_exact(&mut bytes[..VERSION_1]).map_err(cut)?;
        let size = [bytes[0], bytes[1], bytes[2], bytes[3]];
        let is = |length: usize, big_endian| match big_endian {
            true => u32::from_be_bytes(size) as usize == length,
            false => u32::from_le_bytes(size) as usize == length,
        };
        let known = [VERSION_1, VERSION_2]
            .into_iter()
            .flat_map(|length| [(length, false), (length, true)])
            .find(|&(length, big_endian)| is(length, big_endian));
        let Some((length, big_endian)) = known else {
            let problem = "is neither 348 (NIfTI-1) nor 540 (NIfTI-2)".into();
            return Err(fault(path, "sizeof_hdr", problem, EXPORT_AGAIN));
        };
        input
            .read_exact(&mut bytes[VERSION_1..length])
            .map_err(cut)?;

        let (magic, single): (&[u8], &[u8]) = match length {
            VERSION_1 => (&bytes[344..348], b"n+1\0"),
            _ => (&bytes[4..12], b"n+2\0\r\n\x1a\n"),
        };
        if magic != single {
            let problem = match magic {
                [b'n', b'i', ..] => "is that of a pair of files, .hdr and .img",
                _ => "is not that of a NIfTI file",
            };
            return Err(fault(path, "magic", problem.into(), EXPORT_AGAIN));
        }
        let fields = Fields {
            bytes: &bytes,
            big_endian,
        };
        Ok(match length {
            VERSION_1 => Self::version_1(&fields),
            _ => Self::version_2(&fields),
        })
    }

    fn version_1(f: &Fields<'_>) -> Self {
        Self {
            length: VERSION_1 as u64,
            big_endian: f.big_endian,
            datatype: f.i16(70),
            dim: f.list(40, 2, |f, at| f.i16(at).into()),
            pixdim: f.list(76, 4, Fields::f32),
            vox_offset: f.f32(108),
            slope: f.f32(112),
            intercept: f.f32(116),
            qform_code: f.i16(252).into(),
            sform_code: f.i16(254).into(),
            quaternion: f.list(256, 4, Fields::f32),
            qoffset: f.list(268, 4, Fields::f32),
            srow: f.list(280, 16, |f, at| f.list(at, 4, Fields::f32)),
        }
    }

    fn version_2(f: &Fields<'_>) -> Self {
        Self {
            length: VERSION_2 as u64,
            big_endian: f.big_endian,
            datatype: f.i16(12),
            dim: f.list(16, 8, Fields::i64),
            pixdim: f.list(104, 8, Fields::f64),
            vox_offset: f.i64(168) as f64,
            slope: f.f64(176),
            intercept: f.f64(184),
            qform_code: f.i32(344),
            sform_code: f.i32(348),
            quaternion: f.list(352, 8, Fields::f64),
            qoffset: f.list(376, 8, Fields::f64),
            srow: f.list(400, 32, |f, at| f.list(at, 8, Fields::f64)),
        }
    }

    /// The shape and the place of the volume.
    pub(super) fn grid(&self, path: &Path) -> Result<NiftiGrid> {
        let [dimensions, ni, nj, nk, more @ ..] = self.dim;
        let extra = more.iter().take((dimensions - 3).clamp(0, 4) as usize);
        let problem = match dimensions {
            3..=7 if [ni, nj, nk].iter().any(|&n| n < 1) => "has no voxels",
            3..=7 if extra.clone().any(|&n| n != 1) => "is a series of volumes, not one",
            3..=7 => "",
            1 | 2 => "is not that of a volume",
            _ => "is not 3 to 7 dimensions",
        };
        let shape = [ni, nj, nk].map(|n| usize::try_from(n).ok());
        match (problem, shape) {
            ("", [Some(ni), Some(nj), Some(nk)]) => Ok(NiftiGrid {
                shape: [ni, nj, nk],
                affine: self.affine(path)?,
            }),
            _ => {
                let problem = format!("{problem} ({:?})", self.dim);
                Err(fault(path, "dim", problem, EXPORT_AGAIN))
            }
        }
    }

    /// Index to RAS mm, by the sform or else by the qform, as nibabel's `get_best_affine`. Where both codes are 0 the
    /// place is unknown; nibabel invents one, which is no use to tell the head from the feet.
    fn affine(&self, path: &Path) -> Result<Affine> {
        let affine = if self.sform_code > 0 {
            Affine {
                linear: self.srow.map(|[a, b, c, _]| [a, b, c]),
                offset: self.srow.map(|[_, _, _, d]| d),
            }
        } else if self.qform_code > 0 {
            self.qform(path)?
        } else {
            return Err(fault(
                path,
                "sform_code and qform_code",
                "are 0, so where the volume lies is unknown".into(),
                EXPORT_AGAIN,
            ));
        };
        match affine.inverse() {
            Some(_) => Ok(affine),
            None => {
                let problem = "is flat or holds what is no number".into();
                Err(fault(path, "the affine", problem, EXPORT_AGAIN))
            }
        }
    }

    fn qform(&self, path: &Path) -> Result<Affine> {
        // A negative length says no more than its size, to nibabel too.
        let [qfac, lengths @ ..] = self.pixdim;
        let [dx, dy, dz] = lengths.map(f64::abs);
        if ![dx, dy, dz].iter().all(|&mm| mm.is_finite() && mm > 0.0) {
            let problem = format!("is {lengths:?}, not three lengths");
            return Err(fault(path, "pixdim", problem, EXPORT_AGAIN));
        }
        let [x, y] = rotation_columns(self.quaternion);
        let z = cross(x, y).map(|v| if qfac < 0.0 { -v } else { v });
        Ok(Affine::from_columns(
            x.map(|v| v * dx),
            y.map(|v| v * dy),
            z.map(|v| v * dz),
            self.qoffset,
        ))
    }

    /// Bytes from the beginning of the file to the first voxel.
    pub(super) fn voxels_at(&self, path: &Path) -> Result<u64> {
        let least = self.length as f64 + 4.0;
        match self.vox_offset {
            at if (least..=FURTHEST_VOXELS).contains(&at) => Ok(at as u64),
            at => {
                let problem = format!("is {at}, not {least} or a little more");
                Err(fault(path, "vox_offset", problem, EXPORT_AGAIN))
            }
        }
    }

    /// What stored values are multiplied by, and what is added then. A slope of zero or no number means "not scaled"
    /// (nifti1.h; nibabel).
    pub(super) fn scaling(&self, path: &Path) -> Result<Option<[f64; 2]>> {
        if self.slope == 0.0 || !self.slope.is_finite() {
            return Ok(None);
        }
        if !self.intercept.is_finite() {
            let problem = format!("is {}", self.intercept);
            return Err(fault(path, "scl_inter", problem, EXPORT_AGAIN));
        }
        Ok(Some([self.slope, self.intercept]))
    }
}

/// Numbers at offsets of a header.
struct Fields<'a> {
    bytes: &'a [u8; VERSION_2],
    big_endian: bool,
}

impl Fields<'_> {
    /// The `N` bytes at `at`, little endian.
    fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.bytes[at..at + N]);
        if self.big_endian {
            bytes.reverse();
        }
        bytes
    }

    fn i16(&self, at: usize) -> i16 {
        i16::from_le_bytes(self.get(at))
    }

    fn i32(&self, at: usize) -> i32 {
        i32::from_le_bytes(self.get(at))
    }

    fn i64(&self, at: usize) -> i64 {
        i64::from_le_bytes(self.get(at))
    }

    fn f32(&self, at: usize) -> f64 {
        f32::from_le_bytes(self.get(at)).into()
    }

    fn f64(&self, at: usize) -> f64 {
        f64::from_le_bytes(self.get(at))
    }

    /// `N` values of `size` bytes each.
    fn list<T, const N: usize>(
        &self,
        at: usize,
        size: usize,
        read: impl Fn(&Self, usize) -> T,
    ) -> [T; N] {
        std::array::from_fn(|i| read(self, at + size * i))
    }
}

/// The first two columns of the rotation by a unit quaternion whose last three parts these are (nifti1.h, method 2).
fn rotation_columns([b, c, d]: [f64; 3]) -> [[f64; 3]; 2] {
    let imaginary = b * b + c * c + d * d;
    // Rounding may leave the vector part a little too long for a unit quaternion, or a hair too short for a half turn.
    let (a, scale) = match 1.0 - imaginary {
        left if left > 3.0 * f64::from(f32::EPSILON) => (left.sqrt(), 1.0),
        _ => (0.0, imaginary.sqrt().recip()),
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
}
