//! `summary.json`: a run's out-of-fold metrics, each beside its baseline.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::Value;

use crate::table::{self, Column};
use crate::units;

/// A metric beside its baseline.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// `<stage>.<metric>`
    pub name: String,
    pub value: f64,
    pub baseline: Option<f64>,
}

/// The metrics of a run as a table; none where it has no summary yet.
pub fn of_run(run_dir: &Path) -> anyhow::Result<Option<String>> {
    Ok(rows_of_run(run_dir)?.map(|rows| rendered(&rows)))
}

/// The metrics of a run; none where it has no summary yet.
pub fn rows_of_run(run_dir: &Path) -> anyhow::Result<Option<Vec<Row>>> {
    let path = run_dir.join("summary.json");
    let broken =
        |reason: String| anyhow::anyhow!("cannot read the metrics in {}: {reason}", path.display());
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|error| broken(error.to_string()))?,
    };
    let summary: Value = serde_json::from_str(&text).map_err(|error| broken(error.to_string()))?;
    Ok(Some(rows(&summary)))
}

/// One row a metric, in the order of their names.
fn rows(summary: &Value) -> Vec<Row> {
    let mut values = BTreeMap::new();
    flatten("", summary, &mut values);
    let metrics = values.iter().filter(|(name, _)| !is_baseline(name));
    let rows = metrics.map(|(name, value)| {
        let baseline = values
            .iter()
            .find(|(candidate, _)| is_baseline_of(candidate, name));
        Row {
            name: name.clone(),
            value: *value,
            baseline: baseline.map(|(_, value)| *value),
        }
    });
    rows.collect()
}

fn rendered(rows: &[Row]) -> String {
    let mut table = table::new(&[
        Column::Text("metric (out of fold)"),
        Column::Number("value"),
        Column::Number("baseline"),
    ]);
    for row in rows {
        table.add_row([
            row.name.clone(),
            units::metric(row.value),
            table::or_dash(row.baseline.map(units::metric)),
        ]);
    }
    table.trim_fmt()
}

/// Numbers by their dotted path: `stage3.competition_loss`.
fn flatten(path: &str, value: &Value, into: &mut BTreeMap<String, f64>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                let inner = match path {
                    "" => key.clone(),
                    path => format!("{path}.{key}"),
                };
                flatten(&inner, value, into);
            }
        }
        Value::Number(number) => {
            into.extend(number.as_f64().map(|number| (path.to_owned(), number)));
        }
        _ => {}
    }
}

/// Stage and name of a metric.
fn parts(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

fn is_baseline(path: &str) -> bool {
    parts(path).1.starts_with("baseline_")
}

/// `stage3.baseline_loss` is the baseline of `stage3.competition_loss`: of the metric of the same
/// stage whose name ends like it.
fn is_baseline_of(candidate: &str, metric: &str) -> bool {
    let ((stage, name), (metric_stage, metric_name)) = (parts(candidate), parts(metric));
    name.strip_prefix("baseline_").is_some_and(|core| {
        stage == metric_stage && (metric_name == core || metric_name.ends_with(&format!("_{core}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_stands_beside_its_own_baseline() {
        let summary = serde_json::json!({
            "stage1b": {"ratio_mae": 0.05, "baseline_ratio_mae": 0.25},
            "stage3": {"competition_loss": 0.41, "baseline_loss": 0.58, "auc_overall": 0.93, "note": "text"},
        });
        let rows: Vec<Vec<String>> = rendered(&super::rows(&summary))
            .lines()
            .skip(2)
            .map(|line| line.split_whitespace().map(str::to_owned).collect())
            .collect();
        assert_eq!(
            rows,
            [
                ["stage1b.ratio_mae", "0.05000", "0.2500"],
                ["stage3.auc_overall", "0.9300", "-"],
                ["stage3.competition_loss", "0.4100", "0.5800"],
            ]
        );
    }
}
