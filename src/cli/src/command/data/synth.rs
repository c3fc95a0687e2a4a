//! `spinectl data synth`: makes a phantom data set.

use std::path::PathBuf;

use clap::Args;
use data::phantom::{SynthOptions, synthesize};

use super::progress::Progress;
use crate::{exit, output, units};

/// Make a phantom data set in Kaggle's layout: synthetic neck CTs, some of them fractured
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  spinectl data synth --out phantom --studies 48 --slices 64 --size 128 --seed 1

Equal options give equal bytes. Interrupted, the same command completes the data set.")]
pub struct Arguments {
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

pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
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
