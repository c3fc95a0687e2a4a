//! Pictures that a rank has put into the run directory.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path};

/// A larger file is no picture for a browser.
const LARGEST: u64 = 8 << 20;
/// The signature, then length and name of the first chunk, which holds the size.
const HEAD: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";

/// A PNG file.
pub(super) struct Png {
    pub bytes: Vec<u8>,
    pub width: u32,
    pub height: u32,
}

/// Reads the picture at `path`, a path in the run directory.
///
/// # Errors
/// Where it cannot be read, leads out of the run directory, is no regular file, too large, or no PNG.
pub(super) fn read(run_dir: &Path, path: &str) -> io::Result<Png> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut parts = Path::new(path).components();
    if path.is_empty() || !parts.all(|part| matches!(part, Component::Normal(_))) {
        return Err(wrong("its path leads out of the run directory"));
    }
    let mut bytes = Vec::new();
    // Whatever lies there: not even a pipe without a writer holds the reader up.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(run_dir.join(path))?;
    if !file.metadata()?.is_file() {
        return Err(wrong("it is no regular file"));
    }
    if file.take(LARGEST + 1).read_to_end(&mut bytes)? as u64 > LARGEST {
        return Err(wrong("it has more than 8 MiB"));
    }
    let number = |at: usize| -> Option<u32> {
        let bytes = bytes.get(at..at + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    };
    let size = number(HEAD.len()).zip(number(HEAD.len() + 4));
    match size.filter(|_| bytes.starts_with(HEAD)) {
        Some((width, height)) => Ok(Png {
            bytes,
            width,
            height,
        }),
        None => Err(wrong("it is no PNG")),
    }
}
