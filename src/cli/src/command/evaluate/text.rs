//! An evaluation in words, for the terminal.

use std::path::Path;

use metrics::Interval;

use crate::evaluation::{Evaluation, Metric};
use crate::table::{self, Column};
use crate::units;

/// The tables, what is missing or could not be checked, and where the report is.
pub fn of(evaluation: &Evaluation, report: &Path) -> String {
    let mut text = String::new();
    if !evaluation.stages.is_empty() {
        text.push_str(&metrics_table(evaluation));
        text.push_str("\n\n");
    }
    if !evaluation.labels.is_empty() {
        text.push_str(&labels_table(evaluation));
        text.push_str("\n\n");
    }
    for missing in &evaluation.missing {
        text.push_str(&format!("missing: {missing}\n"));
    }
    for unchecked in &evaluation.unchecked {
        text.push_str(&format!("not checked for leaks: {unchecked}\n"));
    }
    text.push_str(&format!("report: {}", report.display()));
    text
}

fn metrics_table(evaluation: &Evaluation) -> String {
    let mut table = table::new(&[
        Column::Text("metric (out of fold)"),
        Column::Number("studies"),
        Column::Number("value"),
        Column::Number("95 % interval"),
        Column::Number("baseline"),
        Column::Text("by fold"),
    ]);
    for (name, stage) in &evaluation.stages {
        for (metric, overall) in &stage.overall {
            let folds: Vec<String> = stage
                .folds
                .values()
                .map(|fold| value(fold.metrics.get(metric)))
                .collect();
            table.add_row([
                format!("{name}.{metric}"),
                stage.studies.to_string(),
                value(Some(overall)),
                interval(overall.interval),
                table::or_dash(overall.baseline.map(units::metric)),
                folds.join(" "),
            ]);
        }
    }
    table.trim_fmt()
}

fn labels_table(evaluation: &Evaluation) -> String {
    let mut table = table::new(&[
        Column::Text("label"),
        Column::Number("fractured"),
        Column::Number("AUC"),
        Column::Number("95 % interval"),
        Column::Number("log loss"),
        Column::Number("baseline"),
        Column::Number("Brier"),
        Column::Number("calibration error"),
        Column::Number("sensitivity at 90 % specificity"),
    ]);
    for label in &evaluation.labels {
        let of = |name: &str| label.metrics.get(name);
        table.add_row([
            label.name.to_owned(),
            format!(
                "{} of {}",
                label.positives,
                label.positives + label.negatives
            ),
            value(of("auc")),
            interval(of("auc").and_then(|auc| auc.interval)),
            value(of("log_loss")),
            table::or_dash(
                of("log_loss")
                    .and_then(|loss| loss.baseline)
                    .map(units::metric),
            ),
            value(of("brier")),
            value(of("calibration_error")),
            value(of("sensitivity_at_90_specificity")),
        ]);
    }
    table.trim_fmt()
}

/// A metric's value, or a dash.
pub fn value(metric: Option<&Metric>) -> String {
    table::or_dash(metric.and_then(|metric| metric.value).map(units::metric))
}

/// `0.41 to 0.47`, or a dash.
pub fn interval(interval: Option<Interval>) -> String {
    table::or_dash(interval.map(|held| {
        format!(
            "{} to {}",
            units::metric(held.low),
            units::metric(held.high)
        )
    }))
}
