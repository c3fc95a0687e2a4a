//! The safetensors format, streamed: a little-endian u64 length, that much JSON header, then the
//! tensors' bytes.
//!
//! Header and its checks are the `safetensors` crate's; the bytes go straight between file and
//! tensor, so that a checkpoint is never in memory twice.
//! <https://github.com/huggingface/safetensors#format>

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read, Write};

use safetensors::tensor::{Metadata, TensorInfo};

use crate::{Dtype, Error, TensorData, TensorSpec};

/// The length of the header's length.
const PREFIX: u64 = 8;
/// The format's own limit on a header.
const MAX_HEADER: u64 = 100_000_000;

/// A safetensors file that is ready to be written.
pub(crate) struct TensorFile<'a> {
    header: Vec<u8>,
    tensors: Vec<&'a TensorData>,
}

impl<'a> TensorFile<'a> {
    /// Checks and orders the tensors: by falling element size, as the format advises, so that each
    /// is aligned; then by name.
    pub(crate) fn new(tensors: &'a [TensorData]) -> Result<Self, Error> {
        let mut names = BTreeSet::new();
        for tensor in tensors {
            tensor.check()?;
            if !names.insert(&tensor.name) {
                return Err(invalid(&tensor.name, "two tensors have this name"));
            }
        }
        let mut tensors: Vec<&TensorData> = tensors.iter().collect();
        tensors.sort_by(|a, b| {
            (b.dtype.size().cmp(&a.dtype.size())).then_with(|| a.name.cmp(&b.name))
        });

        let mut end = 0;
        let infos = tensors
            .iter()
            .map(|tensor| {
                let start = end;
                end += tensor.bytes.len();
                let info = TensorInfo {
                    dtype: tensor.dtype.to_file(),
                    shape: tensor.shape.clone(),
                    data_offsets: (start, end),
                };
                (tensor.name.clone(), info)
            })
            .collect();
        let metadata = Metadata::new(Some(about()), infos)
            .map_err(|error| invalid("(all)", &error.to_string()))?;
        let mut header =
            serde_json::to_vec(&metadata).map_err(|error| invalid("(all)", &error.to_string()))?;
        header.resize(header.len().next_multiple_of(PREFIX as usize), b' ');
        if header.len() as u64 > MAX_HEADER {
            return Err(invalid(
                "(all)",
                "their names take more than a header may hold",
            ));
        }
        Ok(TensorFile { header, tensors })
    }

    /// Bytes of the whole file.
    pub(crate) fn bytes(&self) -> u64 {
        let data: usize = self.tensors.iter().map(|tensor| tensor.bytes.len()).sum();
        PREFIX + (self.header.len() + data) as u64
    }

    pub(crate) fn write_to(&self, writer: &mut impl Write) -> io::Result<()> {
        writer.write_all(&(self.header.len() as u64).to_le_bytes())?;
        writer.write_all(&self.header)?;
        self.tensors
            .iter()
            .try_for_each(|tensor| writer.write_all(&tensor.bytes))
    }
}

/// What PyTorch's own writers say of their files; some readers refuse a file without it.
fn about() -> HashMap<String, String> {
    HashMap::from([("format".to_owned(), "pt".to_owned())])
}

fn invalid(name: &str, reason: &str) -> Error {
    Error::InvalidTensor {
        name: name.to_owned(),
        reason: reason.to_owned(),
    }
}

/// The header of a safetensors file.
pub(crate) struct Header(Metadata);

impl Header {
    /// The tensors in the order of their bytes in the file; the error names one whose type is not supported.
    pub(crate) fn specs(&self) -> Result<Vec<TensorSpec>, String> {
        let names = self.0.offset_keys().into_iter();
        names
            .filter_map(|name| Some((self.0.info(&name)?, name)))
            .map(|(info, name)| match Dtype::from_file(info.dtype) {
                Some(dtype) => Ok(TensorSpec {
                    name,
                    dtype,
                    shape: info.shape.clone(),
                }),
                None => Err(format!(
                    "tensor `{name}` is of type {}, which is not supported",
                    info.dtype
                )),
            })
            .collect()
    }
}

/// Reads the header of a file of `size` bytes; the error says what is wrong with it.
///
/// Nothing is allocated for a length that the file claims before that length is known to lie within
/// `size`.
pub(crate) fn read_header(reader: &mut impl Read, size: u64) -> Result<Header, String> {
    if size < PREFIX {
        return Err(format!(
            "it has {size} bytes, fewer than the length of a header takes"
        ));
    }
    let mut prefix = [0; PREFIX as usize];
    reader.read_exact(&mut prefix).map_err(cut_short)?;
    let header_length = u64::from_le_bytes(prefix);
    if header_length > MAX_HEADER.min(size - PREFIX) {
        return Err(format!(
            "its header claims {header_length} bytes, the file has {size}: it is cut short, or of another format"
        ));
    }
    let header = read_exactly(reader, header_length).map_err(cut_short)?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|error| format!("its header is wrong: {error}"))?;
    let expected = PREFIX + header_length + metadata.data_len() as u64;
    match expected.cmp(&size) {
        Ordering::Equal => Ok(Header(metadata)),
        Ordering::Greater => Err(format!(
            "its header describes {expected} bytes, the file has {size}: it is cut short"
        )),
        Ordering::Less => Err(format!(
            "its header describes {expected} bytes, the file has {size}: there is more than tensors in it"
        )),
    }
}

fn cut_short(error: io::Error) -> String {
    format!("it cannot be read to its end: {error}")
}

/// Reads the tensors of a file of `size` bytes, in the order of their names; the error says what is
/// wrong with it.
pub(crate) fn read_from(reader: &mut impl Read, size: u64) -> Result<Vec<TensorData>, String> {
    let header = read_header(reader, size)?;
    let mut tensors = Vec::new();
    for TensorSpec { name, dtype, shape } in header.specs()? {
        // The header's own checks have multiplied this without overflow.
        let length = shape.iter().product::<usize>() * dtype.size();
        let bytes = read_exactly(reader, length as u64).map_err(cut_short)?;
        tensors.push(TensorData {
            name,
            dtype,
            shape,
            bytes,
        });
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}

fn read_exactly(reader: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let wanted = usize::try_from(length).map_err(io::Error::other)?;
    bytes.try_reserve_exact(wanted).map_err(io::Error::other)?;
    reader.take(length).read_to_end(&mut bytes)?;
    if bytes.len() != wanted {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}
