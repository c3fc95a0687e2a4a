//! An entry's file: one study as a safetensors file that any tool opens, every slice with a checksum of its own.
//!
//! ```text
//! 0      8 bytes of length and a JSON header, filled up to 4,096 bytes
//! 4096   places          U64 (n, 2)         start and end of each slice's chunk; only where compressed
//!        checksums       U32 (n)            CRC-32C of each slice's bytes as they lie in the file
//!        slice_numbers   U32 (n)            the `<n>` of each slice's `<n>.dcm`
//!        head_checksum   U32 (1)            CRC-32C of all bytes before it
//!        pixels          U8 (n, side, side) or I16 (n, rows, columns); or, where compressed,
//!        chunks          U8 (bytes)         one LZ4 block a slice; a slice that does not shrink is stored as it is
//! ```
//!
//! Slices are read by position, not through a mapping: docs/decisions/0020-cache-on-disk.md. What is read is right or
//! refused: the head is checked when an entry is opened, a slice when it is read.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::key::{FORMAT, Key, Kind};

/// Bytes of the header with its length.
const HEADER: usize = 4096;
/// No image of a study is larger: it bounds what a header can ask for.
const LARGEST_SIDE: usize = 1 << 16;
/// An entry counts as used again after so many seconds of reading.
const TOUCH_AFTER: u64 = 60;

/// Why an entry can not be read.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It does not hold what it should.
    Damaged(String),
    /// The operating system refused; the entry may be sound.
    Io(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        /// The disk's own word for damage.
        const EIO: i32 = 5;
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Fault::Damaged("it is cut short".into()),
            _ if error.raw_os_error() == Some(EIO) => Fault::Damaged(error.to_string()),
            _ => Fault::Io(error),
        }
    }
}

fn damaged<T>(what: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Damaged(what.into()))
}

/// What an entry holds, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub kind: Kind,
    pub slices: usize,
    pub rows: usize,
    pub cols: usize,
    pub compressed: bool,
}

impl Layout {
    /// Bytes of one slice.
    pub fn slice_bytes(&self) -> usize {
        self.rows * self.cols * self.kind.bytes_per_pixel()
    }

    /// Bytes before the pixels.
    fn head_bytes(&self) -> usize {
        let each = if self.compressed { 24 } else { 8 };
        HEADER + self.slices * each + 4
    }

    /// The most that the file can take.
    pub fn largest_file(&self) -> u64 {
        (self.head_bytes() + self.slices * self.slice_bytes()) as u64
    }

    /// The header for pixels that take `stored` bytes.
    fn header(&self, key: &Key, stored: usize) -> io::Result<Vec<u8>> {
        let n = self.slices;
        let mut tensors: Vec<(&str, Dtype, Vec<usize>, usize)> = Vec::new();
        if self.compressed {
            tensors.push(("places", Dtype::U64, vec![n, 2], 16 * n));
        }
        tensors.push(("checksums", Dtype::U32, vec![n], 4 * n));
        tensors.push(("slice_numbers", Dtype::U32, vec![n], 4 * n));
        tensors.push(("head_checksum", Dtype::U32, vec![1], 4));
        tensors.push(match (self.compressed, self.kind) {
            (true, _) => ("chunks", Dtype::U8, vec![stored], stored),
            (false, Kind::Stack) => ("pixels", Dtype::U8, vec![n, self.rows, self.cols], stored),
            (false, Kind::Volume) => ("pixels", Dtype::I16, vec![n, self.rows, self.cols], stored),
        });
        let mut start = 0;
        let tensors = tensors.into_iter().map(|(name, dtype, shape, bytes)| {
            let data_offsets = (start, start + bytes);
            start += bytes;
            let info = TensorInfo {
                dtype,
                shape,
                data_offsets,
            };
            (name.to_owned(), info)
        });
        let about = [
            ("spinectl_cache", FORMAT.to_string()),
            ("key", key.name()),
            ("kind", self.kind.name().to_owned()),
            ("slices", n.to_string()),
            ("rows", self.rows.to_string()),
            ("columns", self.cols.to_string()),
            ("compression", compression(self.compressed).to_owned()),
        ];
        let about = about.map(|(name, value)| (name.to_owned(), value)).into();
        let metadata = Metadata::new(Some(about), tensors.collect()).map_err(io::Error::other)?;
        let json = serde_json::to_vec(&metadata)?;
        let mut header = ((HEADER - 8) as u64).to_le_bytes().to_vec();
        header.extend(json);
        if header.len() > HEADER {
            return Err(io::Error::other("the header is too long"));
        }
        header.resize(HEADER, b' ');
        Ok(header)
    }

