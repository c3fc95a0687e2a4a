//! `spinectl evaluate`: how good a run is on what its models did not see.

mod html;
mod text;

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use data::DataError;
use metrics::Bootstrap;

use crate::{evaluation, exit, output};

/// Evaluate a run's models on the studies that they did not see, and write a report
#[derive(Debug, Args)]
#[command(after_help = "\
Computes from the run's tables, out of fold and fold by fold: the competition's loss beside that of a constant, the \
area under the ROC curve and the calibration of every label, the boxes and ratios of stage 1, each with a bootstrap \
interval over patients (over studies, where train.csv has no PatientID). Writes evaluation.json and report.html, a page \
that needs no network. A run that is not finished is evaluated as far as it is.

Refuses (exit code 4) a run that leaks between folds, and says where.

Examples:
  spinectl evaluate runs/rsna2022
  spinectl evaluate runs/rsna2022 --data /data/rsna-2022 --out report --json")]
pub struct Arguments {
    /// The --run-dir of a launch
    run_dir: PathBuf,

    /// Where to write evaluation.json and report.html [default: RUN_DIR/evaluation]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// The data set's folder, where it is not where the recipe says
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Draws of the bootstrap; 0: no intervals
    #[arg(long, value_name = "N", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    resamples: u32,

    /// Of the bootstrap's draws
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Print evaluation.json too
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let tables = evaluation::read(&arguments.run_dir, arguments.data.as_deref())?;
    let bootstrap = Bootstrap {
        resamples: arguments.resamples as usize,
        seed: arguments.seed,
        level: 0.95,
    };
    let evaluation = evaluation::evaluate(&tables, bootstrap);
    let default = || arguments.run_dir.join("evaluation");
    let out = arguments.out.clone().unwrap_or_else(default);
    std::fs::create_dir_all(&out).map_err(DataError::io("create", &out))?;
    let (json, report) = (out.join("evaluation.json"), out.join("report.html"));
    data::atomic_file::replace(&json, |file| {
        serde_json::to_writer_pretty(&mut *file, &evaluation)?;
        file.write_all(b"\n")
    })?;
    let page = html::page(&evaluation, &tables);
    data::atomic_file::replace(&report, |file| file.write_all(page.as_bytes()))?;
    match arguments.json {
        true => output::print_json(&evaluation)?,
        false => output::print(&text::of(&evaluation, &report))?,
    }
    Ok(exit::DONE)
}
