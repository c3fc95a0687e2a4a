//! The records of one job: what of each event is shown, and what a resume takes back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use event::{EventKind, GpuUse, Picture, RunEvent, Scores, Setting, StepRecord};
use prost::Message;

use super::allowance::Allowance;
use super::by_samples::BySamples;
use super::lazy_file::LazyFile;
use super::message::SummaryValue;
use super::standing::Standing;
use super::{Error, curves, picture, summary};

/// Seconds of event time after which records are handed to the operating system.
const FLUSH_SECONDS: f64 = 5.0;

/// Charts over all jobs; see [`summary::layout`].
const FOLDS: &str = "Folds side by side";
const CHARTS: [(&str, &[&str]); 7] = [
    ("loss", &["^train/loss$"]),
    ("loss by head", &["^train/loss/"]),
    ("held-out metrics", &["^eval/held_out/"]),
    ("out-of-fold metrics", &["^eval/out_of_fold/"]),
    (
        "gradient norm",
        &["^train/gradient_norm$", "^train/gradient_norm_clipped$"],
    ),
    ("learning rate", &["^train/learning_rate"]),
    ("images per second", &["^train/images_per_second$"]),
];

/// Settings that are no hyperparameters: another attempt may have others, and TensorBoard keeps the first that it reads; and the
/// folds of a model are one group, of which it shows one member's.
const NOT_COMPARED: [&str; 6] = [
    "accumulation",
    "evaluate_every",
    "fold",
    "gpus",
    "micro_batch",
    "ranks",
];

#[derive(Debug)]
pub(super) struct JobRecords {
    run_dir: PathBuf,
    job: String,
    file: LazyFile,
    by_samples: BySamples,
    attempt: u32,
    /// Ranks of the attempt, once it has said so.
    world_size: Option<usize>,
    /// The newest step that a reader of the directory has; none where earlier files may hold any.
    last_step: Option<u64>,
    /// What stood where the job went on.
    standing: Standing,
    allowance: Allowance,
    /// A picture could not be shown, and that has been said.
    picture_missed: bool,
    /// Why the attempt before failed: told once steps begin anew, as what was told before that
    /// may be forgotten.
    retry_reason: Option<String>,
    flushed_at: f64,
}

impl JobRecords {
    /// `job` is the name of a folder; `now`: seconds since the Unix epoch.
    pub fn new(run_dir: &Path, job: &str, now: f64) -> Self {
        let directory = run_dir.join("tensorboard").join(job);
        JobRecords {
            job: job.to_owned(),
            by_samples: BySamples::new(&directory),
            file: LazyFile::new(directory),
            flushed_at: now,
            ..Self::closed(run_dir)
        }
    }

    /// Of a job that has no folder: they write nothing.
    pub fn closed(run_dir: &Path) -> Self {
        JobRecords {
            run_dir: run_dir.to_owned(),
            job: String::new(),
            file: LazyFile::closed(),
            by_samples: BySamples::closed(),
            attempt: 0,
            world_size: None,
            last_step: None,
            standing: Standing::default(),
            allowance: Allowance::default(),
            picture_missed: false,
            retry_reason: None,
            flushed_at: 0.0,
        }
    }

    pub fn record(&mut self, event: &RunEvent) -> Result<(), Error> {
        // What comes late from an attempt that is over has been taken back already.
        let attempt = event.attempt.unwrap_or(self.attempt);
        if attempt < self.attempt {
            return Ok(());
        }
        self.attempt = attempt;
        let shown = self.take(event);
        self.told_once(shown)
    }

    fn take(&mut self, event: &RunEvent) -> Result<(), Error> {
        let time = event.time;
        match (&event.kind, event.rank.unwrap_or(0)) {
            (EventKind::GpuUse(gpu), rank) => self.gpu(rank, gpu, time)?,
            // All ranks train alike: the first speaks for them.
            (kind, 0) => self.show(kind, time)?,
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
            self.flush_files()?;
        }
        Ok(())
    }

    /// Where one of its files cannot be written, there is nothing more of the job.
    fn told_once(&mut self, result: Result<(), Error>) -> Result<(), Error> {
        if let Err(Error::Write { .. }) = result {
            self.file = LazyFile::closed();
            self.by_samples = BySamples::closed();
        }
        result
    }

