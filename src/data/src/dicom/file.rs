//! A DICOM file on disk: its file-meta group, and its data set, of which only the beginning is held in memory.
//!
//! Frames are read from where they stand, so that a multi-frame file of any size needs the memory of one frame.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flate2::read::DeflateDecoder;

use super::attributes::{self, COPY_AGAIN, EXPORT_AGAIN};
use super::elements::{Damage, Elements};
use super::syntax::Syntax;
use crate::error::{DataError, Result};

/// What precedes the pixels may have this many bytes, and a deflated data set when it is inflated.
const LARGEST_IN_MEMORY: usize = 256 << 20;

/// An open file, read up to its pixels.
pub(crate) struct DicomFile {
    pub(crate) path: PathBuf,
    pub(crate) transfer_syntax: String,
    pub(crate) syntax: Syntax,
    file: File,
    /// The beginning of the file; of a deflated one the whole inflated data set.
    head: Vec<u8>,
    /// Where the data set begins in `head`.
    start: usize,
    /// Bytes of the data set, whether in memory or not.
    length: u64,
}

impl DicomFile {
    /// Opens the file at `path` and reads `at_first` bytes of it, or as many more as the pixels are away.
    pub(crate) fn open(path: &Path, at_first: usize) -> Result<Self> {
        let failed = |error| DataError::io("read", path)(error);
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        // In one call: `read_to_end` would make dozens.
        let mut head = vec![0; at_first.min(usize::try_from(size).unwrap_or(at_first))];
        file.read_exact_at(&mut head, 0).map_err(failed)?;
        let (transfer_syntax, start) = file_meta(path, &head)?;
        let syntax = Syntax::of(&transfer_syntax);
        let mut opened = Self {
            path: path.to_path_buf(),
            transfer_syntax,
            syntax,
            file,
            start,
            length: size - start as u64,
            head,
        };
        if syntax.deflated {
            opened.inflate()?;
        }
        while !opened.is_whole()
            && !matches!(
                attributes::find_pixel_data(&opened),
                Ok(Some(_)) | Err(Damage::Malformed { .. })
            )
        {
            opened.read_on()?;
        }
        Ok(opened)
    }

    /// The beginning of the data set.
    pub(crate) fn head(&self) -> &[u8] {
        self.head.get(self.start..).unwrap_or_default()
    }

    fn is_whole(&self) -> bool {
        self.head().len() as u64 >= self.length
    }

    /// Reads eight times as much of the file as has been read.
    fn read_on(&mut self) -> Result<()> {
        let read = self.head.len();
        if read >= LARGEST_IN_MEMORY {
            let problem = format!("has more than {} MiB before its pixels", read >> 20);
            return Err(attributes::fault(&self.path, 0, problem, EXPORT_AGAIN));
        }
        let more = (read * 7).clamp(4 << 10, LARGEST_IN_MEMORY - read);
        self.head.reserve_exact(more.min(self.length as usize));
        let path = self.path.clone();
        self.file
            .seek(SeekFrom::Start(read as u64))
            .and_then(|_| {
                (&mut self.file)
                    .take(more as u64)
                    .read_to_end(&mut self.head)
            })
            .map_err(DataError::io("read", path))?;
        if self.head.len() == read {
            // The file has shrunk since it was measured.
            self.length = self.head().len() as u64;
        }
        Ok(())
    }

    fn inflate(&mut self) -> Result<()> {
        let path = self.path.as_path();
        let mut compressed = Vec::new();
        self.file
            .seek(SeekFrom::Start(self.start as u64))
            .and_then(|_| {
                (&mut self.file)
                    .take(LARGEST_IN_MEMORY as u64)
                    .read_to_end(&mut compressed)
            })
            .map_err(DataError::io("read", path))?;
        let mut inflated = Vec::new();
        DeflateDecoder::new(compressed.as_slice())
            .take(LARGEST_IN_MEMORY as u64)
            .read_to_end(&mut inflated)
            .map_err(|error| {
                attributes::fault(path, 0, format!("cannot be inflated: {error}"), COPY_AGAIN)
            })?;
        if inflated.len() >= LARGEST_IN_MEMORY {
            let problem = format!("inflates to more than {} MiB", LARGEST_IN_MEMORY >> 20);
            return Err(attributes::fault(path, 0, problem, EXPORT_AGAIN));
        }
        self.length = inflated.len() as u64;
        self.head = inflated;
        self.start = 0;
        Ok(())
    }

    /// Checks that the value of PixelData, `length` bytes from `offset` of the data set on, is in the file.
    pub(crate) fn check_held(&self, offset: u64, length: usize) -> Result<()> {
        if offset.saturating_add(length as u64) <= self.length {
            return Ok(());
        }
        let damage = Damage::Truncated {
            tag: attributes::PIXEL_DATA,
            held: self.length.saturating_sub(offset) as usize,
            needed: length,
        };
        Err(attributes::damaged(&self.path, damage))
    }

    /// `length` bytes of the value of PixelData, from `offset` of the data set on.
    pub(crate) fn pixel_bytes(&self, offset: u64, length: usize) -> Result<Cow<'_, [u8]>> {
        self.check_held(offset, length)?;
        let end = offset + length as u64;
        if let Some(held) = self.head().get(offset as usize..end as usize) {
            return Ok(Cow::Borrowed(held));
        }
        let mut bytes = vec![0; length];
        self.file
            .read_exact_at(&mut bytes, self.start as u64 + offset)
            .map_err(DataError::io("read", &self.path))?;
        Ok(Cow::Owned(bytes))
    }
}

/// TransferSyntaxUID, and where the data set begins: behind the preamble, where there is one, and the file-meta group,
/// which is always explicit little endian.
fn file_meta(path: &Path, head: &[u8]) -> Result<(String, usize)> {
    const NOT_DICOM: &str = "put only DICOM files with a file-meta group under the name <n>.dcm";
    let preamble = match head.get(128..132) {
        Some(b"DICM") => 132,
        _ => 0,
    };
    let damaged = |damage| attributes::damaged(path, damage);
    let mut meta = Elements::new(
        head.get(preamble..).unwrap_or_default(),
        super::elements::Encoding::EXPLICIT,
    );
    let mut transfer_syntax = None;
    while meta.peek_tag().is_some_and(|tag| tag >> 16 == 0x0002) {
        let Some(header) = meta.header().map_err(damaged)? else {
            break;
        };
        let Some(length) = header.length else { break };
        let value = meta.take(header.tag, length).map_err(damaged)?;
        if header.tag == attributes::TRANSFER_SYNTAX_UID {
            transfer_syntax = Some(attributes::text(value).unwrap_or_default().to_owned());
        }
    }
    transfer_syntax
        .map(|uid| (uid, preamble + meta.position()))
        .ok_or_else(|| {
            attributes::fault(
                path,
                attributes::TRANSFER_SYNTAX_UID,
                "is missing",
                NOT_DICOM,
            )
        })
}
