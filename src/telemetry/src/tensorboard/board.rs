//! Run events as TensorBoard shows them: one directory a job, its curves, texts and pictures.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use event::RunEvent;

use super::Error;
use super::job::JobRecords;

/// Writes `RUN_DIR/tensorboard/<job>/` from the events of a run.
///
/// docs/tensorboard.md lists every tag.
///
/// Wall times are those of the events. A job that cannot be written has no more records; the others are tried all the same.
/// Why is returned once, as is anything else that can befall all of them.
#[derive(Debug)]
pub struct Board {
    run_dir: PathBuf,
    /// Device and inode of the run directory, from the first record on.
    identity: Option<(u64, u64)>,
    jobs: BTreeMap<String, JobRecords>,
    /// Why jobs could not be written, as far as it has been told.
    told: BTreeSet<ErrorKind>,
    told_thinned: bool,
}

impl Board {
    /// For the run in `run_dir`; writes nothing yet.
    pub fn new(run_dir: &Path) -> Self {
        Board {
            run_dir: run_dir.to_owned(),
            identity: None,
            jobs: BTreeMap::new(),
            told: BTreeSet::new(),
            told_thinned: false,
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
        self.once(recorded)
    }

    /// Without an error that was returned before, of this job or of another.
    fn once(&mut self, result: Result<(), Error>) -> Result<(), Error> {
        let is_new = match &result {
            Err(Error::Write { source, .. }) => self.told.insert(source.kind()),
            Err(Error::Thinned { .. }) => !std::mem::replace(&mut self.told_thinned, true),
            _ => true,
        };
        if is_new { result } else { Ok(()) }
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
        self.once(result)
    }
}

/// Whether a job's name is the name of a folder in this one, and nothing else.
fn is_folder_name(job: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !job.is_empty() && job.len() <= 200 && !job.starts_with('.') && job.chars().all(allowed)
}
