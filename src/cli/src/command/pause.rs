//! `spinectl pause`: a job stops at a checkpoint and waits, while the others go on.

use std::time::Duration;

use clap::Args;
use launcher::Hold;

use super::stop::seconds;
use crate::holds::{self, Jobs};

/// Stop jobs at a checkpoint and keep them from being started; the others go on
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  spinectl pause runs/rsna2022 stage2-resnest50d-fold3-seed0
  spinectl resume runs/rsna2022 stage2-resnest50d-fold3-seed0

One that runs finishes its step, saves and ends, and its GPUs go to other jobs. It holds for later launches too, until
`spinectl resume`; what needs the job waits with it. A launch that has nothing else to run ends with 1.

Exit codes:
  0  none of them runs, and none will be started
  1  one has not stopped within --wait; it was asked, and will be paused
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
    holds::hold(&arguments.jobs, Hold::Paused, arguments.wait)
}
