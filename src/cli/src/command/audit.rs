//! `spinectl audit`: whether a run's records prove what its models were trained on.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use checkpoint::State;
use clap::Args;
use data::ledger::{self, Audit, Chain, Expected, Mark};
use launcher::JobStatus;
use plan::{JobSpec, JobState, Plan, Training};
use serde::Serialize;

use crate::table::{self, Column};
use crate::{exit, output};

/// Faults of one job that are printed; the rest are counted.
const SHOWN: usize = 12;

/// Prove from a run's ledgers which samples went into every update
#[derive(Debug, Args)]
#[command(after_help = "\
Holds each training job's ledger.jsonl against its chain of hashes, the order of samples that the \
seed gives, and the checkpoints: whatever was killed and resumed, on however many ranks, every \
sample was trained on once an epoch, save those of a last batch that is not full.

Exit codes: 0 all that was trained is proved; 1 something is wrong, and is named.

Examples:
  spinectl audit runs/rsna2022
  spinectl audit runs/rsna2022 stage2-resnest50d-foldall-seed0 --json")]
pub struct Arguments {
    /// The --run-dir of a launch
    run_dir: PathBuf,

    /// Only this training job
    job: Option<String>,

    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// A job and what its ledger proves.
#[derive(Serialize)]
pub struct Row {
    pub job: String,
    state: JobState,
    ledger: PathBuf,
    /// None where the job has not trained anything yet.
    pub audit: Option<Audit>,
    /// A ledger or checkpoint that cannot be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<String>,
}

impl Row {
    pub fn faults(&self) -> Vec<String> {
        let found = self.audit.iter().flat_map(|audit| &audit.faults);
        let found = found.map(|fault| fault.to_string());
        self.unreadable.iter().cloned().chain(found).collect()
    }
}

pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let plan = plan::read(&arguments.run_dir.join("plan.json"))?;
    let rows = of_run(&arguments.run_dir, &plan, arguments.job.as_deref())?;
    if rows.is_empty() {
        let jobs = plan.jobs.iter().filter(|job| job.kind.is_training());
        let names: Vec<&str> = jobs.map(|job| job.id.as_str()).collect();
        return Err(exit::wrong_use(format!(
            "there is no such training job in {}; it has: {}",
            arguments.run_dir.display(),
            names.join(", ")
        )));
    }
    match arguments.json {
        true => output::print_json(&rows)?,
        false => output::print(&text(&rows))?,
    }
    let wrong = rows.iter().any(|row| !row.faults().is_empty());
    Ok(if wrong { exit::FAILED } else { exit::DONE })
}

/// What is proved of a run's training jobs, or of this one alone.
pub fn of_run(run_dir: &Path, plan: &Plan, job: Option<&str>) -> anyhow::Result<Vec<Row>> {
    let status = launcher::status(run_dir)?;
    let chosen = |spec: &&JobSpec| job.is_none_or(|name| spec.id.as_str() == name);
    let trained = plan.jobs.iter().filter(chosen);
    let trained = trained.filter_map(|job| Some((job, job.kind.training()?)));
    let rows = trained.filter_map(|(job, training)| {
        let status = status.jobs.iter().find(|status| status.id == job.id)?;
        Some(row(run_dir, job, training, status))
    });
    Ok(rows.collect())
}