    fn show(&mut self, kind: &EventKind, time: f64) -> Result<(), Error> {
        match kind {
            EventKind::JobStarted { world_size } => {
                self.world_size = Some(*world_size);
                Ok(())
            }
            EventKind::TrainingStarted { settings } => self.begin(settings, time),
            EventKind::Step(step) => self.step(step, time),
            EventKind::Evaluated { step, set, metrics } => {
                self.evaluated(*step, set, metrics, time)
            }
            EventKind::Scores(scores) => self.scores(scores, time),
            EventKind::Picture(picture) => self.picture(picture, time),
            EventKind::Histogram(histogram) => {
                match summary::histogram(&histogram.name, histogram) {
                    Some(value) => self.large(histogram.step, value, time),
                    None => Ok(()),
                }
            }
            EventKind::JobResumed { step, .. } => self.resume(*step, time),
            EventKind::JobRetried { reason, .. } => {
                self.retry_reason = Some(reason.clone());
                Ok(())
            }
            EventKind::JobFailed { reason } => self.text("job/failed", reason, time),
            // A job without steps, a table's, has no settings and is not compared.
            EventKind::JobFinished { .. } if self.last_step.is_some() => {
                let step = self.last_step.unwrap_or(0);
                self.value(step, summary::session_end(time), time)
            }
            _ => Ok(()),
        }
    }

    /// The settings, to be read and to be compared by, and how folds are laid over each other. At step 0, which no resume
    /// takes back; told again by each attempt, what is compared is the same.
    fn begin(&mut self, settings: &BTreeMap<String, Setting>, time: f64) -> Result<(), Error> {
        let mut table = "| setting | value |\n|---|---|\n".to_owned();
        for (name, setting) in settings {
            let value = match setting {
                Setting::Flag(flag) => flag.to_string(),
                Setting::Number(number) => number.to_string(),
                Setting::Text(text) => text.replace('|', "\\|"),
            };
            table.push_str(&format!("| {name} | {value} |\n"));
        }
        self.value(0, summary::text("job/settings", &table), time)?;
        let batch = match settings.get("batch") {
            Some(Setting::Number(batch)) => Some(*batch as u64),
            _ => None,
        };
        self.by_samples.begin(batch);
        let compared = settings.iter();
        let compared = compared.filter(|(name, _)| !NOT_COMPARED.contains(&name.as_str()));
        let start = summary::session_start(compared, &without_fold(&self.job), time);
        self.value(0, start, time)?;
        self.value(0, summary::layout(FOLDS, &CHARTS), time)
    }

    fn step(&mut self, record: &StepRecord, time: f64) -> Result<(), Error> {
        let step = record.step;
        // Either the first of a training that goes on from nothing; or a new attempt that began at the start, without a
        // checkpoint.
        let is_first = self.last_step.is_none();
        if self.last_step.is_none_or(|last| step <= last) {
            self.restart(step, time)?;
        }
        self.last_step = Some(step);
        self.allowance.total_steps(record.total_steps);

        let values = curves::of_update(record, self.world_size);
        self.file
            .write(time, |writer| writer.scalars(step, time, values))?;
        self.by_samples.step(record, time)?;
        if is_first {
            // An earlier launch's, with settings that readers would keep.
            self.file.remove_others();
            self.by_samples.remove_others();
        }
        Ok(())
    }

    /// At the newest update, as often as it comes: what the GPU does between two updates is worth seeing, too. A job that has
    /// none has no axis for it.
    fn gpu(&mut self, rank: usize, gpu: &GpuUse, time: f64) -> Result<(), Error> {
        let Some(step) = self.last_step else {
            return Ok(());
        };
        let values = curves::of_gpu(rank, gpu);
        self.file
            .write(time, |writer| writer.scalars(step, time, values))
    }

