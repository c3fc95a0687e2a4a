//! What a run's tables hold, as far as its jobs are done.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use data::StudyUid;
use data::csv_table::read_table;
use data::data_set::DataSet;
use data::leakage::{OutOfFold, Split, read_out_of_fold};
use data::stage_tables::{SliceScores, SliceTargets};
use data::tables::{Prediction, SliceLabels, StudyBox, StudyLabels, StudyPrediction};
use metrics::LABELS;
use plan::{Fold, JobId, JobKind, JobSpec, Plan};

use crate::exit::{self, fault};
use crate::leakage;

const VERTEBRAE: usize = data::tables::VERTEBRAE;

/// predictions.csv holds what these tables come to, but for the rounding of a sum in another order.
const ROUNDING: f64 = 1e-9;

/// The tables of a run, held against each other.
pub struct RunTables {
    pub plan: Plan,
    pub labels: BTreeMap<StudyUid, StudyLabels>,
    pub split: Split,
    /// Slices of segmented studies, head first.
    pub targets: BTreeMap<StudyUid, Vec<SliceTargets>>,
    pub boxes: Vec<StudyBox>,
    /// Slices of every study, head first.
    pub slices: BTreeMap<StudyUid, Vec<Slice>>,
    /// Mean probabilities over the models that did not see the study.
    pub studies: BTreeMap<StudyUid, [f64; LABELS]>,
    /// What is not there yet.
    pub missing: Vec<String>,
    /// What could not be held against the folds.
    pub unchecked: Vec<String>,
}

/// What stages 1b and 2 say of a slice.
pub struct Slice {
    pub number: u32,
    pub ratio: [f64; VERTEBRAE],
    /// What stage 2 learns: ratio x label.
    pub target: [f64; VERTEBRAE],
    /// What stage 2 predicts; none where its models are not done.
    pub fracture: Option<[f64; VERTEBRAE]>,
}

/// Reads the run; `data` replaces the place of the data set that the recipe names.
///
/// # Errors
/// Damaged tables by file, line and column; leaks by study and table.
pub fn read(run_dir: &Path, data: Option<&Path>) -> anyhow::Result<RunTables> {
    let done = leakage::done(run_dir)?;
    let plan = plan::read(&run_dir.join("plan.json"))?;
    leakage::of_plan(&plan)?;
    let mut run = Reader {
        run_dir,
        done,
        missing: Vec::new(),
    };
    if !leakage::is_done(&run.done, "labels") {
        return Err(fault(
            exit::WRONG_USE,
            format!(
                "{} has no split yet, as its job labels is not done: nothing can be evaluated; launch it to go on",
                run_dir.display()
            ),
        ));
    }
    let train = DataSet::new(data.unwrap_or(&plan.data.root)).labels();
    if !train.is_file() {
        return Err(fault(
            exit::BAD_DATA,
            format!(
                "there is no {}, which holds the truth: write --data DIR with the data set's folder",
                train.display()
            ),
        ));
    }
    let split = leakage::read_split(&run.table("folds"))?;
    let rows = read_table::<StudyLabels>(&train)?;
    leakage::of_run(run_dir, &plan, &run.done, &rows, &split)?;
    let unchecked = leakage::without_ledger(run_dir, &plan, &run.done);
    let unchecked = unchecked.into_iter().map(|job| {
        format!(
            "{job} has no ledger.jsonl: whether it was trained on studies that it predicts is not known (runs of earlier \
             versions have none)"
        )
    });
    let unchecked: Vec<String> = unchecked.collect();
    let labels: BTreeMap<StudyUid, StudyLabels> = rows
        .into_iter()
        .filter(|row| split.contains_key(&row.study))
        .map(|row| (row.study.clone(), row))
        .collect();
    if let Some(study) = split.keys().find(|study| !labels.contains_key(*study)) {
        return Err(fault(
            exit::BAD_DATA,
            format!(
                "study {study} of {} is not in {}: this is not the data set that the run was made with; write --data DIR",
                run.table("folds").display(),
                train.display()
            ),
        ));
    }
    let mut targets: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for row in read_table::<SliceTargets>(&run.table("slice_targets"))? {
        targets.entry(row.study.clone()).or_default().push(row);
    }
    let boxes = run.merged::<StudyBox>("study-boxes", "study_boxes", &plan, &split)?;
    let slices = run.slices(&plan, &split)?;
    let studies = run.studies(&plan, &split)?;
    Ok(RunTables {
        labels,
        split,
        targets,
        boxes,
        slices,
        studies,
        missing: run.missing,
        unchecked,
        plan,
    })
}

struct Reader<'a> {
    run_dir: &'a Path,
    done: BTreeSet<JobId>,
    missing: Vec<String>,
}

