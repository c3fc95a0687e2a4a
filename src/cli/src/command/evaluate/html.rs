//! The report of `spinectl evaluate`: one page with its numbers and pictures.

mod curves;

use std::fmt::Write as _;

use data::tables::LABELS;
use metrics::Bin;

use super::text::{interval, value};
use crate::chart::{self, Axis, Chart, Line};
use crate::evaluation::{Evaluation, Label, RunTables};
use crate::page::{self, escaped};
use crate::{table, units};

/// Studies in the table of the worst.
const WORST: usize = 20;

const STYLE: &str = "\
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 66rem; padding: 0 1rem; color: var(--ink); background: var(--paper) }
h2 { margin-top: 2.2rem } table { border-collapse: collapse } caption { text-align: left; color: var(--faint); padding-bottom: .3rem } .wide { overflow-x: auto }
th, td { padding: .2rem .7rem .2rem 0; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap } th:first-child, td:first-child { text-align: left }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 1rem } figure { margin: 0 0 1.2rem } figcaption { color: var(--faint) } figcaption, code, li, h1, h3 { overflow-wrap: anywhere }
.note { border-left: 4px solid #d68910; padding-left: .8rem }";

/// The page.
pub fn page(evaluation: &Evaluation, tables: &RunTables) -> String {
    let style = format!("{}\n{STYLE}", chart::STYLE);
    let parts = [
        intro(evaluation),
        overall(evaluation),
        folds(evaluation),
        labels(evaluation),
        roc(evaluation),
        calibration(evaluation),
        curves::section(evaluation, tables),
        worst(evaluation),
    ];
    page::page(
        &format!("Evaluation of {}", evaluation.run),
        &style,
        &parts.concat(),
    )
}

fn intro(evaluation: &Evaluation) -> String {
    let bootstrap = &evaluation.bootstrap;
    let mut text = format!(
        "<p>Every number is out of fold: a study is judged by models that were not trained on it. Intervals hold {} % of {} \
         bootstrap draws of {} (seed {}). A baseline is what a constant reaches that knows the other folds&#39; mean. Plan \
         <code>{}</code>.</p>\n",
        bootstrap.level * 100.0,
        bootstrap.resamples,
        evaluation.drawn,
        bootstrap.seed,
        escaped(&evaluation.plan_hash)
    );
    for (about, lines) in [
        ("This run is not finished:", &evaluation.missing),
        (
            "Not checked for leaks between folds:",
            &evaluation.unchecked,
        ),
    ] {
        if !lines.is_empty() {
            let items = lines
                .iter()
                .map(|line| format!("<li>{}</li>\n", escaped(line)));
            let items: String = items.collect();
            let _ = write!(
                text,
                "<div class=\"note\"><p>{about}</p>\n<ul>\n{items}</ul></div>\n"
            );
        }
    }
    text
}

/// A table; cells are markup already.
fn html_table(caption: &str, head: &[String], rows: &[Vec<String>]) -> String {
    let heads: String = head
        .iter()
        .map(|cell| format!("<th scope=\"col\">{cell}</th>"))
        .collect();
    let mut body = String::new();
    for row in rows {
        let cells: String = row.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        let _ = writeln!(body, "<tr>{cells}</tr>");
    }
    format!(
        "<div class=\"wide\"><table>\n<caption>{}</caption>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}</tbody>\n\
         </table></div>\n",
        escaped(caption)
    )
}

fn heads(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| escaped(name)).collect()
}

