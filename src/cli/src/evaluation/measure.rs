//! From a run's tables to its metrics.

use std::collections::BTreeMap;

use data::StudyUid;
use data::tables::{LABELS, StudyLabels, VERTEBRAE};
use metrics::{
    Bootstrap, Quantity, bins, brier, estimates, expected_calibration_error,
    intersection_over_union, log_loss, means_of_other_folds, range_error, roc, sensitivity_at,
    study_loss,
};

use super::tables::{RunTables, segmented};
use super::{Evaluation, Fold, Label, Metric, Stage, Study};

/// Bins of a calibration curve.
const BINS: usize = 10;

/// Where sensitivity is read off the curve.
const SPECIFICITY: f64 = 0.9;

/// Evaluates every stage that there are tables of.
pub fn evaluate(tables: &RunTables, bootstrap: Bootstrap) -> Evaluation {
    let mut stages = BTreeMap::new();
    stages.extend(boxes(tables, &bootstrap).map(|stage| ("stage1a", stage)));
    stages.extend(ratios(tables, &bootstrap).map(|stage| ("stage1b", stage)));
    stages.extend(fractures(tables, &bootstrap).map(|stage| ("stage2", stage)));
    let studies = studies(tables);
    stages.extend(losses(tables, &studies, &bootstrap).map(|stage| ("stage3", stage)));
    let named = tables.labels.values().any(|row| row.patient.is_some());
    let vertebrae: Vec<(f64, bool)> = studies
        .iter()
        .flat_map(|study| study.probabilities.into_iter().zip(study.truth).skip(1))
        .map(|(p, truth)| (p, truth > 0))
        .collect();
    Evaluation {
        run: tables.plan.name.clone(),
        plan_hash: tables.plan.hash.clone(),
        bootstrap,
        drawn: if named { "patients" } else { "studies" },
        missing: tables.missing.clone(),
        unchecked: tables.unchecked.clone(),
        stages,
        labels: labels(tables, &studies, &bootstrap),
        vertebra_bins: bins(&vertebrae, BINS),
        studies,
    }
}

/// Metrics over the same studies, each with its baseline where there is one.
struct Rows<'a> {
    studies: Vec<&'a StudyUid>,
    quantities: Vec<(&'static str, Values, Option<Values>)>,
}

/// What a metric is made of, study by study.
enum Values {
    /// Sum and count.
    Mean(Vec<(f64, f64)>),
    Area(Vec<(f64, bool)>),
}

impl Values {
    fn mean(values: impl Iterator<Item = f64>) -> Self {
        Values::Mean(values.map(|value| (value, 1.0)).collect())
    }

    /// Of the studies at these places.
    fn of(&self, places: &[usize]) -> Quantity {
        match self {
            Values::Mean(rows) => Quantity::Mean(places.iter().map(|i| rows[*i]).collect()),
            Values::Area(rows) => {
                let rows: Vec<(f64, bool)> = places.iter().map(|i| rows[*i]).collect();
                Quantity::area(&rows)
            }
        }
    }
}

impl Rows<'_> {
    /// Out of fold and fold by fold; none of no study.
    fn stage(&self, tables: &RunTables, bootstrap: &Bootstrap) -> Option<Stage> {
        let all: Vec<usize> = (0..self.studies.len()).collect();
        let mut by_fold: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (place, study) in self.studies.iter().enumerate() {
            by_fold
                .entry(*tables.split.get(*study)?)
                .or_default()
                .push(place);
        }
        let fold = |places: Vec<usize>| Fold {
            studies: places.len(),
            metrics: self.metrics(&places, tables, bootstrap),
        };
        (!all.is_empty()).then(|| Stage {
            studies: all.len(),
            overall: self.metrics(&all, tables, bootstrap),
            folds: by_fold
                .into_iter()
                .map(|(number, places)| (number, fold(places)))
                .collect(),
        })
    }

    fn metrics(
        &self,
        places: &[usize],
        tables: &RunTables,
        bootstrap: &Bootstrap,
    ) -> BTreeMap<&'static str, Metric> {
        let once = vec![1; places.len()];
        let clusters = clusters(places.iter().map(|i| self.studies[*i]), &tables.labels);
        let made: Vec<Quantity> = self
            .quantities
            .iter()
            .map(|(_, values, _)| values.of(places))
            .collect();
        let found = estimates(&made.iter().collect::<Vec<_>>(), &clusters, bootstrap);
        let named = self.quantities.iter().zip(found);
        named
            .map(|((name, _, baseline), estimate)| {
                let baseline = baseline.as_ref();
                let metric = Metric {
                    value: estimate.value,
                    interval: estimate.interval,
                    baseline: baseline.and_then(|values| values.of(places).value(&once)),
                };
                (*name, metric)
            })
            .collect()
    }
}