impl Reader<'_> {
    fn table(&self, name: &str) -> std::path::PathBuf {
        self.run_dir.join("tables").join(format!("{name}.csv"))
    }

    /// A merged table; no rows, and a word in `missing`, where its job is not done.
    fn merged<R: OutOfFold>(
        &mut self,
        job: &str,
        table: &str,
        plan: &Plan,
        split: &Split,
    ) -> anyhow::Result<Vec<R>> {
        if plan.job(job).is_none() {
            return Ok(Vec::new());
        }
        if !leakage::is_done(&self.done, job) {
            self.missing
                .push(format!("tables/{table}.csv: job {job} is not done"));
            return Ok(Vec::new());
        }
        Ok(read_out_of_fold(&self.table(table), None, split)?)
    }

    /// The done jobs of a stage that hold a fold out; the others that do go to `missing`.
    fn models<'p>(&mut self, plan: &'p Plan, stage: &str) -> Vec<(&'p JobSpec, u64)> {
        let of_stage = plan.jobs.iter().filter_map(|job| match &job.kind {
            JobKind::Train {
                stage: own, fold, ..
            } if own.name() == stage => Some((job, *fold)),
            _ => None,
        });
        let of_stage: Vec<(&JobSpec, Fold)> = of_stage.collect();
        let held_out = |(job, fold): &(&'p JobSpec, Fold)| Some((*job, fold.held_out()?));
        let (done, open): (Vec<_>, Vec<_>) = of_stage
            .iter()
            .filter_map(held_out)
            .partition(|(job, _)| self.done.contains(&job.id));
        if done.is_empty() && open.is_empty() && !of_stage.is_empty() {
            self.missing.push(format!(
                "{stage}: its models are trained on every study (`folds: [all]`), and none can be judged by studies that it did \
                 not see: launch with --folds 0,1,... for models that hold a fold out"
            ));
        }
        if !open.is_empty() {
            let names: Vec<&str> = open.iter().map(|(job, _)| job.id.as_str()).collect();
            self.missing.push(format!(
                "{stage}: {} of {} models are not done: {}",
                open.len(),
                open.len() + done.len(),
                names.join(", ")
            ));
        }
        done
    }

    fn out_of_fold<R: OutOfFold>(
        &self,
        job: &JobSpec,
        fold: u64,
        split: &Split,
    ) -> anyhow::Result<Vec<R>> {
        let folder = self.run_dir.join("jobs").join(job.id.as_str());
        let path = folder.join("out_of_fold.csv");
        Ok(read_out_of_fold(&path, Some(fold), split)?)
    }

    fn slices(
        &mut self,
        plan: &Plan,
        split: &Split,
    ) -> anyhow::Result<BTreeMap<StudyUid, Vec<Slice>>> {
        let mut slices: BTreeMap<StudyUid, Vec<Slice>> = BTreeMap::new();
        for row in self.merged::<SliceLabels>("slice-labels", "slice_labels", plan, split)? {
            slices.entry(row.study).or_default().push(Slice {
                number: row.slice_number,
                ratio: row.ratio.map(f64::from),
                target: row.fracture.map(f64::from),
                fracture: None,
            });
        }
        let mut sums: BTreeMap<StudyUid, BTreeMap<u32, ([f64; VERTEBRAE], f64)>> = BTreeMap::new();
        for (job, fold) in self.models(plan, "stage2") {
            for row in self.out_of_fold::<SliceScores>(job, fold, split)? {
                let of_study = sums.entry(row.study).or_default();
                let (sum, count) = of_study.entry(row.slice_number).or_default();
                sum.iter_mut()
                    .zip(row.scores)
                    .for_each(|(sum, score)| *sum += f64::from(score));
                *count += 1.0;
            }
        }
        for (study, slices) in &mut slices {
            let Some(of_study) = sums.get(study) else {
                continue;
            };
            for slice in slices {
                let found = of_study.get(&slice.number);
                slice.fracture = found.map(|(sum, count)| sum.map(|sum| sum / count));
            }
        }
        Ok(slices)
    }

    fn studies(
        &mut self,
        plan: &Plan,
        split: &Split,
    ) -> anyhow::Result<BTreeMap<StudyUid, [f64; LABELS]>> {
        let mut sums: BTreeMap<StudyUid, ([f64; LABELS], f64)> = BTreeMap::new();
        for (job, fold) in self.models(plan, "stage3") {
            for row in self.out_of_fold::<StudyPrediction>(job, fold, split)? {
                let (sum, count) = sums.entry(row.study).or_default();
                sum.iter_mut()
                    .zip(row.probabilities)
                    .for_each(|(sum, p)| *sum += p);
                *count += 1.0;
            }
        }
        let means: BTreeMap<StudyUid, [f64; LABELS]> = sums
            .into_iter()
            .map(|(study, (sum, count))| (study, sum.map(|sum| sum / count)))
            .collect();
        let summary = plan.jobs.iter().find(|job| job.kind == JobKind::Summary);
        if summary.is_some_and(|job| self.done.contains(&job.id)) && !means.is_empty() {
            self.hold_predictions(&means)?;
        }
        Ok(means)
    }

    /// Holds predictions.csv, which states no model, against the tables that it was made of.
    fn hold_predictions(&self, means: &BTreeMap<StudyUid, [f64; LABELS]>) -> anyhow::Result<()> {
        let path = self.table("predictions");
        for row in read_table::<Prediction>(&path)? {
            let mean = means.get(&row.study).and_then(|mean| mean.get(row.label));
            let label = data::tables::LABELS.get(row.label).copied();
            let label = label.unwrap_or_default();
            let wrong = match mean {
                None => "no model that did not see it has predicted it".to_owned(),
                Some(mean) if (mean - row.fractured).abs() > ROUNDING => format!(
                    "it is {}, and the mean over the models that did not see it is {mean}",
                    row.fractured
                ),
                Some(_) => continue,
            };
            return Err(fault(
                exit::BAD_DATA,
                format!(
                    "{}: study {}, {label}: {wrong}: the table was changed, or is of other models; delete it and its job's \
                     folder, or launch into another run directory",
                    path.display(),
                    row.study
                ),
            ));
        }
        Ok(())
    }
}

/// The segmented truth of a study: the box around all its slices' boxes, and its first and last slice with one.
pub fn segmented(rows: &[SliceTargets]) -> Option<([f64; 4], (u32, u32))> {
    let boxes = rows.iter().filter(|row| row.has_box);
    let bounds = data::targets::union(boxes.map(|row| row.bounds.map(f64::from)))?;
    let from = rows.iter().position(|row| row.has_box)?;
    let to = rows.iter().rposition(|row| row.has_box)?;
    Some((bounds, (u32::try_from(from).ok()?, u32::try_from(to).ok()?)))
}