    /// What a header says, which may be anything.
    fn parse(header: &[u8], key: &Key) -> Result<Self, String> {
        let length = (HEADER - 8) as u64;
        let json = header
            .strip_prefix(length.to_le_bytes().as_slice())
            .ok_or("it is no entry of this cache")?;
        let metadata: Metadata =
            serde_json::from_slice(json).map_err(|_| "its header is not that of safetensors")?;
        let about = metadata.metadata().as_ref();
        let about: &HashMap<String, String> = about.ok_or("its header says nothing of it")?;
        let said = |name: &str| about.get(name).map(String::as_str).unwrap_or_default();
        if said("key") != key.name() || said("kind") != key.kind.name() {
            return Err("it is the entry of another key".into());
        }
        let number = |name: &str, most: usize| {
            let value = said(name).parse::<usize>();
            let value = value.ok().filter(|value| *value <= most);
            value.ok_or_else(|| format!("its header says no `{name}`"))
        };
        Ok(Layout {
            kind: key.kind,
            slices: number("slices", 1 << 24)?,
            rows: number("rows", LARGEST_SIDE)?,
            cols: number("columns", LARGEST_SIDE)?,
            compressed: match said("compression") {
                text if text == compression(true) => true,
                text if text == compression(false) => false,
                _ => return Err("its header names no compression that is known".into()),
            },
        })
    }
}

fn compression(compressed: bool) -> &'static str {
    if compressed { "lz4" } else { "none" }
}

/// Fills a new entry, slice by slice in any order.
pub(super) struct EntryWriter {
    file: File,
    layout: Layout,
    packed: Vec<u8>,
    /// Of the chunks so far.
    stored: u64,
    /// By slice: place and checksum, once it is there.
    slices: Vec<Option<([u64; 2], u32)>>,
}

impl EntryWriter {
    pub fn new(file: File, layout: Layout) -> Self {
        EntryWriter {
            file,
            layout,
            packed: Vec::new(),
            stored: 0,
            slices: vec![None; layout.slices],
        }
    }

    /// One slice's bytes.
    pub fn slice(&mut self, index: usize, bytes: &[u8]) -> io::Result<()> {
        let slice_bytes = self.layout.slice_bytes();
        let Some(slice @ None) = self.slices.get_mut(index) else {
            return Err(io::Error::other("a slice came twice, or past the last one"));
        };
        if bytes.len() != slice_bytes {
            return Err(io::Error::other("a slice has another size than its study"));
        }
        let mut stored = bytes;
        let mut start = (index * slice_bytes) as u64;
        if self.layout.compressed {
            let room = lz4_flex::block::get_maximum_output_size(bytes.len());
            self.packed.resize(room, 0);
            let length = lz4_flex::block::compress_into(bytes, &mut self.packed)
                .map_err(io::Error::other)?;
            if length < bytes.len() {
                stored = &self.packed[..length];
            }
            start = self.stored;
        }
        let at = self.layout.head_bytes() as u64 + start;
        self.file.write_all_at(stored, at)?;
        self.stored += stored.len() as u64;
        let place = [start, start + stored.len() as u64];
        *slice = Some((place, crc32c::crc32c(stored)));
        Ok(())
    }

    /// Completes the file and makes it durable.
    pub fn finish(self, key: &Key, slice_numbers: &[u32]) -> io::Result<()> {
        let slices: Option<Vec<_>> = self.slices.into_iter().collect();
        let slices = slices.filter(|slices| slices.len() == slice_numbers.len());
        let slices = slices.ok_or_else(|| io::Error::other("a slice is missing"))?;
        let mut head = self.layout.header(key, self.stored as usize)?;
        if self.layout.compressed {
            let places = slices.iter().flat_map(|(place, _)| place);
            head.extend(places.flat_map(|at| at.to_le_bytes()));
        }
        let checksums = slices.iter().map(|(_, checksum)| checksum);
        let words = checksums.chain(slice_numbers);
        head.extend(words.flat_map(|word| word.to_le_bytes()));
        head.extend(crc32c::crc32c(&head).to_le_bytes());
        self.file.write_all_at(&head, 0)?;
        self.file.set_len(head.len() as u64 + self.stored)?;
        self.file.sync_data()
    }
}

/// An entry whose head was found sound. It holds no file open: there may be thousands.
#[derive(Debug)]
pub(crate) struct Entry {
    path: PathBuf,
    pub layout: Layout,
    pub slice_numbers: Vec<u32>,
    pub bytes: u64,
    checksums: Vec<u32>,
    /// Start and end of each slice's bytes, from the first pixel on.
    places: Vec<[u64; 2]>,
    /// Seconds since 1970 at which the file's time of use was last set.
    touched: AtomicU64,
}

