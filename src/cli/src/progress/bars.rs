//! Progress on a terminal: a bar for the jobs, one for each that runs, milestones above them.

use std::collections::BTreeMap;
use std::time::Duration;

use event::{EventKind, RunEvent};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::pace::Pace;
use super::text::{self, Weight};
use crate::units;

/// A job before it has told how much there is to do, and after.
const WAITING: &str = "{prefix:.bold}\n     {spinner:.cyan} {elapsed}";
const ADVANCING: &str = "{prefix:.bold}\n     {bar:30.cyan} {pos}/{len}{msg}";

pub struct Bars {
    all: MultiProgress,
    jobs: ProgressBar,
    running: BTreeMap<String, Running>,
}

struct Running {
    bar: ProgressBar,
    pace: Pace,
}

impl Bars {
    pub fn new() -> Self {
        let all = MultiProgress::new();
        let jobs = all.add(ProgressBar::no_length());
        jobs.set_style(style("jobs {bar:30.green} {pos}/{len}  {elapsed}"));
        // Shows that the program lives while a long step says nothing.
        jobs.enable_steady_tick(Duration::from_secs(1));
        Bars {
            all,
            jobs,
            running: BTreeMap::new(),
        }
    }

    pub fn show(&mut self, event: &RunEvent) {
        match &event.kind {
            EventKind::RunStarted { jobs, done, .. } => {
                self.jobs.set_length(*jobs as u64);
                self.jobs.set_position(*done as u64);
            }
            EventKind::JobStarted { .. } => self.begin(event),
            EventKind::Step(step) if event.rank.unwrap_or(0) == 0 => {
                if let Some(running) = self.of(event) {
                    running.pace.take(step);
                    let left = running.pace.remaining(step);
                    let left = left.map_or_else(String::new, |left| {
                        format!("  {} left", units::duration(left))
                    });
                    let numbers = text::step_numbers(step, &running.pace);
                    running.advance(step.step, step.total_steps, format!("{numbers}{left}"));
                }
            }
            EventKind::GpuUse(gpu) => {
                if let Some(running) = self.of(event) {
                    running.pace.take_gpu(event.rank.unwrap_or(0), gpu);
                }
            }
            EventKind::Progress { what, done, total } if event.rank.unwrap_or(0) == 0 => {
                if let Some(running) = self.of(event) {
                    running.advance(*done, *total, format!("  {what}"));
                }
            }
            _ => {}
        }
        let unknown = Pace::default();
        let pace = self.of(event).map_or(&unknown, |running| &running.pace);
        if let Some((Weight::Trouble | Weight::Milestone, text)) = text::of(event, pace) {
            match &event.job {
                Some(job) => self.print(&format!("{job}: {text}")),
                None => self.print(&text),
            }
        }
        match &event.kind {
            EventKind::JobFinished { .. } => {
                self.jobs.inc(1);
                self.leave(event);
            }
            EventKind::JobFailed { .. } | EventKind::JobStopped { .. } => self.leave(event),
            _ => {}
        }
    }

    fn of(&mut self, event: &RunEvent) -> Option<&mut Running> {
        self.running.get_mut(event.job.as_deref()?)
    }

    /// A job's bar, from its beginning, also for another attempt.
    fn begin(&mut self, event: &RunEvent) {
        self.leave(event);
        let bar = self.all.add(ProgressBar::no_length());
        bar.set_style(style(WAITING));
        bar.enable_steady_tick(Duration::from_secs(1));
        let job = event.job.clone().unwrap_or_default();
        bar.set_prefix(job.clone());
        let pace = Pace::default();
        self.running.insert(job, Running { bar, pace });
    }

    fn leave(&mut self, event: &RunEvent) {
        let job = event.job.as_deref().unwrap_or_default();
        if let Some(running) = self.running.remove(job) {
            running.bar.finish_and_clear();
            self.all.remove(&running.bar);
        }
    }

    /// A line above the bars, which stays.
    pub fn print(&self, line: &str) {
        // Nothing can be told where the terminal is gone.
        let _ = self.all.println(line);
    }

    /// Takes the bars away: what stays are the lines above them.
    pub fn end(&self) {
        for running in self.running.values() {
            running.bar.finish_and_clear();
        }
        self.jobs.finish_and_clear();
    }
}

impl Running {
    fn advance(&self, done: u64, total: u64, message: String) {
        if self.bar.length().is_none() {
            self.bar.set_style(style(ADVANCING));
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.bar.set_message(message);
    }
}

/// The templates are constants: one that cannot be read would give the default style.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
}
