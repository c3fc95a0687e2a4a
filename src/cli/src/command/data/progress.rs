//! How far a command over studies has come.

use std::io::{self, IsTerminal};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// Between two lines of progress where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Studies done, on a terminal as a bar, elsewhere as a line now and then. Told from any thread.
pub enum Progress {
    Bar(ProgressBar),
    Lines(Mutex<Instant>),
}

impl Progress {
    pub fn new() -> Self {
        if !io::stderr().is_terminal() {
            return Progress::Lines(Mutex::new(Instant::now()));
        }
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("studies {bar:30.cyan} {pos}/{len}  {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Progress::Bar(bar)
    }

    pub fn at(&self, done: usize, total: usize) {
        match self {
            Progress::Bar(bar) => {
                bar.set_length(total as u64);
                // Threads may tell their numbers out of order.
                bar.update(|state| state.set_pos(state.pos().max(done as u64)));
            }
            Progress::Lines(last) => {
                let Ok(mut last) = last.lock() else { return };
                if last.elapsed() >= LINE_EVERY {
                    *last = Instant::now();
                    output::say(&format!("studies {done}/{total}"));
                }
            }
        }
    }

    pub fn end(&self) {
        if let Progress::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
