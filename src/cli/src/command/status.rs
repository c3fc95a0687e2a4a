//! `spinectl status`: where a run is.

use std::path::PathBuf;

use clap::Args;
use launcher::{JobStatus, RunStatus};
use plan::JobState;

use crate::table::{self, Column};
use crate::{exit, metrics, output, units};

/// Show the jobs of a run: state, step, loss, newest checkpoint
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  spinectl status runs/rsna2022")]
pub struct Arguments {
    run_dir: PathBuf,

    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let status = launcher::status(&arguments.run_dir)?;
    if arguments.json {
        output::print_json(&status)?;
        return Ok(exit::DONE);
    }
    output::print(&text(&status))?;
    if let Some(metrics) = metrics::of_run(&arguments.run_dir)? {
        output::print(&format!("\n{metrics}"))?;
    }
    Ok(exit::DONE)
}

fn text(status: &RunStatus) -> String {
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
            job.state.to_string(),
            table::or_dash((job.attempt > 0).then_some(job.attempt)),
            step(job),
            table::or_dash(job.loss.map(units::metric)),
            table::or_dash(job.checkpoint),
            units::duration(job.seconds),
        ]);
    }
    let count = |state| status.jobs.iter().filter(|job| job.state == state).count();
    let launcher = match status.launcher_pid {
        Some(pid) => format!("process {pid} runs it"),
        None => "nothing runs it now".into(),
    };
    let mut text = format!(
        "{}\n\n{}: {} of {} jobs done, {} failed; {launcher}; plan {:.12}\n",
        table.trim_fmt(),
        status.name,
        count(JobState::Succeeded),
        status.jobs.len(),
        count(JobState::Failed),
        status.plan_hash
    );
    for job in &status.jobs {
        if let (JobState::Failed, Some(why)) = (job.state, &job.why) {
            text.push_str(&format!("{}: {why}\n", job.id));
        }
    }
    text
}

fn step(job: &JobStatus) -> String {
    match (job.step, job.total_steps) {
        (Some(step), Some(total)) => format!("{step}/{total}"),
        (step, _) => table::or_dash(step),
    }
}
