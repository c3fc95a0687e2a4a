//! The voxels of a NIfTI file, row by row: decompressed, in the machine's byte order, scaled.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::header::Header;
use super::{COPY_AGAIN, EXPORT_AGAIN, NiftiGrid, fault, file_fault};
use crate::error::{DataError, Result};

/// An open file, read up to the end of its header.
pub(super) struct VoxelFile<'a> {
    path: &'a Path,
    header: Header,
    input: Input,
    stored: Stored,
    /// Bytes of the file on disk.
    length: u64,
}

const BUFFER: usize = 128 << 10;
/// Deflate makes at most 1,032 bytes out of one.
const LARGEST_GROWTH: u64 = 1032;
/// What may follow the last voxel of a compressed file.
const LONGEST_END: u64 = 64 << 20;

impl<'a> VoxelFile<'a> {
    /// Opens `path`, compressed or not, whatever its name says.
    pub(super) fn open(path: &'a Path) -> Result<Self> {
        let file = File::open(path).map_err(DataError::io("open", path))?;
        let length = file.metadata().map_err(DataError::io("read", path))?.len();
        let mut file = BufReader::with_capacity(BUFFER, file);
        let beginning = file.fill_buf().map_err(DataError::io("read", path))?;
        let mut input = match beginning {
            [0x1F, 0x8B, ..] => Input::Gzip(MultiGzDecoder::new(file)),
            _ => Input::Plain(file),
        };
        let header = Header::read(path, &mut input)?;
        let stored = Stored::of(header.datatype).map_err(|problem| {
            let problem = format!("is {}, {problem}", header.datatype);
            fault(path, "datatype", problem, EXPORT_AGAIN)
        })?;
        Ok(Self {
            path,
            header,
            input,
            stored,
            length,
        })
    }

    /// The grid, which the file is long enough for: what is as large as it may be made without further thought.
    pub(super) fn grid(&self) -> Result<NiftiGrid> {
        let grid = self.header.grid(self.path)?;
        let voxels_at = self.header.voxels_at(self.path)?;
        let needed = grid
            .shape
            .iter()
            .try_fold(self.stored.bytes() as u64, |product, &n| {
                product.checked_mul(n as u64)
            })
            .and_then(|voxels| voxels.checked_add(voxels_at));
        let held = match self.input {
            Input::Plain(_) => self.length,
            Input::Gzip(_) => self.length.saturating_mul(LARGEST_GROWTH),
        };
        match needed {
            Some(needed) if needed <= held => Ok(grid),
            _ => {
                let problem = format!(
                    "has {} bytes, too few for the {:?} voxels that its header announces",
                    self.length, grid.shape
                );
                Err(fault(self.path, "the file", problem, COPY_AGAIN))
            }
        }
    }

    /// Hands the rows of `planes` to `visit` in the order of the file: j, k, and the values along i. A compressed file is
    /// read to its end in any case.
    pub(super) fn for_each_row(
        mut self,
        planes: Range<usize>,
        mut visit: impl FnMut(usize, usize, &[f64]) -> Result<()>,
    ) -> Result<()> {
        let path = self.path;
        let [ni, nj, nk] = self.grid()?.shape;
        let scaling = self.header.scaling(path)?;
        let plane = ni * nj * self.stored.bytes();
        let gap = self.header.voxels_at(path)? - self.header.length;
        let before = plane as u64 * planes.start as u64;
        self.input
            .skip(gap + before)
            .map_err(|error| file_fault(path, error, "ends before its first voxel".into()))?;

        let mut bytes = vec![0; ni * self.stored.bytes()];
        let mut values = vec![0.0; ni];
        for k in planes.start..planes.end.min(nk) {
            for j in 0..nj {
                self.input.read_exact(&mut bytes).map_err(|error| {
                    file_fault(path, error, format!("ends in plane {} of {nk}", k + 1))
                })?;
                self.stored
                    .decode(self.header.big_endian, &bytes, &mut values);
                if let Some([slope, intercept]) = scaling {
                    for value in &mut values {
                        *value = *value * slope + intercept;
                    }
                }
                visit(j, k, &values)?;
            }
        }
        let after = plane as u64 * nk.saturating_sub(planes.end) as u64;
        self.input
            .finish(after)
            .map_err(|error| file_fault(path, error, "ends before its last voxel".into()))
    }
}

/// A file, decompressed.
enum Input {
    Plain(BufReader<File>),
    Gzip(MultiGzDecoder<BufReader<File>>),
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read(buffer),
            Self::Gzip(file) => file.read(buffer),
        }
    }
}

impl Input {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        match self {
            Self::Plain(file) => {
                let bytes = i64::try_from(bytes).map_err(io::Error::other)?;
                file.seek_relative(bytes)
            }
            Self::Gzip(file) => match io::copy(&mut file.take(bytes), &mut io::sink())? {
                skipped if skipped == bytes => Ok(()),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            },
        }
    }

    /// Reads a compressed file, which has `bytes` more of voxels, to its end and checks it.
    fn finish(&mut self, bytes: u64) -> io::Result<()> {
        let Self::Gzip(file) = self else {
            return Ok(());
        };
        let limit = bytes + LONGEST_END;
        match io::copy(&mut file.take(limit), &mut io::sink())? {
            short if short < bytes => Err(io::ErrorKind::UnexpectedEof.into()),
            long if long == limit => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it goes on far behind its last voxel",
            )),
            _ => Ok(()),
        }
    }
}

/// The type of stored values.
#[derive(Debug, Clone, Copy)]
enum Stored {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
}

impl Stored {
    /// By the DT_ codes of nifti1.h.
    fn of(datatype: i16) -> std::result::Result<Self, &'static str> {
        Ok(match datatype {
            2 => Self::U8,
            4 => Self::I16,
            8 => Self::I32,
            16 => Self::F32,
            64 => Self::F64,
            256 => Self::I8,
            512 => Self::U16,
            768 => Self::U32,
            1024 => Self::I64,
            1280 => Self::U64,
            1 => return Err("one bit a voxel, which is not read"),
            32 | 1792 | 2048 => return Err("complex numbers, which are no CT and no labels"),
            128 | 2304 => return Err("colours, which are no CT and no labels"),
            1536 => return Err("128-bit numbers, which are not read"),
            _ => return Err("which is no type of NIfTI"),
        })
    }

    fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    fn decode(self, big_endian: bool, bytes: &[u8], values: &mut [f64]) {
        macro_rules! decode {
            ($number:ty) => {{
                let (stored, _) = bytes.as_chunks();
                match big_endian {
                    true => put(values, stored, |b| <$number>::from_be_bytes(b) as f64),
                    false => put(values, stored, |b| <$number>::from_le_bytes(b) as f64),
                }
            }};
        }
        match self {
            Self::U8 => decode!(u8),
            Self::I8 => decode!(i8),
            Self::U16 => decode!(u16),
            Self::I16 => decode!(i16),
            Self::U32 => decode!(u32),
            Self::I32 => decode!(i32),
            Self::U64 => decode!(u64),
            Self::I64 => decode!(i64),
            Self::F32 => decode!(f32),
            Self::F64 => decode!(f64),
        }
    }
}

fn put<const N: usize>(values: &mut [f64], stored: &[[u8; N]], number: impl Fn([u8; N]) -> f64) {
    for (value, bytes) in values.iter_mut().zip(stored) {
        *value = number(*bytes);
    }
}