/// The number of each study's patient; a study without one stands for itself.
fn clusters<'a>(
    studies: impl Iterator<Item = &'a StudyUid>,
    labels: &BTreeMap<StudyUid, StudyLabels>,
) -> Vec<usize> {
    let mut numbers: BTreeMap<(bool, &str), usize> = BTreeMap::new();
    studies
        .map(|study| {
            let patient = labels.get(study).and_then(|row| row.patient.as_deref());
            let key = (patient.is_some(), patient.unwrap_or(study.as_str()));
            let next = numbers.len();
            *numbers.entry(key).or_insert(next)
        })
        .collect()
}

/// Stage 1a beside the segmentations: boxes and slice ranges of studies.
fn boxes(tables: &RunTables, bootstrap: &Bootstrap) -> Option<Stage> {
    let found: Vec<_> = tables
        .boxes
        .iter()
        .filter_map(|row| Some((row, segmented(tables.targets.get(&row.study)?)?)))
        .collect();
    let constants = means_of_other_folds(found.iter().map(|(row, (bounds, range))| {
        let [x0, y0, x1, y1] = *bounds;
        let [from, to] = [range.0, range.1].map(f64::from);
        (row.fold, [x0, y0, x1, y1, from, to])
    }));
    let constant = |fold: u32| constants.get(&fold);
    let overlaps = found
        .iter()
        .map(|(row, (bounds, _))| intersection_over_union(row.bounds(), *bounds));
    let constant_overlaps = found.iter().map(|(row, (bounds, _))| {
        let mean = constant(row.fold).map(|mean| [mean[0], mean[1], mean[2], mean[3]]);
        mean.map(|mean| intersection_over_union(mean, *bounds))
    });
    let ranges = found
        .iter()
        .map(|(row, (_, range))| range_error((row.slice_from, row.slice_to), *range));
    let constant_ranges = found.iter().map(|(row, (_, range))| {
        let off = |mean: &[f64; 6]| {
            ((mean[4] - f64::from(range.0)).abs() + (mean[5] - f64::from(range.1)).abs()) / 2.0
        };
        constant(row.fold).map(off)
    });
    Rows {
        studies: found.iter().map(|(row, _)| &row.study).collect(),
        quantities: vec![
            (
                "study_box_iou",
                Values::mean(overlaps),
                whole(constant_overlaps),
            ),
            (
                "slice_range_error",
                Values::mean(ranges),
                whole(constant_ranges),
            ),
        ],
    }
    .stage(tables, bootstrap)
}

/// A baseline, where every study has one.
fn whole(values: impl Iterator<Item = Option<f64>>) -> Option<Values> {
    let values: Option<Vec<f64>> = values.collect();
    Some(Values::mean(values?.into_iter()))
}

type Scores = [f64; VERTEBRAE];

/// Stage 1b beside the segmentations: the ratio of each vertebra on each slice.
fn ratios(tables: &RunTables, bootstrap: &Bootstrap) -> Option<Stage> {
    let pairs = tables.slices.iter().filter_map(|(study, slices)| {
        let truth = tables.targets.get(study)?.iter();
        let truth: BTreeMap<u32, Scores> = truth
            .map(|row| (row.slice_number, row.ratio.map(f64::from)))
            .collect();
        let pairs = slices
            .iter()
            .filter_map(|slice| Some((slice.ratio, *truth.get(&slice.number)?)));
        Some((study, pairs.collect()))
    });
    slice_errors("ratio_mae", pairs.collect(), tables, bootstrap)
}

/// Stage 2 beside what it learnt from: the fracture of each vertebra on each slice.
fn fractures(tables: &RunTables, bootstrap: &Bootstrap) -> Option<Stage> {
    let pairs = tables.slices.iter().map(|(study, slices)| {
        let pairs = slices
            .iter()
            .filter_map(|slice| Some((slice.fracture?, slice.target)));
        (study, pairs.collect())
    });
    slice_errors("fracture_mae", pairs.collect(), tables, bootstrap)
}

/// Mean absolute error over slices and vertebrae of (predicted, true) slices.
fn slice_errors(
    name: &'static str,
    mut pairs: Vec<(&StudyUid, Vec<(Scores, Scores)>)>,
    tables: &RunTables,
    bootstrap: &Bootstrap,
) -> Option<Stage> {
    pairs.retain(|(_, slices)| !slices.is_empty());
    let fold = |study: &StudyUid| tables.split.get(study).copied();
    let truth = pairs.iter().flat_map(|(study, slices)| {
        let fold = fold(study);
        let rows = slices.iter().map(move |(_, truth)| (fold, *truth));
        rows.filter_map(|(fold, truth)| Some((fold?, truth)))
    });
    let constants = means_of_other_folds(truth);
    let error = |a: &Scores, b: &Scores| {
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>() / VERTEBRAE as f64
    };
    let errors = pairs.iter().map(|(_, slices)| {
        let sum = slices.iter().map(|(found, truth)| error(found, truth));
        (sum.sum::<f64>(), slices.len() as f64)
    });
    let constant_errors = pairs.iter().map(|(study, slices)| {
        let constant = constants.get(&fold(study)?)?;
        let sum = slices.iter().map(|(_, truth)| error(constant, truth));
        Some((sum.sum::<f64>(), slices.len() as f64))
    });
    let baseline: Option<Vec<(f64, f64)>> = constant_errors.collect();
    Rows {
        studies: pairs.iter().map(|(study, _)| *study).collect(),
        quantities: vec![(
            name,
            Values::Mean(errors.collect()),
            baseline.map(Values::Mean),
        )],
    }
    .stage(tables, bootstrap)
}

