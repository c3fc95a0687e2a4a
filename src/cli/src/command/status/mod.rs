//! `spinectl status`: where a run is.

mod text;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::{exit, metrics, output};

/// Show where a run is: its jobs, what each rank does, what went wrong
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  spinectl status runs/rsna2022
  spinectl status runs/rsna2022 --watch
  spinectl status runs/rsna2022 --json | jq '.jobs[] | select(.state == \"running\") | .ranks'

--watch fills the terminal and is redrawn; Ctrl-C ends it, not the run. Where stdout is no terminal, it prints again and
again. It ends by itself when nothing runs there any more.

Exit codes:
  0  shown
  2  there is no run in that directory")]
pub struct Arguments {
    run_dir: PathBuf,

    /// Show it anew every so many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = seconds)]
    watch: Option<Duration>,

    /// Print it as JSON; with --watch, an object a line
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "expected seconds".to_owned())?;
    match (0.1..=3600.0).contains(&number) {
        true => Ok(Duration::from_secs_f64(number)),
        false => Err("expected 0.1 to 3600 seconds".to_owned()),
    }
}

pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let Arguments { run_dir, json, .. } = arguments;
    if let Some(every) = arguments.watch {
        return watch::run(run_dir, every, *json);
    }
    let status = launcher::status(run_dir)?;
    if *json {
        output::print_json(&status)?;
        return Ok(exit::DONE);
    }
    output::print(&text::of(&status))?;
    if let Some(metrics) = metrics::of_run(run_dir)? {
        output::print(&format!("\n{metrics}"))?;
    }
    Ok(exit::DONE)
}