impl Entry {
    /// The entry of `key` at `path`, which counts as used now; none where no file is.
    pub(super) fn open(path: &Path, key: &Key) -> Result<Option<Self>, Fault> {
        let file = match open(path) {
            Err(Fault::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let bytes = file.metadata()?.len();
        if bytes < HEADER as u64 {
            return damaged("it is cut short");
        }
        let mut head = vec![0; HEADER];
        file.read_exact_at(&mut head, 0)?;
        let layout = Layout::parse(&head, key).map_err(Fault::Damaged)?;
        // Nothing is allocated for what a header claims before it is known to lie within the file.
        let head_bytes = layout.head_bytes();
        if head_bytes as u64 > bytes {
            return damaged("it is cut short");
        }
        head.resize(head_bytes, 0);
        file.read_exact_at(&mut head[HEADER..], HEADER as u64)?;
        let (head, checksum) = head.split_at(head_bytes - 4);
        if crc32c::crc32c(head).to_le_bytes() != checksum {
            return damaged("the checksum of its head is wrong");
        }

        let mut tables = &head[HEADER..];
        let slice_bytes = layout.slice_bytes() as u64;
        let places: Vec<[u64; 2]> = if layout.compressed {
            let (first, rest) = tables.split_at(16 * layout.slices);
            tables = rest;
            let pairs = first.chunks_exact(16).map(|b| b.split_at(8));
            pairs
                .map(|(a, b)| [a, b].map(|b| u64::from_le_bytes(array(b))))
                .collect()
        } else {
            let n = layout.slices as u64;
            (0..n)
                .map(|i| [i, i + 1].map(|i| i * slice_bytes))
                .collect()
        };
        let mut words = tables.chunks_exact(4).map(|b| u32::from_le_bytes(array(b)));
        let checksums = words.by_ref().take(layout.slices).collect();
        let slice_numbers = words.collect();
        let stored = bytes - head_bytes as u64;
        let fits =
            |[start, end]: &[u64; 2]| start <= end && end - start <= slice_bytes && *end <= stored;
        let used: u64 = match places.iter().all(fits) {
            true => places.iter().map(|[start, end]| end - start).sum(),
            false => return damaged("its chunks do not lie within it"),
        };
        if used != stored {
            return damaged("its size is not what its header says");
        }
        Ok(Some(Entry {
            path: path.to_owned(),
            layout,
            slice_numbers,
            bytes,
            checksums,
            places,
            touched: AtomicU64::new(0),
        }))
    }

    /// For reading some slices. The file is opened by its name again; it may have changed or gone.
    pub fn reader(&self) -> Result<EntryReader<'_>, Fault> {
        let reader = self.unnoticed_reader()?;
        self.touch(&reader.file);
        Ok(reader)
    }

    /// A reader whose reading does not count as use.
    fn unnoticed_reader(&self) -> Result<EntryReader<'_>, Fault> {
        Ok(EntryReader {
            entry: self,
            file: open(&self.path)?,
            packed: Vec::new(),
        })
    }

    /// Reads everything once. That is no use: the order of use stays.
    pub fn check(&self) -> Result<(), Fault> {
        let mut reader = self.unnoticed_reader()?;
        let mut slice = vec![0; self.layout.slice_bytes()];
        (0..self.layout.slices).try_for_each(|index| reader.slice(index, &mut slice))
    }

    /// Bytes that this takes in memory.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.layout.slices * 24
    }

    /// Tells all who share the cache that the entry is in use.
    fn touch(&self, file: &File) {
        let now = SystemTime::now();
        let seconds = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |t| t.as_secs());
        if seconds.abs_diff(self.touched.load(Ordering::Relaxed)) >= TOUCH_AFTER {
            self.touched.store(seconds, Ordering::Relaxed);
            // A cache that may only be read works without.
            let _ = file.set_modified(now);
        }
    }
}

/// An open entry.
pub(crate) struct EntryReader<'a> {
    entry: &'a Entry,
    file: File,
    packed: Vec<u8>,
}

impl EntryReader<'_> {
    /// The bytes of one slice, checked.
    pub fn slice(&mut self, index: usize, out: &mut [u8]) -> Result<(), Fault> {
        let Entry {
            layout,
            places,
            checksums,
            ..
        } = self.entry;
        let (Some(&[start, end]), Some(&checksum)) = (places.get(index), checksums.get(index))
        else {
            return damaged("it has fewer slices than its study");
        };
        if out.len() != layout.slice_bytes() {
            return damaged("its slices have another size");
        }
        let at = layout.head_bytes() as u64 + start;
        let length = (end - start) as usize;
        if length == out.len() {
            self.file.read_exact_at(out, at)?;
            return checked(out, checksum, index);
        }
        self.packed.resize(length, 0);
        self.file.read_exact_at(&mut self.packed, at)?;
        checked(&self.packed, checksum, index)?;
        match lz4_flex::block::decompress_into(&self.packed, out) {
            Ok(length) if length == out.len() => Ok(()),
            _ => damaged(format!("slice {index} does not decompress")),
        }
    }
}

fn checked(bytes: &[u8], checksum: u32, index: usize) -> Result<(), Fault> {
    if crc32c::crc32c(bytes) == checksum {
        return Ok(());
    }
    damaged(format!("the checksum of slice {index} is wrong"))
}

/// Opens a plain file only: opening a pipe of that name would wait for ever.
fn open(path: &Path) -> Result<File, Fault> {
    if !fs::symlink_metadata(path)?.is_file() {
        return damaged("it is not a file");
    }
    Ok(File::open(path)?)
}

/// `chunks_exact` yields slices of just this length.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}
