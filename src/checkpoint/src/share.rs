//! A checkpoint that several processes write together, each a part of the same state, into one folder.
//!
//! Part 0 completes it: it writes trainer.json and, once each of the others has left a note of what it wrote and synced, the
//! manifest; then it renames the folder. Without a note of each there is no manifest, and so no checkpoint.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::folder::{Temporary, parse_step, step_name, temporary};
use crate::manifest::{FileRecord, Tensors};
use crate::write::write_file;

/// How often part 0 looks for the notes of the others.
const PAUSE: Duration = Duration::from_millis(5);

/// Which part of a checkpoint this process writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Counted from 0.
    pub part: usize,
    pub parts: usize,
    /// A number that all parts have and no other process has that ever writes into this folder: what a part of an earlier
    /// attempt has left, or still writes, is never taken for one of this.
    pub token: u64,
    /// How long part 0 waits for the others, from when its own part is on the disk.
    pub patience: Duration,
}

/// What a part that is not the first has written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    model: FileRecord,
    optimizer: FileRecord,
}

impl Share {
    /// The folder that all parts of the checkpoint of `step` fill.
    pub(crate) fn folder(&self, root: &Path, step: u64) -> PathBuf {
        temporary(root, &format!("{}{}", step_name(step), self.suffix()))
    }

    /// Whether another part may be at work in the temporary folder `name` while part 0 writes the checkpoint of `step`: the
    /// others may be ahead.
    pub(crate) fn uses(&self, name: &str, step: u64) -> bool {
        name.strip_suffix(&self.suffix())
            .and_then(|name| parse_step(Path::new(name)))
            .is_some_and(|of| of >= step)
    }

    fn suffix(&self) -> String {
        format!("-shared-{:016x}", self.token)
    }

    /// Says to part 0 that this part's files are on the disk; the note is there whole or not at all.
    pub(crate) fn leave_note(
        &self,
        folder: &Path,
        mut files: BTreeMap<String, FileRecord>,
    ) -> io::Result<()> {
        let mut of = |tensors: Tensors| {
            let name = tensors.file(self.part, self.parts);
            files
                .remove(&name)
                .ok_or_else(|| io::Error::other(format!("{name} was not written")))
        };
        let note = Note {
            model: of(Tensors::Model)?,
            optimizer: of(Tensors::Optimizer)?,
        };
        let text = serde_json::to_vec(&note)?;
        let path = note_of(folder, self.part);
        let half = path.with_extension("half");
        write_file(&half, &|writer| writer.write_all(&text))?;
        fs::rename(half, path)
    }

    /// Waits for the notes of all other parts, takes them away, and returns the files that they speak of.
    pub(crate) fn gather(
        &self,
        root: &Path,
        folder: &Path,
        step: u64,
        failed: impl Fn(&Path, io::Error) -> Error,
    ) -> Result<BTreeMap<String, FileRecord>, Error> {
        let began = Instant::now();
        let mut files = BTreeMap::new();
        let mut missing: Vec<usize> = (1..self.parts).collect();
        loop {
            // A network file system looks for new names at the latest when the folder is opened.
            let _ = File::open(folder);
            let mut still_missing = Vec::new();
            for part in missing {
                let path = note_of(folder, part);
                match fs::read(&path) {
                    Ok(text) => {
                        let note: Note =
                            serde_json::from_slice(&text).map_err(|e| failed(&path, e.into()))?;
                        files.insert(Tensors::Model.file(part, self.parts), note.model);
                        files.insert(Tensors::Optimizer.file(part, self.parts), note.optimizer);
                        fs::remove_file(&path).map_err(|error| failed(&path, error))?;
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        still_missing.push(part);
                    }
                    Err(error) => return Err(failed(&path, error)),
                }
            }
            if still_missing.is_empty() {
                return Ok(files);
            }
            missing = still_missing;
            if began.elapsed() >= self.patience {
                return Err(Error::PartsMissing {
                    step,
                    root: root.to_owned(),
                    missing,
                    waited: self.patience,
                });
            }
            thread::sleep(PAUSE);
        }
    }
}

fn note_of(folder: &Path, part: usize) -> PathBuf {
    folder.join(format!("part-{:05}.json", part + 1))
}

/// A mark in the folder of a job's checkpoints, by which other processes find out whether they see the same folder; gone
/// when this is dropped.
pub struct Mark {
    _folder: Temporary,
}

impl Mark {
    /// Leaves it in `root`, which is made if need be.
    pub fn leave(root: &Path, token: u64) -> Result<Self, Error> {
        let folder = Temporary::new(Mark::path(root, token));
        fs::create_dir_all(folder.path()).map_err(Error::io("make", folder.path()))?;
        Ok(Mark { _folder: folder })
    }

    pub fn is_seen(root: &Path, token: u64) -> bool {
        Mark::path(root, token).is_dir()
    }

    fn path(root: &Path, token: u64) -> PathBuf {
        temporary(root, &format!("mark-{token:016x}"))
    }
}
