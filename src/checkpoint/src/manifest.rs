//! `manifest.json`: what a checkpoint consists of, and whether a folder still is that.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::folder::parse_step;
use crate::hashing::{Hashing, sha256};
use crate::{Error, Fault};

pub(crate) const MODEL: &str = "model.safetensors";
pub(crate) const OPTIMIZER: &str = "optimizer.safetensors";
pub(crate) const TRAINER: &str = "trainer.json";
pub(crate) const MANIFEST: &str = "manifest.json";
/// The files of a checkpoint, besides the manifest. Names are never taken from a manifest.
const FILES: [&str; 3] = [MODEL, OPTIMIZER, TRAINER];

pub(crate) const FORMAT_VERSION: u32 = 1;
/// Far above what the few lines of a manifest take.
const MAX_MANIFEST: u64 = 1 << 20;

/// The contents of `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format_version: u32,
    pub step: u64,
    pub job: String,
    pub plan_hash: String,
    pub world_size: usize,
    /// By file name.
    pub files: BTreeMap<String, FileRecord>,
    /// SHA-256 of this manifest as compact JSON with this field empty: a manifest can rot like any
    /// other file.
    pub manifest_sha256: String,
}

/// What a file was when it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    pub bytes: u64,
    /// In lower-case hexadecimal.
    pub sha256: String,
}

impl Manifest {
    /// Bytes of the checkpoint's files, without the manifest.
    pub fn bytes(&self) -> u64 {
        self.files
            .values()
            .fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    /// The manifest with its own hash filled in.
    pub(crate) fn sealed(mut self) -> serde_json::Result<Self> {
        self.manifest_sha256 = self.own_hash()?;
        Ok(self)
    }

    fn own_hash(&self) -> serde_json::Result<String> {
        let blank = Manifest {
            manifest_sha256: String::new(),
            ..self.clone()
        };
        Ok(sha256(&serde_json::to_vec(&blank)?))
    }

    pub(crate) fn file(&self, name: &str) -> Result<&FileRecord, Fault> {
        self.files
            .get(name)
            .ok_or_else(|| unreadable(MANIFEST, format!("it does not list {name}")))
    }
}

/// Reads every byte of the checkpoint in the folder `path` and compares it with the manifest.
pub fn verify(path: &Path) -> Result<Manifest, Error> {
    verify_contents(path).map_err(|fault| Error::Damaged {
        path: path.to_owned(),
        fault,
    })
}

/// As [`verify`], with the fault alone as the error.
pub(crate) fn verify_contents(path: &Path) -> Result<Manifest, Fault> {
    let manifest = survey(path)?;
    for name in FILES {
        read_checked(path, &manifest, name, |reader, _| {
            io::copy(reader, &mut io::sink()).map_err(|error| error.to_string())
        })?;
    }
    Ok(manifest)
}

/// The manifest, after a look at what costs nothing to look at: that it is whole, and that each
/// file has its size.
pub(crate) fn survey(path: &Path) -> Result<Manifest, Fault> {
    let manifest = read_manifest(path)?;
    if let Some(folder) = parse_step(path).filter(|&step| step != manifest.step) {
        return Err(Fault::Step {
            folder,
            manifest: manifest.step,
        });
    }
    for name in FILES {
        open_checked(path, &manifest, name)?;
    }
    Ok(manifest)
}

fn read_manifest(path: &Path) -> Result<Manifest, Fault> {
    let wrong = |reason: String| unreadable(MANIFEST, reason);
    let file = File::open(path.join(MANIFEST)).map_err(|error| not_opened(MANIFEST, &error))?;
    let mut text = Vec::new();
    let read = file.take(MAX_MANIFEST + 1).read_to_end(&mut text);
    if read.map_err(|error| wrong(error.to_string()))? as u64 > MAX_MANIFEST {
        return Err(wrong(format!("it is larger than {MAX_MANIFEST} bytes")));
    }

    // The version first: the fields of another one may differ.
    let value: serde_json::Value =
        serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    let version = value
        .get("format_version")
        .and_then(serde_json::Value::as_u64);
    if let Some(found) = version.filter(|&found| found != u64::from(FORMAT_VERSION)) {
        return Err(Fault::Version {
            found,
            supported: FORMAT_VERSION,
        });
    }
    let manifest: Manifest =
        serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
    let hash = manifest
        .own_hash()
        .map_err(|error| wrong(error.to_string()))?;
    if hash != manifest.manifest_sha256 {
        return Err(Fault::Hash {
            file: MANIFEST.to_owned(),
            expected: manifest.manifest_sha256,
            found: hash,
        });
    }
    Ok(manifest)
}

/// Opens a file of the checkpoint if it has the size that the manifest says.
fn open_checked(path: &Path, manifest: &Manifest, name: &str) -> Result<File, Fault> {
    let record = manifest.file(name)?;
    let file = File::open(path.join(name)).map_err(|error| not_opened(name, &error))?;
    let found = file
        .metadata()
        .map_err(|error| unreadable(name, error.to_string()))?
        .len();
    if found != record.bytes {
        return Err(Fault::Size {
            file: name.to_owned(),
            expected: record.bytes,
            found,
        });
    }
    Ok(file)
}

/// Hands the contents and the size of a file to `parse` and returns what it makes of them, once
/// every byte has been hashed: a changed file is told as such, whatever `parse` stumbled upon in
/// it.
pub(crate) fn read_checked<T>(
    path: &Path,
    manifest: &Manifest,
    name: &str,
    parse: impl FnOnce(&mut Hashing<File>, u64) -> Result<T, String>,
) -> Result<T, Fault> {
    let record = manifest.file(name)?;
    let mut reader = Hashing::new(open_checked(path, manifest, name)?);
    let parsed = parse(&mut reader, record.bytes);
    io::copy(&mut reader, &mut io::sink()).map_err(|error| unreadable(name, error.to_string()))?;
    let (_, _, found) = reader.finish();
    if found != record.sha256 {
        return Err(Fault::Hash {
            file: name.to_owned(),
            expected: record.sha256.clone(),
            found,
        });
    }
    parsed.map_err(|reason| unreadable(name, reason))
}

fn unreadable(file: &str, reason: String) -> Fault {
    Fault::Unreadable {
        file: file.to_owned(),
        reason,
    }
}

fn not_opened(file: &str, error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::NotFound => Fault::Missing {
            file: file.to_owned(),
        },
        _ => unreadable(file, error.to_string()),
    }
}