fn overall(evaluation: &Evaluation) -> String {
    let mut rows = Vec::new();
    for (name, stage) in &evaluation.stages {
        for (metric, found) in &stage.overall {
            rows.push(vec![
                escaped(&format!("{name}.{metric}")),
                stage.studies.to_string(),
                value(Some(found)),
                interval(found.interval),
                table::or_dash(found.baseline.map(units::metric)),
            ]);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let head = heads(&["metric", "studies", "value", "interval", "baseline"]);
    format!(
        "<h2>Overall</h2>\n{}",
        html_table("All folds together", &head, &rows)
    )
}

fn folds(evaluation: &Evaluation) -> String {
    let mut rows = Vec::new();
    for (name, stage) in &evaluation.stages {
        for (number, fold) in &stage.folds {
            for (metric, found) in &fold.metrics {
                rows.push(vec![
                    escaped(&format!("{name}.{metric}")),
                    number.to_string(),
                    fold.studies.to_string(),
                    value(Some(found)),
                    interval(found.interval),
                    table::or_dash(found.baseline.map(units::metric)),
                ]);
            }
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    rows.sort_by(|a, b| a[0].cmp(&b[0]));
    let head = heads(&["metric", "fold", "studies", "value", "interval", "baseline"]);
    format!(
        "<h2>Fold by fold</h2>\n{}",
        html_table("Each fold by the models that hold it out", &head, &rows)
    )
}

fn labels(evaluation: &Evaluation) -> String {
    if evaluation.labels.is_empty() {
        return String::new();
    }
    let row = |label: &Label| {
        let of = |name: &str| label.metrics.get(name);
        vec![
            escaped(label.name),
            format!("{} / {}", label.positives, label.negatives),
            value(of("auc")),
            interval(of("auc").and_then(|auc| auc.interval)),
            value(of("log_loss")),
            value(of("brier")),
            value(of("calibration_error")),
            value(of("sensitivity_at_90_specificity")),
        ]
    };
    let rows: Vec<Vec<String>> = evaluation.labels.iter().map(row).collect();
    let head = heads(&[
        "label",
        "fractured / not",
        "AUC",
        "interval",
        "log loss",
        "Brier",
        "calibration error",
        "sensitivity at 90 % specificity",
    ]);
    format!(
        "<h2>Label by label</h2>\n{}",
        html_table("Stage 3, mean over models", &head, &rows)
    )
}

fn figure(svg: &str, caption: &str) -> String {
    format!(
        "<figure>{svg}<figcaption>{}</figcaption></figure>\n",
        escaped(caption)
    )
}

fn diagonal() -> Line {
    Line {
        class: "ideal".into(),
        points: vec![(0.0, 0.0), (1.0, 1.0)],
        name: None,
        marked: false,
    }
}

fn roc(evaluation: &Evaluation) -> String {
    let mut figures = String::new();
    for (number, label) in evaluation.labels.iter().enumerate() {
        if label.roc.is_empty() {
            continue;
        }
        let auc = label.metrics.get("auc");
        let area = value(auc);
        let held = interval(auc.and_then(|auc| auc.interval));
        let points = label.roc.iter();
        let line = Line {
            class: "c1".into(),
            points: points
                .map(|point| (point.false_positive_rate, point.true_positive_rate))
                .collect(),
            name: None,
            marked: false,
        };
        let chart = Chart {
            title: format!("ROC curve of {}", label.name),
            description: format!(
                "True positive rate over false positive rate; the area below the curve is {area}, interval {held}."
            ),
            size: (250.0, 230.0),
            x: Axis::share("1 - specificity"),
            y: Axis::share("sensitivity"),
            lines: vec![diagonal(), line],
        };
        let caption = format!("{}: AUC {area} ({held})", label.name);
        figures.push_str(&figure(&chart.svg(&format!("roc{number}")), &caption));
    }
    if figures.is_empty() {
        return String::new();
    }
    format!("<h2>ROC</h2>\n<div class=\"grid\">\n{figures}</div>\n")
}

fn calibration(evaluation: &Evaluation) -> String {
    let Some(overall) = evaluation.labels.first() else {
        return String::new();
    };
    let both = [
        ("patient_overall", &overall.bins),
        ("C1 to C7 together", &evaluation.vertebra_bins),
    ];
    let figures: String = both
        .into_iter()
        .enumerate()
        .map(|(number, (name, bins))| calibration_chart(number, name, bins))
        .collect();
    format!("<h2>Calibration</h2>\n<div class=\"grid\">\n{figures}</div>\n")
}

fn calibration_chart(number: usize, name: &str, bins: &[Bin]) -> String {
    let told: Vec<String> = bins
        .iter()
        .map(|bin| {
            format!(
                "{:.2} predicted, {:.2} observed in {}",
                bin.predicted, bin.observed, bin.count
            )
        })
        .collect();
    let points = bins.iter().map(|bin| (bin.predicted, bin.observed));
    let line = Line {
        class: "c1".into(),
        points: points.collect(),
        name: None,
        marked: true,
    };
    let chart = Chart {
        title: format!("Calibration of {name}"),
        description: told.join("; "),
        size: (250.0, 230.0),
        x: Axis::share("predicted"),
        y: Axis::share("observed"),
        lines: vec![diagonal(), line],
    };
    let total: usize = bins.iter().map(|bin| bin.count).sum();
    let caption = format!("{name}: {total} predictions in bins of a tenth");
    figure(&chart.svg(&format!("cal{number}")), &caption)
}

fn worst(evaluation: &Evaluation) -> String {
    if evaluation.studies.is_empty() {
        return String::new();
    }
    let mut head = heads(&["study", "fold", "loss"]);
    head.extend(heads(&LABELS));
    let rows: Vec<Vec<String>> = evaluation
        .studies
        .iter()
        .take(WORST)
        .map(|study| {
            let mut row = vec![
                escaped(study.study.as_str()),
                study.fold.to_string(),
                units::metric(study.loss),
            ];
            let cells = study.probabilities.iter().zip(study.truth);
            row.extend(cells.map(|(p, truth)| match truth {
                0 => format!("{p:.3}"),
                _ => format!("<b>{p:.3} (fractured)</b>"),
            }));
            row
        })
        .collect();
    format!(
        "<h2>Worst studies</h2>\n{}",
        html_table("By loss; what is fractured is marked", &head, &rows)
    )
}

#[cfg(test)]
mod tests;
