//! `spinectl cancel`: a job ends for good, and what needs it is skipped.

use std::time::Duration;

use clap::Args;
use launcher::Hold;

use super::stop::seconds;
use crate::holds::{self, Jobs};

/// End jobs for good and skip what needs them; the others go on
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  spinectl cancel runs/rsna2022 stage2-resnest50d-fold3-seed0
  spinectl status runs/rsna2022

One that runs finishes its step, saves and ends, so that `spinectl resume` can still take it back. It holds for later
launches too. A launch that has nothing else to run ends with 1.

Exit codes:
  0  none of them runs, and none will be started
  1  one has not stopped within --wait; it was asked, and will be cancelled
  2  there is no such run or job, or it has succeeded
  3  the run is another machine's or another user's, or its records cannot be written")]
pub struct Arguments {
    #[command(flatten)]
    jobs: Jobs,

    /// Wait for those that run so long and no longer; 0: only ask [default: as long as it takes]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    wait: Option<Duration>,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    holds::hold(&arguments.jobs, Hold::Cancelled, arguments.wait)
}
