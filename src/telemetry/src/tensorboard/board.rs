//! Run events as TensorBoard shows them: one directory a job, curves of training and evaluation.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use event::{EventKind, RunEvent, StepRecord};

use super::{Error, Writer};

/// Seconds of event time after which records are handed to the operating system.
const FLUSH_SECONDS: f64 = 5.0;

/// Writes `RUN_DIR/tensorboard/<job>/` from the events of a run.
///
/// | tag | from |
/// |---|---|
/// | `train/loss`, `train/loss/<part>`, `train/learning_rate`, `train/gradient_norm` | a step |
/// | `train/loss_scale` | a step in fp16 |
/// | `train/samples_per_second`, `train/images_per_second` | a step: global batch over wall time |
/// | `eval/<set>/<metric>` | an evaluation |
/// | `job/retried`, `job/failed` (texts) | the launcher: why, at the last step that stands |
///
/// Wall times are those of the events. A failure to write is returned once for a job, which then
/// has no more records; the others go on.
#[derive(Debug)]
pub struct Board {
    run_dir: PathBuf,
    /// Device and inode of the run directory, from the first record on.
    identity: Option<(u64, u64)>,
    jobs: BTreeMap<String, JobRecords>,
}

/// The records of one job.
#[derive(Debug)]
struct JobRecords {
    directory: PathBuf,
    writer: FileState,
    attempt: u32,
    /// The newest step that a reader of the directory has; none where earlier files may hold any.
    last_step: Option<u64>,
    /// Why the attempt before failed: told once steps begin anew, as what was told before that
    /// may be forgotten.
    retry_reason: Option<String>,
    flushed_at: f64,
}

#[derive(Debug)]
enum FileState {
    /// The file is made with the first record, so that jobs without any have none.
    NotBegun,
    Open(Writer),
    Failed,
}

impl Board {
    /// For the run in `run_dir`; writes nothing yet.
    pub fn new(run_dir: &Path) -> Self {
        Board {
            run_dir: run_dir.to_owned(),
            identity: None,
            jobs: BTreeMap::new(),
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
        let root = self.run_dir.join("tensorboard");
        match self.jobs.entry(job.clone()) {
            Entry::Occupied(entry) => entry.into_mut().record(event),
            Entry::Vacant(entry) if is_folder_name(job) => {
                let directory = root.join(job);
                entry
                    .insert(JobRecords::new(directory, FileState::NotBegun, event.time))
                    .record(event)
            }
            Entry::Vacant(entry) => {
                entry.insert(JobRecords::new(root, FileState::Failed, event.time));
                Err(Error::JobName { job: job.clone() })
            }
        }
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
        result
    }
}

/// Whether a job's name is the name of a folder in this one, and nothing else.
fn is_folder_name(job: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !job.is_empty() && job.len() <= 200 && !job.starts_with('.') && job.chars().all(allowed)
}

impl JobRecords {
    fn new(directory: PathBuf, writer: FileState, now: f64) -> Self {
        JobRecords {
            directory,
            writer,
            attempt: 0,
            last_step: None,
            retry_reason: None,
            flushed_at: now,
        }
    }

    fn record(&mut self, event: &RunEvent) -> Result<(), Error> {
        // What comes late from an attempt that is over has been taken back already.
        let attempt = event.attempt.unwrap_or(self.attempt);
        if attempt < self.attempt {
            return Ok(());
        }
        self.attempt = attempt;

        let time = event.time;
        match &event.kind {
            // All ranks train alike: the first speaks for them.
            EventKind::Step(_) | EventKind::Evaluated { .. } if event.rank.unwrap_or(0) > 0 => {}
            EventKind::Step(step) => self.step(step, time)?,
            EventKind::Evaluated { step, set, metrics } => {
                let tag = |name: &String| match set.as_str() {
                    "" => format!("eval/{name}"),
                    set => format!("eval/{set}/{name}"),
                };
                let values = metrics.iter().map(|(name, &value)| (tag(name), value));
                self.write(time, |writer| writer.scalars(*step, time, values))?;
                self.flushed_at = f64::NEG_INFINITY;
            }
            EventKind::JobResumed { step, .. } => {
                self.restart(step.saturating_add(1), time)?;
            }
            EventKind::JobRetried { reason, .. } => self.retry_reason = Some(reason.clone()),
            EventKind::JobFailed { reason } => self.text("job/failed", reason, time)?,
            _ => {}
        }
        let ends = matches!(
            event.kind,
            EventKind::JobFinished { .. }
                | EventKind::JobFailed { .. }
                | EventKind::JobStopped { .. }
        );
        if ends || (time - self.flushed_at).abs() >= FLUSH_SECONDS {
            self.flushed_at = time;
            self.flush()?;
        }
        Ok(())
    }

    fn step(&mut self, record: &StepRecord, time: f64) -> Result<(), Error> {
        let step = record.step;
        // Either the first here, so that what earlier files hold from this step on is done again;
        // or a new attempt that began at the start, without a checkpoint.
        if self.last_step.is_none_or(|last| step <= last) {
            self.restart(step, time)?;
        }
        self.last_step = Some(step);

        let mut values = vec![
            ("train/loss".to_owned(), record.loss),
            ("train/learning_rate".to_owned(), record.learning_rate),
            ("train/gradient_norm".to_owned(), record.gradient_norm),
        ];
        let scale = record.loss_scale;
        values.extend(scale.map(|scale| ("train/loss_scale".to_owned(), scale)));
        let parts = record.losses.iter();
        values.extend(parts.map(|(part, &loss)| (format!("train/loss/{part}"), loss)));
        if record.seconds > 0.0 {
            let per_second = |count: u64| count as f64 / record.seconds;
            values.push((
                "train/samples_per_second".to_owned(),
                per_second(record.samples),
            ));
            values.push((
                "train/images_per_second".to_owned(),
                per_second(record.images),
            ));
        }
        self.write(time, |writer| writer.scalars(step, time, values))
    }

    fn restart(&mut self, first_step: u64, time: f64) -> Result<(), Error> {
        self.write(time, |writer| writer.restart(first_step, time))?;
        self.last_step = first_step.checked_sub(1);
        match self.retry_reason.take() {
            Some(reason) => self.text("job/retried", &reason, time),
            None => Ok(()),
        }
    }

    fn text(&mut self, tag: &str, text: &str, time: f64) -> Result<(), Error> {
        let step = self.last_step.unwrap_or(0);
        self.write(time, |writer| writer.text(tag, step, text, time))
    }

    fn flush(&mut self) -> Result<(), Error> {
        match &mut self.writer {
            FileState::Open(writer) => writer.flush(),
            FileState::NotBegun | FileState::Failed => Ok(()),
        }
    }

    /// Begins the file if that has not been tried yet, and writes to it.
    fn write(
        &mut self,
        time: f64,
        write: impl FnOnce(&mut Writer) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if let FileState::NotBegun = self.writer {
            self.writer = FileState::Failed;
            self.writer = FileState::Open(Writer::create(&self.directory, time)?);
        }
        match &mut self.writer {
            FileState::Open(writer) => write(writer),
            FileState::NotBegun | FileState::Failed => Ok(()),
        }
    }
}
