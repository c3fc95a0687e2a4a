//! The folder of a phantom data set: begun, complete, or somebody else's.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{SynthOptions, SynthSummary};
use crate::atomic_file;
use crate::error::{DataError, Result};

/// To be raised when equal options come to give other bytes.
const FORMAT: u32 = 2;

pub(super) const COMPLETE: &str = "phantom.json";
const BEGUN: &str = "phantom.partial.json";

pub(super) const IMAGES: &str = "train_images";
pub(super) const SEGMENTATIONS: &str = "segmentations";

/// Begins the name of a study's folder until all its slices are in it.
pub(super) const PARTIAL_STUDY: &str = ".partial-";

/// What the marker files hold.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Marker {
    format: u32,
    options: SynthOptions,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<SynthSummary>,
}

impl Marker {
    fn new(options: &SynthOptions, summary: Option<SynthSummary>) -> Self {
        Self {
            format: FORMAT,
            options: SynthOptions {
                out: PathBuf::new(),
                ..options.clone()
            },
            summary,
        }
    }

    fn parse(text: &[u8], path: &Path) -> Result<Self> {
        serde_json::from_slice(text).map_err(|error| DataError::PhantomFolder {
            path: path.to_path_buf(),
            problem: format!("it is not a phantom's marker file ({error})"),
            remedy: "choose another folder",
        })
    }

    fn text(&self, path: &Path) -> Result<Vec<u8>> {
        let text = serde_json::to_vec_pretty(self);
        text.map_err(|error| DataError::io("write", path)(error.into()))
    }

    /// Refuses a marker of other options than `self`'s.
    fn same_as(&self, found: &Self, folder: &Path) -> Result<()> {
        if self.format == found.format && self.options == found.options {
            return Ok(());
        }
        Err(DataError::PhantomFolder {
            path: folder.to_path_buf(),
            problem: format!(
                "it holds a phantom of other options ({:?}, format {})",
                found.options, found.format
            ),
            remedy: "choose another folder, or delete this one",
        })
    }
}

/// A folder as it was found.
pub(super) enum Opened {
    Complete(SynthSummary),
    Begun(Folder),
}

/// A folder that this process alone writes into, until it is dropped.
pub(super) struct Folder {
    path: PathBuf,
    /// Holds the lock.
    _begun: File,
}

impl Folder {
    /// Takes the folder of `options`: makes it where it is missing, goes on where it was begun.
    pub fn open(options: &SynthOptions) -> Result<Opened> {
        let path = &options.out;
        let wanted = Marker::new(options, None);
        if let Some(summary) = complete(path, &wanted)? {
            return Ok(Opened::Complete(summary));
        }
        let marker = path.join(BEGUN);
        fs::create_dir_all(path).map_err(DataError::io("create", path))?;
        if !marker.exists() && !is_empty(path)? {
            return Err(DataError::PhantomFolder {
                path: path.clone(),
                problem: "it is not empty".to_owned(),
                remedy: "choose a new folder",
            });
        }
        let mut opened = File::options();
        let opened = opened
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&marker);
        let mut begun = opened.map_err(DataError::io("create", &marker))?;
        begun.try_lock().map_err(|error| match error {
            TryLockError::Error(source) => DataError::io("lock", &marker)(source),
            TryLockError::WouldBlock => DataError::PhantomFolder {
                path: path.clone(),
                problem: "another process is making it".to_owned(),
                remedy: "wait for it to end",
            },
        })?;
        // Between the look above and the lock another process may have completed it.
        if let Some(summary) = complete(path, &wanted)? {
            fs::remove_file(&marker).map_err(DataError::io("remove", &marker))?;
            return Ok(Opened::Complete(summary));
        }
        let mut text = Vec::new();
        begun
            .read_to_end(&mut text)
            .map_err(DataError::io("read", &marker))?;
        if text.is_empty() {
            begun.rewind().map_err(DataError::io("write", &marker))?;
            begun
                .write_all(&wanted.text(&marker)?)
                .map_err(DataError::io("write", &marker))?;
        } else {
            wanted.same_as(&Marker::parse(&text, &marker)?, path)?;
        }
        let folder = Self {
            path: path.clone(),
            _begun: begun,
        };
        folder.sweep()?;
        Ok(Opened::Begun(folder))
    }

    /// Makes the subfolders, and removes what an interrupted call left half written.
    fn sweep(&self) -> Result<()> {
        let (images, segmentations) = (self.path.join(IMAGES), self.path.join(SEGMENTATIONS));
        for path in [&self.path, &images, &segmentations] {
            fs::create_dir_all(path).map_err(DataError::io("create", path))?;
            for entry in fs::read_dir(path).map_err(DataError::io("list", path))? {
                let entry = entry.map_err(DataError::io("list", path))?;
                let (name, left) = (entry.file_name(), entry.path());
                let name = name.as_encoded_bytes();
                let removed = if name.starts_with(PARTIAL_STUDY.as_bytes()) {
                    fs::remove_dir_all(&left)
                } else if name.starts_with(b".tmp-") {
                    // atomic_file's
                    fs::remove_file(&left)
                } else {
                    continue;
                };
                removed.map_err(DataError::io("remove", &left))?;
            }
        }
        Ok(())
    }

    /// Declares the data set complete.
    pub fn complete(self, options: &SynthOptions, summary: &SynthSummary) -> Result<()> {
        let (partial, complete) = (self.path.join(BEGUN), self.path.join(COMPLETE));
        let text = Marker::new(options, Some(summary.clone())).text(&complete)?;
        atomic_file::replace(&complete, |file| file.write_all(&text))?;
        fs::remove_file(&partial).map_err(DataError::io("remove", &partial))
    }
}

/// The summary of a complete data set of these options; nothing where none is complete.
fn complete(folder: &Path, wanted: &Marker) -> Result<Option<SynthSummary>> {
    let path = folder.join(COMPLETE);
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read(&path).map_err(DataError::io("read", &path))?;
    let found = Marker::parse(&text, &path)?;
    wanted.same_as(&found, folder)?;
    Ok(found.summary.map(|summary| SynthSummary {
        already_complete: true,
        ..summary
    }))
}

fn is_empty(folder: &Path) -> Result<bool> {
    let mut entries = fs::read_dir(folder).map_err(DataError::io("list", folder))?;
    Ok(entries.next().is_none())
}
