//! Losses and metrics over the number of samples seen: jobs of different batches lie over each other so.
//!
//! They are a run of their own, `<job>/by_samples`: a restart takes back steps of one kind, and here steps are samples.

use std::path::Path;

use event::StepRecord;

use super::Error;
use super::lazy_file::LazyFile;
use super::standing::Standing;

/// The folder in that of the job.
const FOLDER: &str = "by_samples";

#[derive(Debug)]
pub(super) struct BySamples {
    file: LazyFile,
    /// Samples of an update, once that is known.
    batch: Option<u64>,
    /// The job has gone on from somewhere: the next record says from where on samples are seen again.
    restarts: bool,
    /// What stood where it went on.
    standing: Standing,
}

impl BySamples {
    pub fn new(directory: &Path) -> Self {
        BySamples {
            file: LazyFile::new(directory.join(FOLDER)),
            batch: None,
            restarts: true,
            standing: Standing::default(),
        }
    }

    pub fn closed() -> Self {
        BySamples {
            file: LazyFile::closed(),
            ..Self::new(Path::new(""))
        }
    }

    /// A job's batch is the same from its first update to its last, whatever the number of ranks.
    pub fn begin(&mut self, batch: Option<u64>) {
        self.batch = batch.or(self.batch);
    }

    pub fn restart(&mut self) {
        self.restarts = true;
        self.standing = Standing::default();
    }

    /// After a restart: the job goes on after `step` updates.
    pub fn resume(&mut self, step: u64) -> Result<(), Error> {
        if let Some(batch) = self.batch {
            self.standing = self.file.standing(step.saturating_mul(batch))?;
        }
        Ok(())
    }

    /// Nothing of an earlier training of the job is there any more.
    pub fn remove_others(&self) {
        self.file.remove_others();
    }

    pub fn step(&mut self, record: &StepRecord, time: f64) -> Result<(), Error> {
        self.batch = Some(record.samples);
        let seen = record.step.saturating_mul(record.samples);
        if std::mem::take(&mut self.restarts) {
            // What earlier records hold of this update, whose samples came after those of the one before.
            let first = seen.saturating_sub(record.samples).saturating_add(1);
            self.file
                .write(time, |writer| writer.restart(first, time))?;
        }
        let parts = record.losses.iter();
        let parts = parts.map(|(part, loss)| (format!("by_samples/loss/{part}"), *loss));
        let all = std::iter::once(("by_samples/loss".to_owned(), record.loss)).chain(parts);
        self.file
            .write(time, |writer| writer.scalars(seen, time, all))
    }

    /// Metrics by tag, after `step` updates; nothing where it is not known how many samples those are.
    pub fn evaluated(
        &mut self,
        step: u64,
        metrics: &[(String, f64)],
        time: f64,
    ) -> Result<(), Error> {
        let Some(batch) = self.batch else {
            return Ok(());
        };
        let seen = step.saturating_mul(batch);
        let metrics = metrics.iter();
        let metrics = metrics.map(|(tag, value)| (format!("by_samples/{tag}"), *value));
        let new = metrics.filter(|(tag, _)| self.standing.lacks(seen, tag));
        let new: Vec<_> = new.collect();
        self.file
            .write(time, |writer| writer.scalars(seen, time, new))
    }

    pub fn flush(&mut self) -> Result<(), Error> {
        self.file.flush()
    }
}
