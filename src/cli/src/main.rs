//! `spinectl`: arguments in, exit code out. Each command is a file in `command/`.

mod batch;
mod chart;
mod command;
mod evaluation;
mod exit;
mod forecast;
mod holds;
mod inputs;
mod leakage;
mod measured;
mod metrics;
mod output;
mod page;
mod plan_diff;
mod plan_view;
mod pretrained;
mod progress;
mod recipe_arguments;
mod report;
mod run_command;
mod summary;
mod table;
mod units;
mod verify_resume;

use std::process::ExitCode;

use clap::Parser;

use command::Command;

/// Train the RSNA 2022 cervical-spine fracture pipeline on one or many GPUs, resumable at any step.
#[derive(Debug, Parser)]
#[command(
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  spinectl data synth --out phantom --studies 48 --slices 64 --size 128 --seed 1
  spinectl plan --gpus 8
  spinectl launch --gpus 8

Exit codes:
  0   done
  1   a job failed for good, or what is left is paused or cancelled
  2   wrong use or recipe
  3   the machine is not able (no such GPU, no disk)
  4   the data is bad
  75  stopped on request with a checkpoint: launch again to go on
  130, 143  interrupted before one"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let result = Arguments::parse().command.run();
    ExitCode::from(result.unwrap_or_else(|error| exit::told(&error)))
}
