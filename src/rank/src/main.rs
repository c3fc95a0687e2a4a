//! `spinectl-rank`: one rank of one job, started by spinectl (or by srun, torchrun or a pod).

mod arguments;
mod environment;
mod failure;
mod job;
mod predict;
mod reporter;
mod signals;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};
use environment::Environment;
use reporter::Reporter;

/// Stopped on request with a checkpoint.
const STOPPED: u8 = 75;
/// Wrong use: arguments or environment.
const WRONG_USE: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let environment = match Environment::read() {
        Ok(environment) => environment,
        Err(error) => {
            eprintln!("spinectl-rank: {error:#}");
            return ExitCode::from(WRONG_USE);
        }
    };
    let reporter = match &arguments.command {
        Command::Job(job) => {
            // A prediction has no state to save: it ends at once.
            signals::listen();
            Reporter::new(&environment, Some((&job.job, job.attempt)))
        }
        Command::Predict(_) => Reporter::new(&environment, None),
    };
    let ended = failure::guarded(|| match &arguments.command {
        Command::Job(job) => job::run(job, &environment, &reporter),
        Command::Predict(request) => predict::run(request, &reporter),
    });
    match ended {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Stopped) => ExitCode::from(STOPPED),
        Err(mut report) => {
            let (phase, step) = reporter.place();
            (report.phase, report.step) = (Some(phase), Some(step));
            eprintln!("spinectl-rank: {}", report.message);
            let code = report.class.exit_code();
            if let Command::Job(job) = &arguments.command {
                failure::write(job, environment.rank, &report);
            }
            reporter.send(event::EventKind::RankFailed(report));
            ExitCode::from(code as u8)
        }
    }
}

/// How a rank ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Stopped,
}
