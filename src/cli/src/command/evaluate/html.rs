//! The report of `spinectl evaluate`: one page with its numbers and pictures.

use std::fmt::Write as _;

use data::StudyUid;
use data::tables::LABELS;
use metrics::Bin;

use super::text::{interval, value};
use crate::chart::{self, Axis, Chart, Line};
use crate::evaluation::{Evaluation, Label, RunTables, Slice, Study};
use crate::page::{self, escaped};
use crate::{table, units};

/// Studies in the table of the worst.
const WORST: usize = 20;
/// Fractured studies whose curves are drawn: the worst and the best ones.
const DRAWN: usize = 3;

const STYLE: &str = "\
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 66rem; padding: 0 1rem; color: var(--ink); background: var(--paper) }
h2 { margin-top: 2.2rem } table { border-collapse: collapse } caption { text-align: left; color: var(--faint); padding-bottom: .3rem } .wide { overflow-x: auto }
th, td { padding: .2rem .7rem .2rem 0; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap } th:first-child, td:first-child { text-align: left }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 1rem } figure { margin: 0 0 1.2rem } figcaption { color: var(--faint); overflow-wrap: anywhere }
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
        curves(evaluation, tables),
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

/// The curves of some fractured studies along z: the worst and the best by loss; without stage 3, the first ones.
fn curves(evaluation: &Evaluation, tables: &RunTables) -> String {
    let chosen: Vec<&StudyUid> = match evaluation.studies.is_empty() {
        false => {
            let fractured: Vec<&Study> = evaluation
                .studies
                .iter()
                .filter(|study| study.truth[0] > 0)
                .collect();
            let best = fractured
                .len()
                .saturating_sub(DRAWN)
                .max(DRAWN.min(fractured.len()));
            let worst = fractured.iter().take(DRAWN);
            let ends = worst.chain(fractured.iter().skip(best));
            ends.map(|study| &study.study).collect()
        }
        true => {
            let fractured = tables.labels.values().filter(|row| row.patient_overall > 0);
            fractured.map(|row| &row.study).take(2 * DRAWN).collect()
        }
    };
    let mut figures = String::new();
    for (number, study) in chosen.into_iter().enumerate() {
        if let (Some(slices), Some(truth)) = (tables.slices.get(study), tables.labels.get(study)) {
            let loss = evaluation.studies.iter().find(|row| row.study == *study);
            let names: Vec<String> = (1..)
                .zip(truth.vertebrae)
                .filter(|(_, label)| *label > 0)
                .map(|(v, _)| format!("C{v}"))
                .collect();
            let loss = loss.map(|row| format!(", loss {}", units::metric(row.loss)));
            let _ = writeln!(
                figures,
                "<h3>{}</h3>\n<p>Fractured: {}{}</p>\n{}",
                escaped(study.as_str()),
                escaped(&names.join(", ")),
                escaped(&loss.unwrap_or_default()),
                curves_of(number, study, slices)
            );
        }
    }
    if figures.is_empty() {
        return String::new();
    }
    format!(
        "<h2>Vertebrae along the spine</h2>\n<p>The worst and the best of the fractured studies, head first. Ratio: how \
         much of a vertebra a slice shows. Fracture: what stage 2 predicts (solid) and what it should (dashed).</p>\n{figures}"
    )
}

fn curves_of(number: usize, study: &StudyUid, slices: &[Slice]) -> String {
    let axis = || {
        let last = slices.len().saturating_sub(1);
        let ticks = (0..=4).map(|quarter| (last * quarter / 4) as f64);
        let mut ticks: Vec<f64> = ticks.collect();
        ticks.dedup();
        Axis {
            name: "slice, head first",
            from: 0.0,
            to: last as f64,
            ticks,
        }
    };
    let line = |v: usize, extra: &str, named: bool, of: &dyn Fn(&Slice) -> Option<f64>| {
        let points = slices.iter().enumerate();
        let points: Vec<(f64, f64)> = points
            .filter_map(|(place, slice)| Some((place as f64, of(slice)?)))
            .collect();
        let seen = points.iter().any(|(_, y)| *y > 0.05);
        seen.then(|| Line {
            class: format!("c{}{extra}", v + 1),
            points,
            name: named.then(|| format!("C{}", v + 1)),
            marked: false,
        })
    };
    let vertebrae = 0..data::tables::VERTEBRAE;
    let ratios = vertebrae
        .clone()
        .filter_map(|v| line(v, "", true, &|slice| Some(slice.ratio[v])));
    let predicted = vertebrae
        .clone()
        .filter_map(|v| line(v, "", true, &|slice| Some(slice.fracture?[v])));
    let truth = vertebrae.filter_map(|v| line(v, " truth", false, &|slice| Some(slice.target[v])));
    let chart = |what: &str, told: &str, name, lines: Vec<Line>| Chart {
        title: format!("{what} of study {study}"),
        description: told.to_owned(),
        size: (760.0, 210.0),
        x: axis(),
        y: Axis::share(name),
        lines,
    };
    let above = chart(
        "Vertebra ratios",
        "A curve for each vertebra that is seen, from C1 at the head to C7.",
        "ratio",
        ratios.collect(),
    );
    let below = chart(
        "Fractures",
        "Solid: predicted fracture of each vertebra; dashed: the label times the ratio.",
        "fracture",
        truth.chain(predicted).collect(),
    );
    figure(
        &above.svg(&format!("ratio{number}")),
        "Predicted ratio of each vertebra",
    ) + &figure(
        &below.svg(&format!("frac{number}")),
        "Predicted fracture (solid) and truth (dashed)",
    )
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