    fn evaluated(
        &mut self,
        step: u64,
        set: &str,
        metrics: &BTreeMap<String, f64>,
        time: f64,
    ) -> Result<(), Error> {
        // Of a job without updates, which begins anew whenever it is done again.
        let is_first = self.last_step.is_none();
        if is_first {
            self.restart(step, time)?;
        }
        let tagged = metrics.iter();
        let tagged = tagged.map(|(name, value)| (under("eval", set, name), *value));
        let mut values: Vec<(String, f64)> = tagged.collect();
        self.by_samples.evaluated(step, &values, time)?;
        values.retain(|(tag, _)| self.standing.lacks(step, tag));
        self.file
            .write(time, |writer| writer.scalars(step, time, values))?;
        self.flushed_at = f64::NEG_INFINITY;
        if is_first {
            self.file.remove_others();
        }
        Ok(())
    }

    fn scores(&mut self, scores: &Scores, time: f64) -> Result<(), Error> {
        let tag = under("precision_recall", &scores.set, &scores.name);
        match summary::pr_curve(&tag, scores) {
            Some(value) if self.standing.lacks(scores.step, &value.tag) => {
                self.value(scores.step, value, time)
            }
            _ => Ok(()),
        }
    }

    fn picture(&mut self, shown: &Picture, time: f64) -> Result<(), Error> {
        match picture::read(&self.run_dir, &shown.path) {
            Ok(png) => {
                let value = summary::image(&shown.name, png, &shown.caption);
                self.large(shown.step, value, time)
            }
            Err(_) if std::mem::replace(&mut self.picture_missed, true) => Ok(()),
            Err(source) => Err(Error::Picture {
                path: self.run_dir.join(&shown.path),
                source,
            }),
        }
    }

    /// A picture or a histogram, as far as there is room for it.
    fn large(&mut self, step: u64, value: SummaryValue, time: f64) -> Result<(), Error> {
        if !self.standing.lacks(step, &value.tag) {
            return Ok(());
        }
        match self.allowance.takes(&self.job, step, value.encoded_len())? {
            true => self.value(step, value, time),
            false => Ok(()),
        }
    }

    /// The job goes on from a checkpoint that was written before the evaluation of that step, or after it.
    fn resume(&mut self, step: u64, time: f64) -> Result<(), Error> {
        self.restart(step.saturating_add(1), time)?;
        self.standing = self.file.standing(step)?;
        self.allowance.resume(self.standing.shown_bytes);
        self.by_samples.resume(step)
    }

    fn restart(&mut self, first_step: u64, time: f64) -> Result<(), Error> {
        self.file
            .write(time, |writer| writer.restart(first_step, time))?;
        self.by_samples.restart();
        self.standing = Standing::default();
        self.last_step = first_step.checked_sub(1);
        match self.retry_reason.take() {
            Some(reason) => self.text("job/retried", &reason, time),
            None => Ok(()),
        }
    }

    fn text(&mut self, tag: &str, text: &str, time: f64) -> Result<(), Error> {
        let step = self.last_step.unwrap_or(0);
        self.value(step, summary::text(tag, text), time)
    }

    fn value(&mut self, step: u64, value: SummaryValue, time: f64) -> Result<(), Error> {
        self.file
            .write(time, |writer| writer.value(step, value, time))
    }

    /// Hands what is buffered to the operating system.
    pub fn flush(&mut self) -> Result<(), Error> {
        let flushed = self.flush_files();
        self.told_once(flushed)
    }

    fn flush_files(&mut self) -> Result<(), Error> {
        let flushed = self.file.flush();
        let other = self.by_samples.flush();
        flushed.and(other)
    }
}

/// `<kind>/<set>/<name>`, without a set that has no name.
fn under(kind: &str, set: &str, name: &str) -> String {
    match set {
        "" => format!("{kind}/{name}"),
        set => format!("{kind}/{set}/{name}"),
    }
}

/// A job's name without its fold: the folds of one model are repetitions of one another.
fn without_fold(job: &str) -> String {
    let is_fold = |part: &&str| {
        let fold = part.strip_prefix("fold");
        fold.is_some_and(|fold| fold == "all" || fold.parse::<u64>().is_ok())
    };
    let parts: Vec<&str> = job.split('-').filter(|part| !is_fold(part)).collect();
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folds_of_a_model_are_one_group() {
        for fold in ["fold0", "fold12", "foldall"] {
            let job = format!("stage2-resnest50d-{fold}-seed3");
            assert_eq!(without_fold(&job), "stage2-resnest50d-seed3");
        }
        assert_eq!(without_fold("unfold-folder-fold"), "unfold-folder-fold");
    }
}
