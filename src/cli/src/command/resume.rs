//! `spinectl resume`: jobs that were paused or cancelled may run again.

use clap::Args;

use crate::holds::{self, Jobs};

/// Let jobs run again that were paused or cancelled
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  spinectl resume runs/rsna2022 stage2-resnest50d-fold3-seed0

A launch that is at work hears of it within half a second and goes on with the job from its newest checkpoint when its turn
comes. Where nothing runs, the next launch does.

Exit codes:
  0  they may run again
  2  there is no such run or job, or it is neither paused nor cancelled
  3  the run is another machine's or another user's, or its records cannot be written")]
pub struct Arguments {
    #[command(flatten)]
    jobs: Jobs,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    holds::release(&arguments.jobs)
}
