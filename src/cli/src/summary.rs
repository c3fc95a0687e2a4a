//! `summary.md`: a run in one page of Markdown, written when a launch ends, however it ends.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use launcher::{JobStatus, Outcome, RunStatus};
use plan::JobState;

use crate::progress::Seen;
use crate::table::or_dash;
use crate::{metrics, run_command, units};

/// Writes it into the run directory, in place of the one of an earlier launch.
pub fn write(run_dir: &Path, outcome: &Outcome, seen: &Seen) -> anyhow::Result<()> {
    let status = launcher::status(run_dir)?;
    let mut text = of(&status, outcome);
    text.push_str(&metrics_of(run_dir, outcome)?);
    if !seen.warnings.is_empty() {
        text.push_str("\n## Warnings of the last launch\n\n");
        for warning in &seen.warnings {
            let _ = writeln!(text, "- {}", line(warning));
        }
    }
    let _ = write!(
        text,
        "\n## Where to look\n\n- curves and pictures: `{}`\n- jobs and failures: `{}`\n",
        run_command::tensorboard(run_dir),
        run_command::status(run_dir),
    );
    let path = run_dir.join("summary.md");
    data::atomic_file::replace(&path, |file| file.write_all(text.as_bytes()))?;
    Ok(())
}

/// The run's metrics. Of a run that is not done there are none: summary.json is an earlier launch's then.
fn metrics_of(run_dir: &Path, outcome: &Outcome) -> anyhow::Result<String> {
    let rows = match outcome {
        Outcome::Done => metrics::rows_of_run(run_dir)?.unwrap_or_default(),
        _ => Vec::new(),
    };
    if rows.is_empty() {
        return Ok(String::new());
    }
    let mut text =
        "\n## Metrics (out of fold)\n\n| metric | value | baseline |\n|---|---:|---:|\n".to_owned();
    for row in rows {
        let baseline = or_dash(row.baseline.map(units::metric));
        let value = units::metric(row.value);
        let _ = writeln!(text, "| {} | {value} | {baseline} |", cell(&row.name));
    }
    Ok(text)
}

fn of(status: &RunStatus, outcome: &Outcome) -> String {
    let how = match outcome {
        Outcome::Done => "done".to_owned(),
        Outcome::Failed { job, reason, .. } => format!("failed: {job}: {reason}"),
        Outcome::Lost { reason } => format!("lost: {reason}"),
        Outcome::Held { paused, cancelled } => {
            let of = |what: &str, jobs: &[String]| match jobs {
                [] => String::new(),
                jobs => format!("; {what}: {}", jobs.join(", ")),
            };
            let (paused, cancelled) = (of("paused", paused), of("cancelled", cancelled));
            format!("what is left is held back{paused}{cancelled}")
        }
        Outcome::Stopped => "stopped, with everything saved".to_owned(),
        Outcome::Interrupted { signal } => format!("interrupted by signal {signal}"),
    };
    let mut text = format!("# {}\n\n{}\n\n", line(&status.name), line(&how));
    let seconds: f64 = status.jobs.iter().map(|job| job.seconds).sum();
    let _ = write!(
        text,
        "Plan `{:.12}`, {}, {} of jobs' time in all.\n\n## Jobs\n\n\
         | job | state | attempts | steps | time | note |\n|---|---|---:|---:|---:|---|\n",
        status.plan_hash,
        units::count(status.jobs.len(), "job", "jobs"),
        units::duration(seconds),
    );
    for job in &status.jobs {
        text.push_str(&row(job));
    }
    text
}

fn row(job: &JobStatus) -> String {
    let steps = job.step.or(job.checkpoint);
    let failure = job.last_failure.as_ref().map(|failure| &failure.message);
    // Why a job stands where it does; of one that is done, why it was tried again.
    let note = match job.state {
        JobState::Succeeded => failure,
        _ => job.why.as_ref().or(failure),
    };
    format!(
        "| {} | {} | {} | {} | {} | {} |\n",
        cell(job.id.as_str()),
        job.state.as_str(),
        job.attempt,
        or_dash(steps),
        units::duration(job.seconds),
        cell(&or_dash(note)),
    )
}

/// One line, whatever it holds.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What can stand in a table.
fn cell(text: &str) -> String {
    line(text).replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_those_of_a_run_that_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let summary = r#"{"stage1b": {"ratio_mae": 0.05, "baseline_ratio_mae": 0.25}}"#;
        std::fs::write(folder.path().join("summary.json"), summary).unwrap();
        let done = metrics_of(folder.path(), &Outcome::Done).unwrap();
        assert!(
            done.contains("| stage1b.ratio_mae | 0.05000 | 0.2500 |"),
            "{done}"
        );
        // It is not done again yet, and the file is that of the launch before.
        let stopped = metrics_of(folder.path(), &Outcome::Stopped).unwrap();
        assert_eq!(stopped, "");
    }
}
