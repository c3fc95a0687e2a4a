//! `spinectl data`: data sets, a file a command.

mod cache;
mod check;
mod export;
mod folds;
mod progress;
mod synth;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum Command {
    Synth(synth::Arguments),
    Check(check::Arguments),
    Folds(folds::Arguments),
    /// Fill, check, measure and empty the cache of decoded studies
    #[command(subcommand)]
    Cache(cache::Command),
    Export(export::Arguments),
}

pub fn run(command: &Command) -> anyhow::Result<u8> {
    match command {
        Command::Synth(arguments) => synth::run(arguments),
        Command::Check(arguments) => check::run(arguments),
        Command::Folds(arguments) => folds::run(arguments),
        Command::Cache(command) => cache::run(command),
        Command::Export(arguments) => export::run(arguments),
    }
}

/// Runs `work` on a pool of so many threads; on the one that is there, with a thread a core, where no number is given.
fn with_jobs<T: Send>(jobs: Option<u16>, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
    let Some(jobs) = jobs else {
        return Ok(work());
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(jobs.into())
        .build();
    let pool = pool.map_err(|error| anyhow::anyhow!("cannot start {jobs} threads: {error}"))?;
    Ok(pool.install(work))
}
