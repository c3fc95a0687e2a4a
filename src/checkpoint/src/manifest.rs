//! `manifest.json`: what a checkpoint consists of, and whether a folder still is that.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::folder::parse_step;
use crate::hashing::{Hashing, sha256};
use crate::{Error, Fault, Meta};

pub(crate) const TRAINER: &str = "trainer.json";
pub(crate) const MANIFEST: &str = "manifest.json";

/// The format of a checkpoint whose tensors are in one piece, and that of one in shards. Programs that know the first alone
/// still read what is in one piece.
const WHOLE: u32 = 1;
const SHARDED: u32 = 2;
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
    /// How many files the model's tensors are in, and how many the optimizer's.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub shards: usize,
    /// By file name.
    pub files: BTreeMap<String, FileRecord>,
    /// SHA-256 of this manifest as compact JSON with this field empty: a manifest can rot like any
    /// other file.
    pub manifest_sha256: String,
}

fn one() -> usize {
    1
}

fn is_one(shards: &usize) -> bool {
    *shards == 1
}

/// The tensors of a checkpoint, by what they belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tensors {
    Model,
    Optimizer,
}

impl Tensors {
    /// The file of part `part` of `shards`, counted from 0; in their names parts are counted from 1.
    pub(crate) fn file(self, part: usize, shards: usize) -> String {
        let of = match self {
            Tensors::Model => "model",
            Tensors::Optimizer => "optimizer",
        };
        match shards {
            0 | 1 => format!("{of}.safetensors"),
            _ => format!("{of}-{:05}-of-{shards:05}.safetensors", part + 1),
        }
    }
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
    /// That of a checkpoint of these files.
    pub(crate) fn of(
        step: u64,
        meta: &Meta,
        shards: usize,
        files: BTreeMap<String, FileRecord>,
    ) -> serde_json::Result<Self> {
        Manifest {
            format_version: if is_one(&shards) { WHOLE } else { SHARDED },
            step,
            job: meta.job.clone(),
            plan_hash: meta.plan_hash.clone(),
            world_size: meta.world_size,
            shards,
            files,
            manifest_sha256: String::new(),
        }
        .sealed()
    }

    /// The names of the checkpoint's files, besides the manifest: they follow from the number of shards, and are never
    /// taken from a manifest.
    fn names(&self) -> impl Iterator<Item = String> + '_ {
        let tensors = [Tensors::Model, Tensors::Optimizer];
        tensors
            .into_iter()
            .flat_map(|tensors| self.shards_of(tensors))
            .chain([TRAINER.to_owned()])
    }

    /// The files of these tensors.
    pub(crate) fn shards_of(&self, tensors: Tensors) -> impl Iterator<Item = String> + use<> {
        let shards = self.shards;
        (0..shards).map(move |part| tensors.file(part, shards))
    }

    /// Bytes of the checkpoint's files, without the manifest.
    pub fn bytes(&self) -> u64 {
        self.files
            .values()
            .fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    /// The manifest with its own hash filled in.
    fn sealed(mut self) -> serde_json::Result<Self> {
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
    for name in manifest.names() {
        read_checked(path, &manifest, &name, |reader, _| {
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
    for name in manifest.names() {
        open_checked(path, &manifest, &name)?;
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
    let supported = u64::from(WHOLE)..=u64::from(SHARDED);
    if let Some(found) = version.filter(|found| !supported.contains(found)) {
        return Err(Fault::Version {
            found,
            supported: SHARDED,
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
    // Before anything counts up to a number that a file claims.
    let (shards, files) = (manifest.shards, manifest.files.len());
    if shards == 0 || shards.saturating_mul(2).saturating_add(1) != files {
        return Err(wrong(format!("it lists {files} files of {shards} shards")));
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
