//! What `spinectl data cache` does to a cache as a whole: verify it, measure it, empty it.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::entry::{Entry, Fault};
use super::folder::{self, Folder, Listed};
use super::{Cache, CacheOptions, Kind};
use crate::error::{DataError, Result};

/// Entries and what they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Number of entries.
    pub entries: usize,
    /// Sizes of their files.
    pub bytes: u64,
}

/// What lies in a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// HU as decoded.
    pub volumes: Amount,
    /// Slices as networks take them.
    pub stacks: Amount,
}

impl Usage {
    /// Bytes of all entries.
    pub fn bytes(&self) -> u64 {
        self.volumes.bytes + self.stacks.bytes
    }

    fn of<'a>(entries: impl Iterator<Item = &'a Listed>) -> Self {
        let mut usage = Usage::default();
        for entry in entries {
            let amount = match entry.key.kind {
                Kind::Volume => &mut usage.volumes,
                Kind::Stack => &mut usage.stacks,
            };
            amount.entries += 1;
            amount.bytes += entry.bytes;
        }
        usage
    }
}

/// An entry that did not hold what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadEntry {
    /// Its name in the folder `entries`.
    pub name: String,
    /// What was wrong.
    pub problem: String,
    /// Whether it is gone; if not, the operating system does not let it be read or removed.
    pub removed: bool,
}

/// What a check of a whole cache found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// The sound entries.
    pub good: Usage,
    /// The others, by name.
    pub bad: Vec<BadEntry>,
}

impl Cache {
    /// Takes the folder `dir` for its upkeep only if it is a cache; nothing is made there.
    ///
    /// # Errors
    /// [`DataError::Cache`] where it is none.
    pub fn existing(dir: &Path) -> Result<Self> {
        let options = CacheOptions {
            limit: u64::MAX,
            compress: false,
            volumes: false,
        };
        Ok(Cache {
            folder: Folder::existing(dir)?,
            options,
            warnings: Default::default(),
        })
    }

    /// Reads every entry and removes the damaged ones, and what killed processes left; on all of rayon's threads.
    /// `progress` is told (entries done, entries in all) after each.
    ///
    /// # Errors
    /// [`DataError::Io`] where the folder cannot be listed or cleaned.
    pub fn verify(&self, progress: &(dyn Fn(usize, usize) + Sync)) -> Result<Verified> {
        self.in_folder("clean", self.folder.remove_leftovers())?;
        let entries = self.in_folder("list", self.folder.list())?;
        let done = AtomicUsize::new(0);
        let checked = entries.par_iter().map(|listed| {
            let bad = self.check(listed);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, entries.len());
            bad
        });
        let checked: Vec<Option<BadEntry>> = checked.collect();
        let good = entries
            .iter()
            .zip(&checked)
            .filter(|(_, bad)| bad.is_none());
        Ok(Verified {
            good: Usage::of(good.map(|(listed, _)| listed)),
            bad: checked.into_iter().flatten().collect(),
        })
    }

    fn check(&self, listed: &Listed) -> Option<BadEntry> {
        let check = || match Entry::open(&listed.path, &listed.key) {
            Ok(Some(entry)) => entry.check(),
            Ok(None) => Ok(()),
            Err(fault) => Err(fault),
        };
        let bad = |problem: String, removed: io::Result<()>| BadEntry {
            name: listed.key.name(),
            problem,
            removed: removed.is_ok(),
        };
        match check() {
            Ok(()) => None,
            // Making room for others, another process removed it.
            Err(Fault::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(Fault::Io(error)) => Some(bad(error.to_string(), Err(error))),
            Err(Fault::Damaged(_)) => {
                // Another process may be making it again, or have done so.
                let lock = self.folder.lock_name(&listed.key.name());
                let problem = match check() {
                    Ok(()) => return None,
                    Err(Fault::Damaged(problem)) => problem,
                    Err(Fault::Io(error)) => error.to_string(),
                };
                Some(bad(
                    problem,
                    lock.and_then(|_lock| folder::remove(&listed.path)),
                ))
            }
        }
    }

    /// What lies in the cache now.
    ///
    /// # Errors
    /// [`DataError::Io`] where the folder cannot be listed.
    pub fn usage(&self) -> Result<Usage> {
        Ok(Usage::of(
            self.in_folder("list", self.folder.list())?.iter(),
        ))
    }

    /// Removes all entries, and what killed processes left. The folder stays a cache; files of other names stay. Processes
    /// that use the cache go on, and may put entries into it again.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub fn clear(&self) -> Result<Usage> {
        let usage = self.usage()?;
        self.in_folder("empty", self.folder.clear())?;
        Ok(usage)
    }

    fn in_folder<T>(&self, action: &'static str, result: io::Result<T>) -> Result<T> {
        result.map_err(DataError::io(action, self.folder.root()))
    }
}
