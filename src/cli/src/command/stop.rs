//! `spinectl stop`: ends the launch that is at work in a run directory, with everything saved.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use launcher::{JobStatus, RunStatus};
use plan::JobState;
use serde::Serialize;

use crate::{exit, output, run_command, units};

/// Between two looks at whether it has ended, and at what it does.
const PAUSE: Duration = Duration::from_millis(50);
const SAID_EVERY: Duration = Duration::from_secs(2);

/// Stop the launch that is at work in a run directory; it finishes its step and saves
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  spinectl stop runs/rsna2022
  spinectl stop runs/rsna2022 --wait 60 || spinectl stop runs/rsna2022 --now

It stops as at Ctrl-C: after the step, with a checkpoint. `spinectl launch` goes on from there.

Exit codes:
  0  it has stopped
  1  it has not ended within --wait; it was asked, and may end any moment
  2  nothing runs there
  3  it cannot be stopped from here: it is another machine's or another user's")]
pub struct Arguments {
    run_dir: PathBuf,

    /// End it at once: what was done since the newest checkpoint is done again later
    #[arg(long)]
    now: bool,

    /// Wait for its end so long and no longer; 0: only ask [default: as long as it takes]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    wait: Option<Duration>,

    /// Print what came of it as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "expected seconds".to_owned())?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}

/// What came of it.
#[derive(Serialize)]
struct Stopped {
    pid: u32,
    stopped: bool,
    seconds: f64,
    /// The jobs that were at work.
    jobs: Vec<Saved>,
}

/// A job and what it goes on from.
#[derive(Serialize)]
struct Saved {
    job: String,
    state: JobState,
    /// Step of its newest complete checkpoint.
    checkpoint: Option<u64>,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let run_dir = &arguments.run_dir;
    let Some(running) = launcher::running(run_dir)? else {
        return Err(exit::wrong_use(format!(
            "nothing runs in {}: there is nothing to stop",
            run_dir.display()
        )));
    };
    let at_work = names(&launcher::status(run_dir)?);
    let begun = Instant::now();
    running.ask()?;
    if arguments.now {
        running.insist()?;
    }
    output::say(&format!(
        "asked the launch (process {}) to {}",
        running.pid(),
        match arguments.now {
            true => "end at once",
            false => "finish its step, save and stop",
        }
    ));

    let mut told = String::new();
    let mut tell_at = begun + SAID_EVERY;
    let ended = loop {
        if running.has_ended() {
            break true;
        }
        if arguments.wait.is_some_and(|wait| begun.elapsed() >= wait) {
            break false;
        }
        if Instant::now() >= tell_at {
            tell_at = Instant::now() + SAID_EVERY;
            // A directory that is half gone is no reason to stop waiting.
            let waits = launcher::status(run_dir).map_or_else(|_| String::new(), |s| waits_for(&s));
            if waits != told {
                output::say(&format!("waiting for {waits}"));
                told = waits;
            }
        }
        sleep(PAUSE);
    };

    let status = launcher::status(run_dir)?;
    let result = Stopped {
        pid: running.pid(),
        stopped: ended,
        seconds: begun.elapsed().as_secs_f64(),
        jobs: saved(&status, &at_work),
    };
    if arguments.json {
        output::print_json(&result)?;
    }
    if !ended {
        let message = format!(
            "process {} has not ended within {}: it was asked, and ends once it has saved. \
             `spinectl stop {} --now` ends it at once",
            result.pid,
            units::duration(result.seconds),
            run_dir.display()
        );
        return Err(exit::fault(exit::FAILED, message));
    }
    if !arguments.json {
        output::print(&in_words(run_dir, &result))?;
    }
    Ok(exit::DONE)
}

/// The jobs that are running.
fn names(status: &RunStatus) -> Vec<String> {
    let running = |job: &&JobStatus| job.state == JobState::Running;
    let jobs = status.jobs.iter().filter(running);
    jobs.map(|job| job.id.to_string()).collect()
}

/// Those that were at work when the stop was asked for, and those that have been since.
fn saved(status: &RunStatus, at_work: &[String]) -> Vec<Saved> {
    let touched = |job: &&JobStatus| {
        let was = at_work.iter().any(|name| name == job.id.as_str());
        was || matches!(job.state, JobState::Running | JobState::Stopped)
    };
    let jobs = status.jobs.iter().filter(touched);
    jobs.map(|job| Saved {
        job: job.id.to_string(),
        state: job.state,
        checkpoint: job.checkpoint,
    })
    .collect()
}

/// `stage2-... (rank 0: forward, step 7; rank 1: data wait, step 7)`.
fn waits_for(status: &RunStatus) -> String {
    let mut jobs = Vec::new();
    for job in &status.jobs {
        if job.state != JobState::Running {
            continue;
        }
        let ranks: Vec<String> = job
            .ranks
            .iter()
            .map(|rank| {
                let phase = rank.phase.map_or("silent", |phase| phase.as_str());
                format!("rank {}: {phase}, step {}", rank.rank, rank.step)
            })
            .collect();
        jobs.push(match ranks.is_empty() {
            true => job.id.to_string(),
            false => format!("{} ({})", job.id, ranks.join("; ")),
        });
    }
    match jobs.is_empty() {
        true => "the launcher's own end".to_owned(),
        false => jobs.join(", "),
    }
}

fn in_words(run_dir: &Path, result: &Stopped) -> String {
    let mut text = String::from("stopped\n");
    for job in &result.jobs {
        let goes_on = match (job.state, job.checkpoint) {
            (JobState::Succeeded, _) => "done".to_owned(),
            (_, Some(step)) => format!("goes on from its checkpoint of step {step}"),
            (_, None) => "has no checkpoint yet: begins anew".to_owned(),
        };
        text.push_str(&format!("  {}: {goes_on}\n", job.job));
    }
    format!("{text}Go on: {}", run_command::go_on(run_dir))
}
