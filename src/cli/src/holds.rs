//! What `spinectl pause`, `cancel` and `resume` have in common: a request that is on record at once, and the wait for its effect.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use launcher::{Hold, JobStatus, RunStatus};
use plan::JobState;
use serde::Serialize;

use crate::{exit, output, run_command, units};

/// Between two looks at whether the jobs have stopped.
const PAUSE: Duration = Duration::from_millis(100);

/// Which jobs of which run.
#[derive(Debug, Args)]
pub struct Jobs {
    run_dir: PathBuf,

    /// Names of jobs, as `spinectl status` shows them
    #[arg(value_name = "JOB", required = true)]
    jobs: Vec<String>,

    /// Print what came of it as JSON
    #[arg(long)]
    json: bool,
}

/// What came of it.
#[derive(Serialize)]
struct Answer {
    launcher_pid: Option<u32>,
    jobs: Vec<Job>,
}

/// A job that was asked about.
#[derive(Serialize)]
struct Job {
    job: String,
    held: Option<Hold>,
    state: JobState,
    /// Step of its newest complete checkpoint.
    checkpoint: Option<u64>,
    /// The jobs that are not run for want of it.
    skipped: Vec<String>,
}

/// Holds the jobs back and waits until none of them runs, so long and no longer.
pub fn hold(jobs: &Jobs, hold: Hold, wait: Option<Duration>) -> anyhow::Result<u8> {
    let run_dir = &jobs.run_dir;
    // Refuses a launch elsewhere: its records cannot be written from here.
    let launch = launcher::running(run_dir)?;
    launcher::hold(run_dir, &jobs.jobs, Some(hold))?;
    let begun = Instant::now();
    let mut told = false;
    loop {
        let status = launcher::status(run_dir)?;
        let at_work = meant(jobs, &status).filter(|job| job.state == JobState::Running);
        let at_work: Vec<&str> = at_work.map(|job| job.id.as_str()).collect();
        // A launch that has ended has left nothing at work, whatever the records say.
        let launch = launch.as_ref().filter(|launch| !launch.has_ended());
        let Some(launch) = launch.filter(|_| !at_work.is_empty()) else {
            tell(jobs, &status)?;
            return Ok(exit::DONE);
        };
        let at_work = at_work.join(", ");
        if !std::mem::replace(&mut told, true) {
            let pid = launch.pid();
            output::say(&format!(
                "asked the launch (process {pid}) to save and stop {at_work}"
            ));
        }
        if wait.is_some_and(|wait| begun.elapsed() >= wait) {
            if jobs.json {
                output::print_json(&answer(jobs, &status))?;
            }
            let seconds = units::duration(begun.elapsed().as_secs_f64());
            let message = format!(
                "{at_work} has not stopped within {seconds}: it was asked, will be {hold}, and stops once it has saved"
            );
            return Err(exit::fault(exit::FAILED, message));
        }
        sleep(PAUSE);
    }
}

/// Lets the jobs go on.
pub fn release(jobs: &Jobs) -> anyhow::Result<u8> {
    launcher::running(&jobs.run_dir)?;
    launcher::hold(&jobs.run_dir, &jobs.jobs, None)?;
    tell(jobs, &launcher::status(&jobs.run_dir)?)?;
    Ok(exit::DONE)
}

/// Where the jobs are that were asked about.
fn meant<'s>(jobs: &'s Jobs, status: &'s RunStatus) -> impl Iterator<Item = &'s JobStatus> {
    let is_meant = move |job: &&JobStatus| jobs.jobs.iter().any(|name| name == job.id.as_str());
    status.jobs.iter().filter(is_meant)
}

fn answer(jobs: &Jobs, status: &RunStatus) -> Answer {
    let of = |job: &JobStatus| Job {
        job: job.id.to_string(),
        held: job.held,
        state: job.state,
        checkpoint: job.checkpoint,
        skipped: skipped(status, job),
    };
    Answer {
        launcher_pid: status.launcher_pid,
        jobs: meant(jobs, status).map(of).collect(),
    }
}

/// The jobs that are not run for want of this one.
pub fn skipped(status: &RunStatus, job: &JobStatus) -> Vec<String> {
    let others = status.jobs.iter();
    let skipped = others.filter(|other| other.skipped_for.as_ref() == Some(&job.id));
    skipped.map(|other| other.id.to_string()).collect()
}

fn tell(jobs: &Jobs, status: &RunStatus) -> anyhow::Result<()> {
    let answer = answer(jobs, status);
    match jobs.json {
        true => output::print_json(&answer),
        false => output::print(&in_words(&jobs.run_dir, &answer)),
    }
}

fn in_words(run_dir: &Path, answer: &Answer) -> String {
    let mut text = String::new();
    for job in &answer.jobs {
        let name = &job.job;
        let what = match (job.held, job.state) {
            (_, JobState::Succeeded) => "done before it could be held".to_owned(),
            (Some(hold), _) => format!("{hold}; {}", goes_on(job)),
            (None, JobState::Running) => "goes on".to_owned(),
            (None, _) => "may run again".to_owned(),
        };
        text.push_str(&format!("{name}: {what}\n"));
        if !job.skipped.is_empty() {
            let skipped = job.skipped.join(", ");
            text.push_str(&format!("  skipped, as they need it: {skipped}\n"));
        }
    }
    let held = answer.jobs.iter().filter(|job| job.held.is_some());
    let held: Vec<&str> = held.map(|job| job.job.as_str()).collect();
    let next = match (held.is_empty(), answer.launcher_pid) {
        (false, _) => format!("Take it back: {}", run_command::resume(run_dir, &held)),
        (true, Some(pid)) => {
            format!("the launch (process {pid}) goes on with it when its turn comes")
        }
        (true, None) => format!("Go on: {}", run_command::go_on(run_dir)),
    };
    text + &next
}

fn goes_on(job: &Job) -> String {
    match job.checkpoint {
        Some(step) => format!("it would go on from its checkpoint of step {step}"),
        None => "it has no checkpoint, and would begin anew".to_owned(),
    }
}
