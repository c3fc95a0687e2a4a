//! `spinectl data`: data sets. `synth` makes a phantom one.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use data::phantom::{SynthOptions, synthesize};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{exit, output, units};

/// Between two lines of progress where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);

#[derive(Debug, Subcommand)]
pub enum Command {
    Synth(Synth),
}

/// Make a phantom data set in Kaggle's layout: synthetic neck CTs, some of them fractured
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  spinectl data synth --out phantom --studies 48 --slices 64 --size 128 --seed 1

Equal options give equal bytes. Interrupted, the same command completes the data set.")]
pub struct Synth {
    /// The data set's folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Number of studies
    #[arg(long, value_name = "N", default_value_t = SynthOptions::default().studies)]
    studies: usize,

    /// Mean number of slices of a study
    #[arg(long, value_name = "N", default_value_t = SynthOptions::default().slices)]
    slices: usize,

    /// Rows and columns of a slice
    #[arg(long, value_name = "PX", default_value_t = SynthOptions::default().size)]
    size: usize,

    /// Another seed, another data set
    #[arg(long, value_name = "S", default_value_t = SynthOptions::default().seed)]
    seed: u64,

    /// Print what was made as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(command: &Command) -> anyhow::Result<u8> {
    let Command::Synth(arguments) = command;
    synth(arguments)
}

fn synth(arguments: &Synth) -> anyhow::Result<u8> {
    let options = SynthOptions {
        out: arguments.out.clone(),
        studies: arguments.studies,
        slices: arguments.slices,
        size: arguments.size,
        seed: arguments.seed,
        ..SynthOptions::default()
    };
    let progress = Progress::new();
    let summary = synthesize(&options, &|done, total| progress.at(done, total))?;
    progress.end();
    if arguments.json {
        output::print_json(&summary)?;
        return Ok(exit::DONE);
    }
    let out = options.out.display();
    let was = match summary.already_complete {
        true => format!("{out} is complete already"),
        false => format!("made {out}"),
    };
    output::print(&format!(
        "{was}: {} of {} slices in all, {} fractured, {} segmented, {} fracture boxes",
        units::count(summary.studies, "study", "studies"),
        summary.slices,
        summary.fractured,
        summary.segmented,
        summary.boxes
    ))?;
    Ok(exit::DONE)
}

/// Studies done, on a terminal as a bar, elsewhere as a line now and then. Told from any thread.
enum Progress {
    Bar(ProgressBar),
    Lines(Mutex<Instant>),
}

impl Progress {
    fn new() -> Self {
        if !io::stderr().is_terminal() {
            return Progress::Lines(Mutex::new(Instant::now()));
        }
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("studies {bar:30.cyan} {pos}/{len}  {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Progress::Bar(bar)
    }

    fn at(&self, done: usize, total: usize) {
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

    fn end(&self) {
        if let Progress::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