fn row(run_dir: &Path, job: &JobSpec, training: &Training, status: &JobStatus) -> Row {
    let folder = run_dir.join("jobs").join(job.id.as_str());
    let ledger = folder.join("ledger.jsonl");
    let (marks, mut unreadable) = marks(&folder.join("checkpoints"), &job.hash);
    let expected = Expected {
        job: job.hash.clone(),
        batch: training.batch as usize,
        epochs: training.epochs,
        finished: status.state == JobState::Succeeded,
    };
    let audit = match Chain::read(&ledger) {
        Ok(chain)
            if chain.lines.is_empty()
                && chain.breaks.is_empty()
                && !has_trained(status, &marks) =>
        {
            None
        }
        Ok(chain) => Some(ledger::audit(&chain, &expected, &marks)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !has_trained(status, &marks) => {
            None
        }
        Err(error) => {
            unreadable.push(format!("cannot read {}: {error}", ledger.display()));
            None
        }
    };
    Row {
        job: job.id.to_string(),
        state: status.state,
        ledger,
        audit,
        unreadable,
    }
}

/// Whether something must have been recorded.
fn has_trained(status: &JobStatus, marks: &[Mark]) -> bool {
    status.state == JobState::Succeeded || !marks.is_empty()
}

/// The job's checkpoints with the ledger's hash that each holds; and those that cannot be read, in words.
fn marks(checkpoints: &Path, plan_hash: &str) -> (Vec<Mark>, Vec<String>) {
    let (mut marks, mut unreadable) = (Vec::new(), Vec::new());
    let entries = match checkpoint::list(checkpoints) {
        Ok(entries) => entries,
        Err(error) => return (marks, vec![error.to_string()]),
    };
    for entry in entries {
        match entry.state {
            // Another plan's: it is no part of this job.
            State::Complete(manifest) if manifest.plan_hash != plan_hash => {}
            State::Complete(_) => match checkpoint::read_trainer(&entry.path) {
                Ok(trainer) => marks.push(Mark {
                    step: entry.step,
                    ledger: trainer["ledger"].as_str().map(str::to_owned),
                }),
                // A run that is at work may have taken it away since.
                Err(_) if !entry.path.exists() => {}
                Err(error) => unreadable.push(error.to_string()),
            },
            State::Damaged(fault) => {
                unreadable.push(format!("{}: {fault}", entry.path.display()));
            }
        }
    }
    (marks, unreadable)
}

fn text(rows: &[Row]) -> String {
    let mut table = table::new(&[
        Column::Text("job"),
        Column::Text("state"),
        Column::Number("proved"),
        Column::Number("epochs"),
        Column::Text("ranks"),
        Column::Number("redone"),
        Column::Number("left out"),
        Column::Number("checkpoints"),
        Column::Text("verdict"),
    ]);
    for row in rows {
        let audit = row.audit.as_ref();
        let ranks = audit.map(|audit| {
            let sizes: Vec<String> = audit.world_sizes.iter().map(usize::to_string).collect();
            sizes.join(",")
        });
        table.add_row([
            row.job.clone(),
            row.state.to_string(),
            table::or_dash(audit.map(|audit| format!("{}/{}", audit.proved, audit.total))),
            table::or_dash(audit.map(|audit| audit.epochs)),
            table::or_dash(ranks),
            table::or_dash(audit.map(|audit| audit.voided)),
            table::or_dash(audit.map(|audit| audit.dropped)),
            table::or_dash(audit.map(|audit| audit.bound)),
            verdict(row),
        ]);
    }
    let mut text = format!("{}\n", table.trim_fmt());
    for row in rows {
        let faults = row.faults();
        if faults.is_empty() {
            continue;
        }
        let _ = write!(text, "\n{} ({}):\n", row.job, row.ledger.display());
        for fault in faults.iter().take(SHOWN) {
            let _ = writeln!(text, "  {fault}");
        }
        if let Some(more) = faults.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            let _ = writeln!(text, "  and {more} more");
        }
    }
    text.push_str(&format!("\n{}\n", conclusion(rows)));
    text
}

fn verdict(row: &Row) -> String {
    match (row.faults().len(), &row.audit) {
        (0, None) => "not begun".into(),
        (0, Some(audit)) if audit.proved == audit.total => "proved".into(),
        (0, Some(_)) => "proved so far".into(),
        (1, _) => "1 fault".into(),
        (n, _) => format!("{n} faults"),
    }
}

/// All jobs in one sentence.
fn conclusion(rows: &[Row]) -> String {
    let wrong = rows.iter().filter(|row| !row.faults().is_empty()).count();
    let audits = || rows.iter().filter_map(|row| row.audit.as_ref());
    let updates: u64 = audits().map(|audit| audit.proved).sum();
    let whole = audits().filter(|audit| audit.proved == audit.total).count();
    match wrong {
        0 if whole == rows.len() => format!(
            "proved: all {updates} updates of {} jobs were made of the samples that the plan gives them, each once an epoch",
            rows.len()
        ),
        0 => format!(
            "proved so far: {updates} updates; {whole} of {} jobs are proved to their end, the others are not finished",
            rows.len()
        ),
        _ => format!("NOT proved: {wrong} of {} jobs have faults", rows.len()),
    }
}
