//! Run events as TensorBoard shows them: one directory a job, its curves, texts and pictures.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use event::RunEvent;

use super::Error;
use super::job::JobRecords;

/// Writes `RUN_DIR/tensorboard/<job>/` from the events of a run.
///
/// docs/tensorboard.md lists every tag.
///
/// Wall times are those of the events. A job of which something cannot be written has no more
/// records; the others go on. What ails the disk is returned once for all of them.
#[derive(Debug)]
pub struct Board {
    run_dir: PathBuf,
    /// Device and inode of the run directory, from the first record on.
    identity: Option<(u64, u64)>,
    jobs: BTreeMap<String, JobRecords>,
    /// Why something could not be written, so far.
    told: Vec<io::ErrorKind>,
}

impl Board {
    /// For the run in `run_dir`; writes nothing yet.
    pub fn new(run_dir: &Path) -> Self {
        Board {
            run_dir: run_dir.to_owned(),
            identity: None,
            jobs: BTreeMap::new(),
            told: Vec::new(),
        }
    }

    /// Takes note of an event; those that have no place in TensorBoard are passed over.
    pub fn record(&mut self, event: &RunEvent) -> Result<(), Error> {
        let Some(job) = &event.job else {
            return Ok(());
        };
        if !self.is_at_its_place() {
            return Ok(());
        }
        let recorded = match self.jobs.entry(job.clone()) {
            Entry::Occupied(entry) => entry.into_mut().record(event),
            Entry::Vacant(entry) if is_folder_name(job) => entry
                .insert(JobRecords::new(&self.run_dir, job, event.time))
                .record(event),
            Entry::Vacant(entry) => {
                entry.insert(JobRecords::closed(&self.run_dir));
                Err(Error::JobName { job: job.clone() })
            }
        };
        self.told_once(recorded)
    }

    /// Whether the run directory is the one of the first record: in one that was made anew nothing is begun.
    fn is_at_its_place(&mut self) -> bool {
        let found = fs::metadata(&self.run_dir).ok();
        let found = found.map(|found| (found.dev(), found.ino()));
        *self.identity.get_or_insert(found.unwrap_or_default()) == found.unwrap_or_default()
    }

    /// Hands all that is buffered to the operating system; the first error of several is returned.
    pub fn flush(&mut self) -> Result<(), Error> {
        let mut result = Ok(());
        for job in self.jobs.values_mut() {
            result = result.and(job.flush());
        }
        self.told_once(result)
    }

    /// A disk that is full is full for every job.
    fn told_once(&mut self, result: Result<(), Error>) -> Result<(), Error> {
        if let Err(Error::Write { source, .. }) = &result {
            let kind = source.kind();
            if self.told.contains(&kind) {
                return Ok(());
            }
            self.told.push(kind);
        }
        result
    }
}

/// Whether a job's name is the name of a folder in this one, and nothing else.
fn is_folder_name(job: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !job.is_empty() && job.len() <= 200 && !job.starts_with('.') && job.chars().all(allowed)
}
