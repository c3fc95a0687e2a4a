//! The leakage gate: nothing is launched on, and nothing is concluded from, tables that leak between folds.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use data::csv_table::read_table;
use data::data_set::DataSet;
use data::leakage::{self, Leak, Split};
use data::ledger::Chain;
use data::stage_tables::Origin;
use data::tables::{StudyFold, StudyLabels};
use plan::{Fold, JobId, JobKind, JobState, Plan};

use crate::exit::{self, fault};

/// Beside a model's out-of-fold table: what it was trained on.
const LEDGER: &str = "ledger.jsonl";

/// What can be told from the plan and the data set alone: weights that cross folds, and a patient in two folds of
/// `data.split`. What is not there is said by whoever needs it.
pub fn of_plan(plan: &Plan) -> anyhow::Result<()> {
    let weights = plan::weights_across_folds(plan);
    if !weights.is_empty() {
        let lines: Vec<String> = weights.iter().map(|leak| format!("\n  {leak}")).collect();
        return Err(fault(
            exit::BAD_DATA,
            format!(
                "the plan leaks between folds:{}\nMake the plan again from its recipe: launch into another run directory",
                lines.concat()
            ),
        ));
    }
    let train = DataSet::new(&plan.data.root).labels();
    match &plan.data.split {
        Some(path) if path.is_file() && train.is_file() => {
            let split = read_split(path)?;
            let labels = read_table::<StudyLabels>(&train)?;
            Ok(leakage::refuse(leakage::of_patients(
                path, &labels, &split,
            ))?)
        }
        _ => Ok(()),
    }
}

/// [`of_plan`], and where `run_dir` holds a run: the tables of its jobs that this plan does not do again.
pub fn before_launch(plan: &Plan, run_dir: &Path) -> anyhow::Result<()> {
    of_plan(plan)?;
    let file = run_dir.join("plan.json");
    if !file.is_file() || !run_dir.join("run.db").is_file() {
        return Ok(());
    }
    let earlier = plan::read(&file)?;
    let mut done = done(run_dir)?;
    let unchanged = |id: &JobId| {
        let hash = |plan: &Plan| plan.job(id.as_str()).map(|job| job.hash.clone());
        hash(plan).is_some() && hash(plan) == hash(&earlier)
    };
    done.retain(unchanged);
    let train = DataSet::new(&plan.data.root).labels();
    let split = run_dir.join("tables/folds.csv");
    // Whose address has not changed was made in the same folds, also where the first job is done again.
    if done.is_empty() || !train.is_file() || !split.is_file() {
        return Ok(());
    }
    let labels = read_table::<StudyLabels>(&train)?;
    of_run(run_dir, plan, &done, &labels, &read_split(&split)?)
}

/// Refuses the tables of the jobs in `done` by the first kind of leak that they have, naming each.
pub fn of_run(
    run_dir: &Path,
    plan: &Plan,
    done: &BTreeSet<JobId>,
    labels: &[StudyLabels],
    split: &Split,
) -> anyhow::Result<()> {
    let folds = run_dir.join("tables/folds.csv");
    leakage::refuse(leakage::of_patients(&folds, labels, split))?;
    let mut leaks = Vec::new();
    for job in plan.jobs.iter().filter(|job| done.contains(&job.id)) {
        let table = |name: &str| run_dir.join("tables").join(name);
        let (path, fold) = match &job.kind {
            JobKind::Train { fold, .. } => {
                let folder = run_dir.join("jobs").join(job.id.as_str());
                (folder.join("out_of_fold.csv"), Some(*fold))
            }
            JobKind::StudyBoxes => (table("study_boxes.csv"), None),
            JobKind::SliceLabels => (table("slice_labels.csv"), None),
            _ => continue,
        };
        leaks.extend(of_table(&path, job.id.as_str(), fold, split)?);
    }
    Ok(leakage::refuse(leaks)?)
}

/// The leaks of one table; of a single model's also by the ledger beside it.
fn of_table(
    path: &Path,
    job: &str,
    fold: Option<Fold>,
    split: &Split,
) -> anyhow::Result<Vec<Leak>> {
    // What is not there leaks nothing; who needs it says that it is missing.
    if !path.exists() {
        return Ok(Vec::new());
    }
    let rows = read_table::<Origin>(path)?;
    if fold == Some(Fold::All) {
        let studies = rows.iter().map(|row| &row.study);
        return Ok(leakage::of_all(path, job, studies));
    }
    let held_out = fold.and_then(Fold::held_out);
    let origins = rows.iter().map(|row| (&row.study, row.fold));
    let leaks = leakage::of_rows(path, held_out, origins, split);
    if fold.is_none() || !leaks.is_empty() {
        return Ok(leaks);
    }
    let ledger = path.with_file_name(LEDGER);
    match Chain::read(&ledger) {
        Ok(chain) => Ok(leakage::of_ledger(
            path,
            job,
            rows.iter().map(|row| &row.study),
            &chain,
        )),
        // Runs of earlier versions have none: `without_ledger` names them.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(leaks),
        Err(error) => Err(data::DataError::io("read", &ledger)(error).into()),
    }
}

/// The jobs in `done` whose tables cannot be held against what they were trained on: their ledger is not there.
pub fn without_ledger<'p>(
    run_dir: &Path,
    plan: &'p Plan,
    done: &BTreeSet<JobId>,
) -> Vec<&'p JobId> {
    let trained = plan.jobs.iter().filter(|job| job.kind.is_training());
    let ids = trained.map(|job| &job.id).filter(|id| done.contains(*id));
    ids.filter(|id| {
        let folder = run_dir.join("jobs").join(id.as_str());
        folder.join("out_of_fold.csv").exists() && !folder.join(LEDGER).exists()
    })
    .collect()
}

/// The jobs that have succeeded, as run.db has it.
pub fn done(run_dir: &Path) -> anyhow::Result<BTreeSet<JobId>> {
    let jobs = launcher::status(run_dir)?.jobs.into_iter();
    let done = jobs.filter(|job| job.state == JobState::Succeeded);
    Ok(done.map(|job| job.id).collect())
}

pub fn is_done(done: &BTreeSet<JobId>, job: &str) -> bool {
    done.iter().any(|id| id.as_str() == job)
}

pub fn read_split(path: &Path) -> data::Result<Split> {
    let rows = read_table::<StudyFold>(path)?.into_iter();
    Ok(rows.map(|row| (row.study, row.fold)).collect())
}