/// Every study that stage 3 has predicted, worst first.
fn studies(tables: &RunTables) -> Vec<Study> {
    let mut studies: Vec<Study> = tables
        .studies
        .iter()
        .filter_map(|(study, probabilities)| {
            let truth = tables.labels.get(study)?.all();
            Some(Study {
                study: study.clone(),
                fold: *tables.split.get(study)?,
                loss: study_loss(probabilities, &truth),
                truth,
                probabilities: *probabilities,
            })
        })
        .collect();
    studies.sort_by(|a, b| {
        b.loss
            .total_cmp(&a.loss)
            .then_with(|| a.study.cmp(&b.study))
    });
    studies
}

/// The prevalence of every label over all studies of the other folds, predicted or not.
fn prevalence(tables: &RunTables) -> BTreeMap<u32, [f64; metrics::LABELS]> {
    let rows = tables.split.iter().filter_map(|(study, fold)| {
        let row = tables.labels.get(study)?;
        Some((*fold, row.all().map(f64::from)))
    });
    means_of_other_folds(rows)
}

fn scored(studies: &[Study], label: usize) -> Vec<(f64, bool)> {
    let of_label = |study: &Study| (study.probabilities[label], study.truth[label] > 0);
    studies.iter().map(of_label).collect()
}

/// Stage 3: the competition's loss and the area of patient_overall.
fn losses(tables: &RunTables, studies: &[Study], bootstrap: &Bootstrap) -> Option<Stage> {
    let prevalence = prevalence(tables);
    let constant = studies.iter().map(|study| {
        let share = prevalence.get(&study.fold)?;
        Some(study_loss(share, &study.truth))
    });
    let overall = scored(studies, 0);
    let briers = overall.iter().map(|(p, positive)| brier(*p, *positive));
    Rows {
        studies: studies.iter().map(|study| &study.study).collect(),
        quantities: vec![
            (
                "competition_loss",
                Values::mean(studies.iter().map(|study| study.loss)),
                whole(constant),
            ),
            ("brier_overall", Values::mean(briers), None),
            ("auc_overall", Values::Area(overall.clone()), None),
        ],
    }
    .stage(tables, bootstrap)
}

/// Stage 3, label by label.
fn labels(tables: &RunTables, studies: &[Study], bootstrap: &Bootstrap) -> Vec<Label> {
    if studies.is_empty() {
        return Vec::new();
    }
    let prevalence = prevalence(tables);
    let of_label = |(label, name): (usize, &&'static str)| {
        let scored = scored(studies, label);
        let against = |of: fn(f64, bool) -> f64| {
            let own = scored.iter().map(|(p, positive)| of(*p, *positive));
            let constant = studies.iter().map(|study| {
                let share = prevalence.get(&study.fold)?[label];
                Some(of(share, study.truth[label] > 0))
            });
            (Values::mean(own), whole(constant))
        };
        let ((losses, constant_loss), (briers, constant_brier)) =
            (against(log_loss), against(brier));
        let rows = Rows {
            studies: studies.iter().map(|study| &study.study).collect(),
            quantities: vec![
                ("auc", Values::Area(scored.clone()), None),
                ("log_loss", losses, constant_loss),
                ("brier", briers, constant_brier),
            ],
        };
        let all: Vec<usize> = (0..studies.len()).collect();
        let mut metrics = rows.metrics(&all, tables, bootstrap);
        let (points, bins) = (roc(&scored), bins(&scored, BINS));
        let alone = |value| Metric {
            value,
            ..Metric::default()
        };
        metrics.insert(
            "calibration_error",
            alone(expected_calibration_error(&bins)),
        );
        metrics.insert(
            "sensitivity_at_90_specificity",
            alone(sensitivity_at(&points, SPECIFICITY)),
        );
        let positives = scored.iter().filter(|(_, positive)| *positive).count();
        Label {
            name,
            positives,
            negatives: scored.len() - positives,
            metrics,
            roc: points,
            bins,
        }
    };
    LABELS.iter().enumerate().map(of_label).collect()
}
