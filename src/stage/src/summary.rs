//! The end of a run: out-of-fold metrics of every stage beside the baseline that a constant would reach.

use std::collections::BTreeMap;
use std::io::Write;

use data::StudyUid;
use data::csv_table::{read_table, write_table};
use data::stage_tables::SliceScores;
use data::tables::{Prediction, SliceLabels, StudyLabels, StudyPrediction};
use data::targets::{VERTEBRAE, union};
use event::EventKind;
use metrics::{
    LABELS, area_under_roc, competition_score, intersection_over_union, mean, means_of_other_folds,
};
use serde_json::json;

use crate::Result;
use crate::context::{Cohort, Context};

/// The jobs whose out-of-fold tables are there, by stage.
#[derive(Clone, Debug, Default)]
pub struct Members {
    pub stage1a: Vec<String>,
    pub stage1b: Vec<String>,
    pub stage2: Vec<String>,
    pub stage3: Vec<String>,
}

/// Writes tables/predictions.csv (where there is a stage 3) and summary.json; returns all metrics as
/// `<stage>.<metric>`.
pub fn summarise(
    context: &Context,
    cohort: &Cohort,
    members: &Members,
) -> Result<BTreeMap<String, f64>> {
    let mut stages: BTreeMap<&str, BTreeMap<&str, f64>> = BTreeMap::new();
    if !members.stage1a.is_empty() {
        stages.insert("stage1a", study_boxes(context, cohort)?);
    }
    if !members.stage1b.is_empty() {
        stages.insert("stage1b", ratios(context, cohort)?);
    }
    if !members.stage2.is_empty() {
        stages.insert("stage2", fractures(context, cohort, &members.stage2)?);
    }
    if !members.stage3.is_empty() {
        stages.insert("stage3", studies(context, cohort, &members.stage3)?);
    }
    data::atomic_file::replace(&context.place.summary(), |file| {
        serde_json::to_writer_pretty(&mut *file, &json!(stages))?;
        file.write_all(b"\n")
    })?;
    Ok(stages
        .into_iter()
        .flat_map(|(stage, metrics)| {
            metrics
                .into_iter()
                .map(move |(name, value)| (format!("{stage}.{name}"), value))
        })
        .collect())
}

/// IoU of the study boxes with the segmentations' boxes; baseline: the other folds' mean box.
fn study_boxes(context: &Context, cohort: &Cohort) -> Result<BTreeMap<&'static str, f64>> {
    let found = context.study_boxes()?;
    let truth: BTreeMap<StudyUid, [f64; 4]> = context
        .slice_targets()?
        .into_iter()
        .filter_map(|(study, rows)| {
            let boxes = rows
                .iter()
                .filter(|row| row.has_box)
                .map(|row| row.bounds.map(f64::from));
            Some((study, union(boxes)?))
        })
        .collect();
    let with_fold = truth
        .iter()
        .filter_map(|(study, bounds)| Some((*cohort.folds.get(study)?, *bounds)));
    let constants = means_of_other_folds(with_fold);
    let (mut iou, mut baseline) = (Vec::new(), Vec::new());
    for (study, truth) in &truth {
        let (Some(row), Some(fold)) = (found.get(study), cohort.folds.get(study)) else {
            continue;
        };
        iou.push(intersection_over_union(row.bounds(), *truth));
        if let Some(constant) = constants.get(fold) {
            baseline.push(intersection_over_union(*constant, *truth));
        }
    }
    Ok(with_baseline(
        ("study_box_iou", mean(&iou)),
        "baseline_study_box_iou",
        mean(&baseline),
    ))
}

/// True scores of slices.
type Truth = BTreeMap<(StudyUid, u32), [f64; VERTEBRAE]>;

/// Error of the slice ratios on segmented studies; baseline: the other folds' mean of each vertebra.
fn ratios(context: &Context, cohort: &Cohort) -> Result<BTreeMap<&'static str, f64>> {
    let truth: Truth = context
        .slice_targets()?
        .into_values()
        .flatten()
        .map(|row| ((row.study, row.slice_number), row.ratio.map(f64::from)))
        .collect();
    let rows = read_table::<SliceLabels>(&context.place.table("slice_labels"))?.into_iter();
    let predicted = rows.map(|row| ((row.study, row.slice_number), row.ratio.map(f64::from)));
    let (error, baseline) = errors(cohort, &truth, predicted);
    Ok(with_baseline(
        ("ratio_mae", error),
        "baseline_ratio_mae",
        baseline,
    ))
}

