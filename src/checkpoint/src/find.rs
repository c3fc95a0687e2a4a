//! The checkpoints of a job: which there are, and which of them to resume from.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::folder::parse_step;
use crate::manifest::{survey, verify_contents};
use crate::{Error, Fault, Manifest};

/// A checkpoint's folder as [`list`] sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub step: u64,
    pub path: PathBuf,
    /// Bytes of its files as they are now.
    pub bytes: u64,
    pub state: State,
}

/// What a look at the manifest and the sizes tells; only [`crate::verify`] reads the contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The manifest is whole and every file has its size.
    Complete(Manifest),
    Damaged(Fault),
}

/// The checkpoints below `root` (a job's `checkpoints` folder) by rising step; none where there is
/// no such folder.
pub fn list(root: &Path) -> Result<Vec<Entry>, Error> {
    let folders = match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        folders => folders.map_err(Error::io("list", root))?,
    };
    let mut entries = Vec::new();
    for folder in folders {
        let path = folder.map_err(Error::io("list", root))?.path();
        if let Some(step) = parse_step(&path) {
            let state = survey(&path).map_or_else(State::Damaged, State::Complete);
            entries.push(Entry {
                step,
                bytes: bytes_in(&path),
                path,
                state,
            });
        }
    }
    entries.sort_by_key(|entry| entry.step);
    Ok(entries)
}

/// Bytes of the files in `folder`; what cannot be looked at counts for nothing.
pub(crate) fn bytes_in(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files
        .filter_map(|file| file.metadata().ok())
        .map(|file| file.len())
        .sum()
}

/// The checkpoint to resume from, and what was passed over to get to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub path: PathBuf,
    pub step: u64,
    /// Newer ones that are not valid, newest first.
    pub skipped: Vec<Skipped>,
}

/// A checkpoint that cannot be resumed from, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    pub path: PathBuf,
    pub step: u64,
    pub reason: Fault,
}

impl Found {
    /// Steps that had been saved and must be done again.
    pub fn steps_lost(&self) -> u64 {
        let newest = self
            .skipped
            .first()
            .map_or(self.step, |skipped| skipped.step);
        newest.saturating_sub(self.step)
    }
}

impl fmt::Display for Found {
    /// `resuming from step 100; skipped step 200 (model.safetensors is missing): 100 steps must be
    /// done again`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "resuming from step {}", self.step)?;
        for skipped in &self.skipped {
            write!(f, "; skipped {skipped}")?;
        }
        match self.steps_lost() {
            0 => Ok(()),
            1 => f.write_str(": 1 step must be done again"),
            steps => write!(f, ": {steps} steps must be done again"),
        }
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {} ({})", self.step, self.reason)
    }
}

/// The newest checkpoint below `root` of which every byte is as it was written; none where there is
/// no checkpoint.
///
/// Where there are checkpoints and none is valid this is an error: beginning anew is for the user
/// to choose.
pub fn newest_valid(root: &Path) -> Result<Option<Found>, Error> {
    newest(root, |_| true)
}

/// As [`newest_valid`], among the checkpoints of one plan: those of another are as if they were not
/// there.
pub fn newest_valid_of(root: &Path, plan_hash: &str) -> Result<Option<Found>, Error> {
    newest(root, |manifest| manifest.plan_hash == plan_hash)
}

fn newest(root: &Path, concerns: impl Fn(&Manifest) -> bool) -> Result<Option<Found>, Error> {
    let mut skipped = Vec::new();
    for entry in list(root)?.into_iter().rev() {
        let Entry {
            step, path, state, ..
        } = entry;
        let state = match state {
            State::Complete(manifest) if !concerns(&manifest) => continue,
            State::Complete(_) => verify_contents(&path),
            State::Damaged(fault) => Err(fault),
        };
        match state {
            Ok(_) => {
                return Ok(Some(Found {
                    path,
                    step,
                    skipped,
                }));
            }
            Err(reason) => skipped.push(Skipped { path, step, reason }),
        }
    }
    if skipped.is_empty() {
        return Ok(None);
    }
    let root = root.to_owned();
    Err(Error::NoneValid { root, skipped })
}
