//! Plain safetensors files, such as weights made by timm: read with their hash, looked at, written whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::fit_report::Note;
use crate::folder;
use crate::guess::architecture;
use crate::hashing::Hashing;
use crate::matching::{Fit, Part, fit};
use crate::tensor_file::{TensorFile, read_from, read_header};
use crate::{Error, TensorData, TensorSpec};

/// The tensors of a file, and what else is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightsFile {
    pub path: PathBuf,
    /// Of the whole file, in lower-case hexadecimal.
    pub sha256: String,
    /// In the order of their names.
    pub tensors: Vec<TensorData>,
}

/// What of a file must fit a model, and what may be wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FitOptions {
    pub part: Part,
    /// Whether a missing, unexpected or mismatched tensor is an error; else what fits is taken and the rest is in the
    /// report.
    pub strict: bool,
    /// Whether NaN and infinite values are let through.
    pub allow_non_finite: bool,
}

impl WeightsFile {
    /// The places of this file's tensors in a model. An error where they do not fit as `options` ask, where none fits at
    /// all, or where a value is not finite.
    pub fn fit(&self, expected: &[TensorSpec], options: &FitOptions) -> Result<Fit, Error> {
        let found: Vec<TensorSpec> = self.tensors.iter().map(TensorData::spec).collect();
        let mut fit = fit(expected, &found, options.part);
        if fit.assignments.is_empty() || (options.strict && !fit.report.keys.is_match()) {
            return Err(Error::Misfit {
                path: self.path.clone(),
                report: Box::new(fit.report),
                architecture: architecture(&found)
                    .filter(|theirs| architecture(expected) != Some(theirs)),
            });
        }
        let used = fit.assignments.iter().map(|a| &self.tensors[a.source]);
        let spoilt: Vec<(&str, usize)> = used
            .map(|tensor| (tensor.name.as_str(), tensor.non_finite()))
            .filter(|(_, values)| *values > 0)
            .collect();
        let values = spoilt.iter().map(|(_, values)| values).sum();
        match spoilt.first() {
            Some((name, _)) if !options.allow_non_finite => Err(Error::NotFinite {
                path: self.path.clone(),
                name: (*name).to_owned(),
                values,
                tensors: spoilt.len(),
            }),
            Some(_) => {
                fit.report.notes.push(Note::NotFinite { values });
                Ok(fit)
            }
            None => Ok(fit),
        }
    }
}

/// Reads a safetensors file; tensors in the order of their names.
pub fn load_safetensors(path: &Path) -> Result<Vec<TensorData>, Error> {
    Ok(read_weights(path)?.tensors)
}

/// Reads a safetensors file and hashes it on the way.
pub fn read_weights(path: &Path) -> Result<WeightsFile, Error> {
    let (file, size) = open(path)?;
    let mut reader = BufReader::new(Hashing::new(file));
    let tensors = read_from(&mut reader, size).map_err(|reason| broken(path, reason))?;
    let (_, _, sha256) = reader.into_inner().finish();
    Ok(WeightsFile {
        path: path.to_owned(),
        sha256,
        tensors,
    })
}

/// Names, types and shapes of a safetensors file, from its header alone; in the order of their names.
pub fn safetensors_specs(path: &Path) -> Result<Vec<TensorSpec>, Error> {
    let (file, size) = open(path)?;
    let header =
        read_header(&mut BufReader::new(file), size).map_err(|reason| broken(path, reason))?;
    let mut specs = header.specs().map_err(|reason| broken(path, reason))?;
    specs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(specs)
}

/// The file's SHA-256 in lower-case hexadecimal.
pub fn file_sha256(path: &Path) -> Result<String, Error> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut reader = Hashing::new(file);
    io::copy(&mut reader, &mut io::sink()).map_err(Error::io("read", path))?;
    Ok(reader.finish().2)
}

