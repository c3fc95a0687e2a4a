//! What entries are named by: hashes of a study's contents and of the parameters, never a text from a file.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use crate::error::{DataError, Result};
use crate::fingerprint::hex;
use crate::image::WindowMode;
use crate::stack::Appearance;

/// To be raised when entries come to look otherwise, or equal files to give other pixels. A folder of another format is
/// refused as a cache: name another one, or drop it by the version that made it.
pub(super) const FORMAT: u32 = 1;

/// Files that changed so lately may change again without a new time stamp: clocks of file systems tick up to this
/// coarsely (FAT; others are finer).
const CLOCK_TICK: Duration = Duration::from_secs(2);

/// What an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A study's HU as decoded, 16 bits.
    Volume,
    /// Slices as a network takes them, 8 bits.
    Stack,
}

impl Kind {
    /// As it stands in the names of entries.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Volume => "volume",
            Kind::Stack => "stack",
        }
    }

    pub(super) fn bytes_per_pixel(self) -> usize {
        match self {
            Kind::Volume => 2,
            Kind::Stack => 1,
        }
    }
}

/// The hash of all that a study's pixels come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content(String);

/// The name of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub kind: Kind,
    hash: String,
}

impl Key {
    /// `slice_numbers`: they are a part of the entry, and come from the files' names.
    pub fn volume(content: &Content, slice_numbers: &[u32]) -> Self {
        Self::new(Kind::Volume, content, slice_numbers, &[])
    }

    pub fn stack(
        content: &Content,
        slice_numbers: &[u32],
        crop: Option<[f64; 4]>,
        appearance: &Appearance,
    ) -> Self {
        let window = appearance.window;
        let mut parameters = Vec::new();
        parameters.extend((appearance.side as u64).to_le_bytes());
        parameters.extend(window.level.to_le_bytes());
        parameters.extend(window.width.to_le_bytes());
        parameters.push(match window.mode {
            WindowMode::PerSlice => 0,
            WindowMode::Fixed => 1,
        });
        for side in crop.into_iter().flatten() {
            parameters.extend(side.to_le_bytes());
        }
        Self::new(Kind::Stack, content, slice_numbers, &parameters)
    }

    fn new(kind: Kind, content: &Content, slice_numbers: &[u32], parameters: &[u8]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(FORMAT.to_le_bytes());
        hasher.update(kind.name());
        hasher.update(&content.0);
        hasher.update((slice_numbers.len() as u64).to_le_bytes());
        for number in slice_numbers {
            hasher.update(number.to_le_bytes());
        }
        hasher.update(parameters);
        Key {
            kind,
            hash: hex(&hasher.finalize()),
        }
    }

    /// `<kind>-<64 hexadecimal digits>`
    pub fn name(&self) -> String {
        format!("{}-{}", self.kind.name(), self.hash)
    }

    /// The key of this name, if it is one.
    pub fn parse(name: &str) -> Option<Self> {
        let (kind, hash) = name.split_once('-')?;
        let kinds = [Kind::Volume, Kind::Stack];
        let kind = kinds.into_iter().find(|known| known.name() == kind)?;
        is_hash(hash).then(|| Key {
            kind,
            hash: hash.to_owned(),
        })
    }
}

impl Content {
    /// Reads and hashes `files`, in this order.
    pub fn of(files: &[PathBuf]) -> Result<Self> {
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 17];
        for path in files {
            let mut of_file = Sha256::new();
            let mut file = File::open(path).map_err(DataError::io("read", path))?;
            loop {
                match file.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => of_file.update(&buffer[..n]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(DataError::io("read", path)(error)),
                }
            }
            hasher.update(of_file.finalize());
        }
        Ok(Content(hex(&hasher.finalize())))
    }

    /// A line that shows whether it is whole.
    pub fn to_line(&self) -> String {
        format!("{} {:08x}\n", self.0, crc32c::crc32c(self.0.as_bytes()))
    }

    pub fn from_line(line: &str) -> Option<Self> {
        let content = Content(line.get(..64)?.to_owned());
        (is_hash(&content.0) && content.to_line() == line).then_some(content)
    }
}

/// Tells without reading them whether files are those that were hashed once.
#[derive(Clone, Debug)]
pub(super) struct Fingerprint {
    hash: String,
    /// The last change of a file's contents.
    newest: SystemTime,
    taken: SystemTime,
}

impl Fingerprint {
    /// Of the files' paths, sizes, and times of the last change of contents and of attributes. The second can not be
    /// set back, as copying tools do with the first.
    pub fn of(files: &[PathBuf]) -> Result<Self> {
        let taken = SystemTime::now();
        let mut hasher = Sha256::new();
        let mut newest = SystemTime::UNIX_EPOCH;
        let mut folder = (PathBuf::new(), PathBuf::new());
        for path in files {
            let parent = path.parent().unwrap_or(path);
            if folder.0 != parent {
                let canonical = fs::canonicalize(parent).map_err(DataError::io("read", parent))?;
                folder = (parent.to_owned(), canonical);
            }
            let status = fs::metadata(path).map_err(DataError::io("read", path))?;
            update_with(&mut hasher, folder.1.as_os_str().as_bytes());
            update_with(&mut hasher, path.file_name().unwrap_or_default().as_bytes());
            hasher.update(status.len().to_le_bytes());
            for part in [
                status.mtime(),
                status.mtime_nsec(),
                status.ctime(),
                status.ctime_nsec(),
            ] {
                hasher.update(part.to_le_bytes());
            }
            newest = newest.max(status.modified().map_err(DataError::io("read", path))?);
        }
        Ok(Fingerprint {
            hash: hex(&hasher.finalize()),
            newest,
            taken,
        })
    }

    /// Whether a change after this was taken is sure to show.
    pub fn is_settled(&self) -> bool {
        let age = self.taken.duration_since(self.newest);
        age.is_ok_and(|age| age > CLOCK_TICK)
    }

    pub fn is_same(&self, other: &Self) -> bool {
        self.hash == other.hash
    }

    /// `study-<64 hexadecimal digits>`
    pub fn name(&self) -> String {
        format!("{STUDY}{}", self.hash)
    }

    /// Whether [`Fingerprint::name`] gives such names.
    pub fn is_name(name: &str) -> bool {
        name.strip_prefix(STUDY).is_some_and(is_hash)
    }
}

const STUDY: &str = "study-";

/// Each part with its length, so that no two sequences of parts hash alike.
fn update_with(hasher: &mut Sha256, part: &[u8]) {
    hasher.update((part.len() as u64).to_le_bytes());
    hasher.update(part);
}

fn is_hash(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_hashes_are_names() {
        let content = Content("0".repeat(64));
        let key = Key::volume(&content, &[1, 2]);
        assert_eq!(Key::parse(&key.name()), Some(key.clone()));
        for name in [
            "volume-",
            "other-0000000000000000000000000000000000000000000000000000000000000000",
            "../volume",
            &key.name().to_uppercase(),
            &format!("{}.x", key.name()),
        ] {
            assert_eq!(Key::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_damaged_line_is_no_content() {
        let content = Content("a".repeat(64));
        let line = content.to_line();
        assert_eq!(Content::from_line(&line), Some(content));
        assert_eq!(Content::from_line(&line.replacen('a', "b", 1)), None);
        assert_eq!(Content::from_line(&line[..70]), None);
        assert_eq!(Content::from_line(""), None);
    }
}
