//! `spinectl checkpoint`: what is done with the checkpoints of runs and jobs.

mod export;
mod list;
mod torchscript;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List checkpoints, by a look at their manifests and sizes
    #[command(
        name = "ls",
        after_help = "Example:\n  spinectl checkpoint ls runs/rsna2022"
    )]
    List(list::Arguments),
    /// Read every byte of checkpoints and compare it with their manifests; exit code 1 where one is broken
    #[command(after_help = "\
Examples:
  spinectl checkpoint verify runs/rsna2022
  spinectl checkpoint verify runs/rsna2022/jobs/stage2-resnest50d-foldall-seed0/checkpoints/step-00000100")]
    Verify(list::Arguments),
    Export(export::Arguments),
}

pub fn run(command: &Command) -> anyhow::Result<u8> {
    match command {
        Command::List(arguments) => list::list(arguments),
        Command::Verify(arguments) => list::verify(arguments),
        Command::Export(arguments) => export::run(arguments),
    }
}
