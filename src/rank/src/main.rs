//! `spinectl-rank`: one rank of one job, started by spinectl (or by srun, torchrun or a pod).

mod arguments;
mod environment;
mod failure;
mod fault;
mod job;
mod lifeline;
mod memory;
mod model;
mod predict;
mod probe;
mod reporter;
mod rotation;
mod signals;
mod stack;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use event::FailureClass;

use arguments::{Arguments, Command, Job};
use environment::Environment;
use failure::RankError;
use reporter::Reporter;
use train::Report;

/// Stopped on request with a checkpoint.
const STOPPED: u8 = 75;
/// Wrong use: arguments or environment.
const WRONG_USE: u8 = 2;

fn main() -> ExitCode {
    memory::keep();
    match Arguments::parse().command {
        Command::Job(job) => as_rank(Some(&job), |environment, reporter| {
            job::run(&job, environment, reporter)
        }),
        Command::Predict(request) => as_rank(None, |_, reporter| predict::run(&request, reporter)),
        Command::Model { request } => without_events(|| model::run(&request)),
        Command::Probe => without_events(probe::run),
    }
}

/// With events to the launcher, and a failure report in the job's folder.
fn as_rank(
    job: Option<&Job>,
    run: impl FnOnce(&Environment, &Reporter) -> Result<Outcome, RankError>,
) -> ExitCode {
    let environment = match Environment::read() {
        Ok(environment) => environment,
        Err(error) => {
            eprintln!("spinectl-rank: {error:#}");
            return ExitCode::from(WRONG_USE);
        }
    };
    // Before the first word: whoever hears it takes the lock for held.
    if let Some(fd) = environment.lifeline_fd {
        lifeline::hold(fd);
    }
    // A prediction has no state to save: it ends at once.
    if job.is_some() {
        signals::listen();
    }
    stack::prepare();
    let reporter = Reporter::new(&environment, job.map(|job| (job.job.as_str(), job.attempt)));
    match failure::guarded(|| run(&environment, &reporter)) {
        Ok(Outcome::Done) => end(0),
        Ok(Outcome::Stopped) => end(STOPPED),
        Err(mut report) => {
            let (phase, step, sequence) = reporter.place();
            (report.phase, report.step) = (Some(phase), Some(step));
            report.sequence = Some(sequence);
            report.samples = reporter.samples();
            report.device = job.map(|job| job.device.name(environment.local_rank));
            report.message = reporter.discreet(report.message);
            eprintln!("spinectl-rank: {}", report.message);
            let code = report.class.exit_code();
            if let Some(job) = job {
                failure::write(job, environment.rank, &report);
            }
            reporter.send(event::EventKind::RankFailed(*report));
            ExitCode::from(code as u8)
        }
    }
}

/// Ends the process at once. All is written by now, and the destructors of libtorch's globals, which would run otherwise, take
/// a tenth of a second of each job.
fn end(code: u8) -> ! {
    // Under torchrun events go there, through a buffer. Nobody is left to hear that it fails.
    let _ = std::io::stdout().flush();
    // SAFETY: it takes no pointer and does not return.
    unsafe { libc::_exit(code.into()) }
}

/// Who asked reads standard output, and an error on standard error.
fn without_events(run: impl FnOnce() -> Result<(), RankError>) -> ExitCode {
    match failure::guarded(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(report) => {
            eprintln!("error: {}", report.message);
            // The files and names of the command line are what was wrong, not the machine.
            ExitCode::from(match report.class {
                FailureClass::Setup | FailureClass::Data => WRONG_USE,
                class => class.exit_code() as u8,
            })
        }
    }
}

/// How a rank ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Stopped,
}
