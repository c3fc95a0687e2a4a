//! Progress on a terminal: a bar for the jobs, a bar for the current one, milestones above them.

use std::time::Duration;

use event::{EventKind, RunEvent};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::pace::Pace;
use super::text::{self, Weight};
use crate::units;

/// The current job before it has told how much there is to do, and after.
const WAITING: &str = "{prefix:.bold}\n     {spinner:.cyan} {elapsed}";
const ADVANCING: &str = "{prefix:.bold}\n     {bar:30.cyan} {pos}/{len}{msg}";

pub struct Bars {
    all: MultiProgress,
    jobs: ProgressBar,
    current: ProgressBar,
    pace: Pace,
}

impl Bars {
    pub fn new() -> Self {
        let all = MultiProgress::new();
        let jobs = all.add(ProgressBar::no_length());
        jobs.set_style(style("jobs {bar:30.green} {pos}/{len}  {elapsed}"));
        let current = all.add(ProgressBar::no_length());
        current.set_style(style(WAITING));
        // Shows that the program lives while a long step says nothing.
        jobs.enable_steady_tick(Duration::from_secs(1));
        current.enable_steady_tick(Duration::from_secs(1));
        Bars {
            all,
            jobs,
            current,
            pace: Pace::default(),
        }
    }

    pub fn show(&mut self, event: &RunEvent) {
        match &event.kind {
            EventKind::RunStarted { jobs, done, .. } => {
                self.jobs.set_length(*jobs as u64);
                self.jobs.set_position(*done as u64);
            }
            EventKind::JobStarted { .. } => self.turn_to(event),
            EventKind::JobFinished { .. } => self.jobs.inc(1),
            EventKind::Step(step) if event.rank.unwrap_or(0) == 0 => {
                self.pace.take(step);
                let left = self.pace.remaining(step).map_or_else(String::new, |left| {
                    format!("  {} left", units::duration(left))
                });
                self.advance(step.step, step.total_steps);
                self.current
                    .set_message(format!("{}{left}", text::step_numbers(step, &self.pace)));
            }
            EventKind::Progress { what, done, total } if event.rank.unwrap_or(0) == 0 => {
                self.advance(*done, *total);
                self.current.set_message(format!("  {what}"));
            }
            _ => {}
        }
        if let Some((Weight::Trouble | Weight::Milestone, text)) = text::of(event, &self.pace) {
            match &event.job {
                Some(job) => self.print(&format!("{job}: {text}")),
                None => self.print(&text),
            }
        }
    }

    fn turn_to(&mut self, event: &RunEvent) {
        self.pace = Pace::default();
        self.current.reset();
        self.current.unset_length();
        self.current.set_style(style(WAITING));
        self.current.set_message("");
        self.current
            .set_prefix(event.job.clone().unwrap_or_default());
    }

    fn advance(&self, done: u64, total: u64) {
        if self.current.length().is_none() {
            self.current.set_style(style(ADVANCING));
        }
        self.current.set_length(total);
        self.current.set_position(done);
    }

    /// A line above the bars, which stays.
    pub fn print(&self, line: &str) {
        // Nothing can be told where the terminal is gone.
        let _ = self.all.println(line);
    }

    /// Takes the bars away: what stays are the lines above them.
    pub fn end(&self) {
        self.current.finish_and_clear();
        self.jobs.finish_and_clear();
    }
}

/// The templates are constants: one that cannot be read would give the default style.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
}