/// Writes a safetensors file, in place of what was there, and makes it durable; returns its bytes. The old file stays
/// whole on any error. For exports: a checkpoint is written by [`crate::write`](fn@crate::write).
pub fn save_safetensors(path: &Path, tensors: &[TensorData]) -> Result<u64, Error> {
    let contents = TensorFile::new(tensors)?;
    let (folder, beside) = beside(path);
    let written = (|| {
        let mut writer = BufWriter::new(File::create(&beside)?);
        contents.write_to(&mut writer)?;
        writer.flush()?;
        writer.get_ref().sync_all()?;
        fs::rename(&beside, path)?;
        folder::sync(&folder)
    })();
    written.map_err(|source| {
        // Nothing is there to be removed where the file could not be created.
        let _ = fs::remove_file(&beside);
        Error::io("write", path)(source)
    })?;
    Ok(contents.bytes())
}

/// The folder of a file, and the name in it under which a new one is filled.
fn beside(path: &Path) -> (PathBuf, PathBuf) {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut name = OsString::from(".tmp-");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!("-{}", std::process::id()));
    (folder.to_owned(), folder.join(name))
}

/// Opens a file that may be a safetensors file; what is plainly another kind of file is told as that.
fn open(path: &Path) -> Result<(File, u64), Error> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let data = file
        .metadata()
        .map_err(Error::io("read the size of", path))?;
    if !data.is_file() {
        return Err(broken(path, "it is not a file".into()));
    }
    let mut start = Vec::new();
    (&mut file)
        .take(START)
        .read_to_end(&mut start)
        .and_then(|_| file.rewind())
        .map_err(Error::io("read", path))?;
    match kind(&start) {
        Kind::Possible => Ok((file, data.len())),
        Kind::PyTorch => Err(Error::PyTorchFile {
            path: path.to_owned(),
        }),
        Kind::Other(reason) => Err(broken(path, reason.to_owned())),
    }
}

fn broken(path: &Path, reason: String) -> Error {
    Error::TensorFile {
        path: path.to_owned(),
        reason,
    }
}

/// Enough to tell the kinds of files apart.
const START: u64 = 32;

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Possible,
    PyTorch,
    Other(&'static str),
}

/// What a file is by its first bytes, whatever its name says.
fn kind(start: &[u8]) -> Kind {
    // A safetensors header is JSON after eight bytes of length.
    if start.get(8) == Some(&b'{') {
        return Kind::Possible;
    }
    match start {
        [] => Kind::Other("it is empty"),
        // A zip archive is what torch.save writes; before PyTorch 1.6 it was a pickle (protocol 2 and later).
        [b'P', b'K', 3, 4, ..] | [0x80, 2..=5, ..] => Kind::PyTorch,
        [b'<', ..] => Kind::Other("it is a web page: its download went wrong"),
        first if first.starts_with(b"version https://git-lfs") => Kind::Other(
            "it is a Git LFS pointer and not the file itself: `git lfs pull` fetches it",
        ),
        _ => Kind::Possible,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_first_bytes() {
        let header = *b"\x40\0\0\0\0\0\0\0{\"a\":";
        assert_eq!(kind(&header), Kind::Possible);
        // A header of 0x0280 bytes, or of a length that begins as a zip archive does.
        assert_eq!(kind(b"\x80\x02\0\0\0\0\0\0{}"), Kind::Possible);
        assert_eq!(kind(b"PK\x03\x04\0\0\0\0{}"), Kind::Possible);
        // >>> torch.save({}, "a.pth"); open("a.pth", "rb").read(9)
        assert_eq!(kind(b"PK\x03\x04\0\0\x08\x08\0"), Kind::PyTorch);
        // >>> torch.save({}, "a.pth", _use_new_zipfile_serialization=False)
        assert_eq!(kind(b"\x80\x02\x8a\nl\xfc\x9cF\xf9"), Kind::PyTorch);
        assert!(matches!(kind(b""), Kind::Other("it is empty")));
        for text in ["<!DOCTYPE html>", "version https://git-lfs.github.com/"] {
            assert!(matches!(kind(text.as_bytes()), Kind::Other(_)), "{text}");
        }
    }

    #[test]
    fn a_new_file_is_filled_beside_its_place() {
        let (folder, name) = beside(Path::new("a.safetensors"));
        assert_eq!(folder, Path::new("."));
        assert!(name.starts_with("./") && name.to_str().unwrap().contains(".tmp-a.safetensors-"));
        assert_eq!(beside(Path::new("/x/a")).0, Path::new("/x"));
    }
}
