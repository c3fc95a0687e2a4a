//! `spinectl checkpoint ls` and `verify`: which checkpoints there are, and whether they are whole.

use std::fs;
use std::path::{Path, PathBuf};

use checkpoint::{Entry, Retention, State};
use clap::Args;
use serde::Serialize;

use crate::table::{self, Column};
use crate::{exit, output, units};

#[derive(Debug, Args)]
pub struct Arguments {
    /// A run's directory, a job's, or one checkpoint's
    path: PathBuf,

    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// One checkpoint as both commands show it.
#[derive(Serialize)]
struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<String>,
    step: u64,
    bytes: u64,
    path: PathBuf,
    /// Why it stays though there are newer ones; absent where nothing says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<&'static str>,
    /// The file that is wrong and how; absent where nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

pub fn list(arguments: &Arguments) -> anyhow::Result<u8> {
    let rows = find(&arguments.path)?;
    show(arguments, &rows, "complete")?;
    Ok(exit::DONE)
}

pub fn verify(arguments: &Arguments) -> anyhow::Result<u8> {
    let mut rows = find(&arguments.path)?;
    if rows.is_empty() {
        return Err(exit::wrong_use(format!(
            "there is no checkpoint to verify in {}",
            arguments.path.display()
        )));
    }
    for row in &mut rows {
        row.fault = match checkpoint::verify(&row.path) {
            Ok(_) => None,
            Err(checkpoint::Error::Damaged { fault, .. }) => Some(fault.to_string()),
            Err(error) => Some(error.to_string()),
        };
    }
    show(arguments, &rows, "valid")?;
    let broken: Vec<String> = rows
        .iter()
        .filter_map(|row| Some(format!("{}: {}", row.path.display(), row.fault.as_ref()?)))
        .collect();
    if broken.is_empty() {
        return Ok(exit::DONE);
    }
    Err(exit::fault(
        exit::FAILED,
        format!(
            "{} of {} checkpoints are broken\n{}",
            broken.len(),
            rows.len(),
            broken.join("\n")
        ),
    ))
}

fn show(arguments: &Arguments, rows: &[Row], good: &str) -> anyhow::Result<()> {
    if arguments.json {
        return output::print_json(&rows);
    }
    if rows.is_empty() {
        output::say(&format!(
            "there are no checkpoints in {} yet",
            arguments.path.display()
        ));
        return Ok(());
    }
    let mut table = table::new(&[
        Column::Text("job"),
        Column::Number("step"),
        Column::Number("size"),
        Column::Text("state"),
        Column::Text("kept"),
        Column::Text("folder"),
    ]);
    for row in rows {
        table.add_row([
            table::or_dash(row.job.as_ref()),
            row.step.to_string(),
            units::bytes(row.bytes),
            row.fault.as_ref().map_or(good, |_| "broken").to_owned(),
            table::or_dash(row.kept),
            row.path.display().to_string(),
        ]);
    }
    output::print(&table.trim_fmt())
}

/// The checkpoints of a run, of a job, or the one that the path is.
fn find(path: &Path) -> anyhow::Result<Vec<Row>> {
    let jobs = path.join("jobs");
    if jobs.is_dir() {
        let mut rows = Vec::new();
        for job in job_folders(&jobs)? {
            rows.extend(of_job(&job)?);
        }
        return Ok(rows);
    }
    if path.join("checkpoints").is_dir() {
        return of_job(path);
    }
    if is_checkpoint(path) {
        // A look at the folder beside it finds its step and state.
        let absolute = fs::canonicalize(path)
            .map_err(|error| anyhow::anyhow!("cannot look at {}: {error}", path.display()))?;
        let beside = absolute.parent().unwrap_or(&absolute);
        let rows = checkpoint::list(beside)?
            .into_iter()
            .filter(|entry| entry.path == absolute)
            .map(|entry| row(None, entry, None))
            .collect();
        return Ok(rows);
    }
    let rows: Vec<Row> = checkpoint::list(path)?
        .into_iter()
        .map(|entry| row(None, entry, None))
        .collect();
    match rows.is_empty() {
        false => Ok(rows),
        true => Err(exit::wrong_use(format!(
            "{} is neither a run's directory (which holds jobs/), nor a job's (checkpoints/), nor a checkpoint's (step-...)",
            path.display()
        ))),
    }
}

pub fn is_checkpoint(path: &Path) -> bool {
    let named = path
        .file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with("step-"));
    named && path.is_dir()
}

pub fn job_folders(jobs: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let folders: Result<Vec<PathBuf>, std::io::Error> =
        fs::read_dir(jobs).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let mut folders = folders
        .map_err(|error| anyhow::anyhow!("cannot list the jobs in {}: {error}", jobs.display()))?;
    folders.retain(|folder| folder.is_dir());
    folders.sort();
    Ok(folders)
}

fn of_job(folder: &Path) -> anyhow::Result<Vec<Row>> {
    let name = folder
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let entries = checkpoint::list(&folder.join("checkpoints"))?;
    let retention = retention(folder, &entries);
    Ok(entries
        .into_iter()
        .map(|entry| {
            let kept = match retention.keep_best == Some(entry.step) {
                true => Some("best"),
                false => retention.keeps(entry.step).then_some("for good"),
            };
            row(name.clone(), entry, kept)
        })
        .collect())
}

/// What of a job's checkpoints stays: for good by the run's plan, and as the best by the newest checkpoint's word. Nothing,
/// where they do not say.
fn retention(job: &Path, entries: &[Entry]) -> Retention {
    let run = job.parent().and_then(Path::parent);
    let plan = run.and_then(|run| plan::read(&run.join("plan.json")).ok());
    let newest = entries
        .iter()
        .rev()
        .find_map(|entry| checkpoint::read_trainer(&entry.path).ok());
    Retention {
        keep_every: plan.map_or(0, |plan| plan.checkpoint.keep_every),
        keep_best: newest.and_then(|trainer| trainer.pointer("/best/step")?.as_u64()),
        ..Retention::default()
    }
}

fn row(job: Option<String>, entry: Entry, kept: Option<&'static str>) -> Row {
    Row {
        job,
        kept,
        step: entry.step,
        bytes: entry.bytes,
        path: entry.path,
        fault: match entry.state {
            State::Complete(_) => None,
            State::Damaged(fault) => Some(fault.to_string()),
        },
    }
}
