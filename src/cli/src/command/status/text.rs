//! A run's status in words and tables.

use launcher::{Hold, JobStatus, LastFailure, RunStatus};
use plan::JobState;

use crate::table::{self, Column};
use crate::{holds, output, units};

/// The jobs, what the ranks of the running ones do, and what went wrong.
pub fn of(status: &RunStatus) -> String {
    let mut text = format!("{}\n\n{}\n", jobs(status), summary(status));
    for job in &status.jobs {
        if !job.ranks.is_empty() {
            text.push_str(&format!("\n{}\n{}\n", pace(job), ranks(job)));
        }
    }
    for job in &status.jobs {
        text.push_str(&trouble(job));
        text.push_str(&skips(status, job));
    }
    text
}

fn jobs(status: &RunStatus) -> String {
    let mut table = table::new(&[
        Column::Text("job"),
        Column::Text("state"),
        Column::Number("attempt"),
        Column::Number("step"),
        Column::Number("loss"),
        Column::Number("checkpoint"),
        Column::Number("time"),
    ]);
    for job in &status.jobs {
        table.add_row([
            job.id.to_string(),
            state(job, status.launcher_pid.is_some()).to_owned(),
            table::or_dash((job.attempt > 0).then_some(job.attempt)),
            step(job),
            table::or_dash(job.loss.map(units::metric)),
            table::or_dash(job.checkpoint),
            units::duration(job.seconds),
        ]);
    }
    table.trim_fmt()
}

/// The state of a job, with what a user has made of it.
fn state(job: &JobStatus, is_launched: bool) -> &'static str {
    match (job.held, job.state) {
        (Some(Hold::Paused), JobState::Running) if is_launched => "pausing",
        (Some(Hold::Cancelled), JobState::Running) if is_launched => "ending",
        (Some(hold), _) => hold.as_str(),
        (None, JobState::Pending | JobState::Stopped) if job.skipped_for.is_some() => "skipped",
        (None, state) => state.as_str(),
    }
}

/// What is not run for want of a job that is cancelled.
fn skips(status: &RunStatus, job: &JobStatus) -> String {
    let skipped = holds::skipped(status, job);
    match skipped.is_empty() {
        true => String::new(),
        false => format!(
            "\n{} is cancelled; skipped, as they need it: {}\n",
            job.id,
            skipped.join(", ")
        ),
    }
}

fn summary(status: &RunStatus) -> String {
    let count = |state| status.jobs.iter().filter(|job| job.state == state).count();
    let launcher = match status.launcher_pid {
        Some(pid) => format!("process {pid} runs it"),
        None => "nothing runs it now".into(),
    };
    format!(
        "{}: {} of {} jobs done, {} failed; {launcher}; plan {:.12}",
        status.name,
        count(JobState::Succeeded),
        status.jobs.len(),
        count(JobState::Failed),
        status.plan_hash
    )
}

/// `stage2-...: step 7/90, 0.52 s/step, 120 images/s, 0:43 left`.
fn pace(job: &JobStatus) -> String {
    let mut words = Vec::new();
    if job.step.is_some() {
        words.push(format!("step {}", step(job)));
    }
    if let Some(seconds) = job.seconds_per_step {
        words.push(format!("{} s/step", units::metric(seconds)));
    }
    if let Some(images) = job.images_per_second {
        words.push(format!("{images:.0} images/s"));
    }
    if let Some(left) = job.remaining_seconds {
        words.push(format!("{} left", units::duration(left)));
    }
    match words.is_empty() {
        true => job.id.to_string(),
        false => format!("{}: {}", job.id, words.join(", ")),
    }
}

fn ranks(job: &JobStatus) -> String {
    let mut table = table::new(&[
        Column::Number("rank"),
        Column::Text("phase"),
        Column::Number("step"),
        Column::Number("last heard of"),
    ]);
    for rank in &job.ranks {
        table.add_row([
            rank.rank.to_string(),
            table::or_dash(rank.phase),
            rank.step.to_string(),
            format!("{:.0} s ago", rank.age_seconds),
        ]);
    }
    table.trim_fmt()
}

/// Why a job failed or waits for a retry; what an earlier attempt at one that runs failed with.
fn trouble(job: &JobStatus) -> String {
    match (job.state, &job.last_failure, &job.why) {
        (JobState::Succeeded, ..) => String::new(),
        (_, Some(failure), _) => format!("\n{}\n", verdict(job, failure)),
        (JobState::Failed, None, Some(why)) => format!("\n{}: {}\n", job.id, printable(why)),
        _ => String::new(),
    }
}

/// `stage2-...: attempt 1 failed (killed): rank 3, backward at step 7: ...`; the message names the rank.
fn verdict(job: &JobStatus, failure: &LastFailure) -> String {
    let mut text = format!("{}: attempt {} failed", job.id, failure.attempt);
    if let Some(class) = &failure.class {
        text.push_str(&format!(" ({})", class.replace('_', " ")));
    }
    text.push_str(&format!(": {}", printable(&failure.message)));
    if job.state == JobState::Running {
        let now = match job.attempt > failure.attempt {
            true => format!("; attempt {} is running", job.attempt),
            false => "; it will be tried again".to_owned(),
        };
        text.push_str(&now);
    }
    text
}

/// The words of a log may be part of it.
fn printable(message: &str) -> String {
    let mut text = String::new();
    for (index, line) in message.lines().enumerate() {
        if index > 0 {
            text.push_str("\n  ");
        }
        output::push_printable(&mut text, line);
    }
    text
}

fn step(job: &JobStatus) -> String {
    match (job.step, job.total_steps) {
        (Some(step), Some(total)) => format!("{step}/{total}"),
        (step, _) => table::or_dash(step),
    }
}