/// Error of the slice fractures, mean over models, on the slices that have labels; baseline as for the ratios.
fn fractures(
    context: &Context,
    cohort: &Cohort,
    jobs: &[String],
) -> Result<BTreeMap<&'static str, f64>> {
    let truth: Truth = read_table::<SliceLabels>(&context.place.table("slice_labels"))?
        .into_iter()
        .map(|row| ((row.study, row.slice_number), row.fracture.map(f64::from)))
        .collect();
    let mut sums: BTreeMap<(StudyUid, u32), ([f64; VERTEBRAE], f64)> = BTreeMap::new();
    for job in jobs {
        for row in context.out_of_fold::<SliceScores>(cohort, job)? {
            let (sum, count) = sums.entry((row.study, row.slice_number)).or_default();
            sum.iter_mut()
                .zip(row.scores)
                .for_each(|(sum, score)| *sum += f64::from(score));
            *count += 1.0;
        }
    }
    let predicted = sums
        .into_iter()
        .map(|(slice, (sum, count))| (slice, sum.map(|sum| sum / count)));
    let (error, baseline) = errors(cohort, &truth, predicted);
    Ok(with_baseline(
        ("fracture_mae", error),
        "baseline_fracture_mae",
        baseline,
    ))
}

/// Mean absolute error of the slices that have truth, and that of the mean of each vertebra over the other folds'
/// slices.
fn errors(
    cohort: &Cohort,
    truth: &Truth,
    predicted: impl Iterator<Item = ((StudyUid, u32), [f64; VERTEBRAE])>,
) -> (Option<f64>, Option<f64>) {
    let with_fold = truth
        .iter()
        .filter_map(|((study, _), scores)| Some((*cohort.folds.get(study)?, *scores)));
    let constants = means_of_other_folds(with_fold);
    let absolute = |a: &[f64; VERTEBRAE], b: &[f64; VERTEBRAE]| {
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>() / VERTEBRAE as f64
    };
    let (mut error, mut baseline) = (Vec::new(), Vec::new());
    for (slice, scores) in predicted {
        let Some(truth) = truth.get(&slice) else {
            continue;
        };
        error.push(absolute(&scores, truth));
        let constant = cohort
            .folds
            .get(&slice.0)
            .and_then(|fold| constants.get(fold));
        baseline.extend(constant.map(|constant| absolute(constant, truth)));
    }
    (mean(&error), mean(&baseline))
}

/// A metric and its baseline, each where there is one.
fn with_baseline(
    (name, value): (&'static str, Option<f64>),
    baseline_name: &'static str,
    baseline: Option<f64>,
) -> BTreeMap<&'static str, f64> {
    let both = [(name, value), (baseline_name, baseline)];
    both.into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

/// The competition's loss of the mean over models; baseline: the other folds' prevalence. Writes predictions.csv.
fn studies(
    context: &Context,
    cohort: &Cohort,
    jobs: &[String],
) -> Result<BTreeMap<&'static str, f64>> {
    let mut sums: BTreeMap<StudyUid, ([f64; LABELS], f64)> = BTreeMap::new();
    for job in jobs {
        for row in context.out_of_fold::<StudyPrediction>(cohort, job)? {
            let (sum, count) = sums.entry(row.study).or_default();
            sum.iter_mut()
                .zip(row.probabilities)
                .for_each(|(sum, p)| *sum += p);
            *count += 1.0;
        }
    }
    let truth_of = |study: &StudyUid| cohort.labels.get(study).map(StudyLabels::all);
    let with_fold = cohort
        .folds
        .iter()
        .filter_map(|(study, fold)| Some((*fold, truth_of(study)?.map(f64::from))));
    let prevalence = means_of_other_folds(with_fold);
    let (mut scored, mut constant, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for (study, (sum, count)) in sums {
        let probabilities = sum.map(|sum| sum / count);
        if let Some(label) = truth_of(&study) {
            scored.push((probabilities, label));
            let share = cohort
                .folds
                .get(&study)
                .and_then(|fold| prevalence.get(fold));
            constant.extend(share.map(|share| (*share, label)));
        }
        rows.extend(prediction_rows(&study, &probabilities));
    }
    write_table(&context.place.table("predictions"), &rows)?;
    context.report.report(EventKind::TableWritten {
        table: "predictions".into(),
        rows: rows.len(),
    });
    let overall: Vec<_> = scored.iter().map(|(p, y)| (p[0], y[0] > 0)).collect();
    let score = |rows: &[_]| (!rows.is_empty()).then(|| competition_score(rows));
    let mut metrics = with_baseline(
        ("competition_loss", score(&scored)),
        "baseline_loss",
        score(&constant),
    );
    metrics.extend(area_under_roc(&overall).map(|area| ("auc_overall", area)));
    Ok(metrics)
}

/// A study's eight rows of a submission.
pub(crate) fn prediction_rows(
    study: &StudyUid,
    probabilities: &[f64; LABELS],
) -> impl Iterator<Item = Prediction> {
    let study = study.clone();
    probabilities
        .map(|p| p)
        .into_iter()
        .enumerate()
        .map(move |(label, fractured)| Prediction {
            study: study.clone(),
            label,
            fractured,
        })
}
