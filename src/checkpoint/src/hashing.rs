//! SHA-256 and length of what passes through a reader or a writer, so that no byte is touched
//! twice.

use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

/// Hashed and moved at once: small enough to stay in a core's cache between the two.
const CHUNK: usize = 1 << 18;

pub(crate) struct Hashing<T> {
    inner: T,
    sha256: Sha256,
    bytes: u64,
}

impl<T> Hashing<T> {
    pub(crate) fn new(inner: T) -> Self {
        Hashing {
            inner,
            sha256: Sha256::new(),
            bytes: 0,
        }
    }

    /// The reader or writer, the bytes that passed, and their SHA-256 in hexadecimal.
    pub(crate) fn finish(self) -> (T, u64, String) {
        (self.inner, self.bytes, hex(&self.sha256.finalize()))
    }

    fn passed(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let (chunk, _) = buffer.split_at(buffer.len().min(CHUNK));
        let written = self.inner.write(chunk)?;
        self.passed(chunk.get(..written).unwrap_or(chunk));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (chunk, _) = buffer.split_at_mut(buffer.len().min(CHUNK));
        let read = self.inner.read(chunk)?;
        self.passed(chunk.get(..read).unwrap_or(chunk));
        Ok(read)
    }
}

/// SHA-256 of `bytes` in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_what_passes_both_ways() {
        // FIPS 180-4, the example "abc".
        const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let mut writer = Hashing::new(Vec::new());
        writer.write_all(b"abc").unwrap();
        assert_eq!(writer.finish(), (b"abc".to_vec(), 3, ABC.to_owned()));

        let mut reader = Hashing::new(&b"abc"[..]);
        io::copy(&mut reader, &mut io::sink()).unwrap();
        assert_eq!(reader.finish().2, ABC);
        assert_eq!(sha256(b"abc"), ABC);
    }

    #[test]
    fn a_buffer_of_many_chunks_is_hashed_whole() {
        let data: Vec<u8> = (0..3 * CHUNK + 17).map(|i| (i % 251) as u8).collect();
        let mut writer = Hashing::new(Vec::new());
        writer.write_all(&data).unwrap();
        let (written, bytes, hash) = writer.finish();
        assert_eq!((bytes, hash), (data.len() as u64, sha256(&data)));
        assert_eq!(written, data);
    }
}
