//! What [`Measures`] hold, in Prometheus' text format.

mod endpoint;

use std::fmt::Write as _;

use crate::measures::{BOUNDS, Kind, Labels, Measures, Value};
pub(crate) use endpoint::{listen, serve};

/// All series in the text format, version 0.0.4. Names are made by OpenTelemetry's rules for Prometheus, but that shares are not called `_ratio`.
fn render(measures: &Measures, resource: &[(String, String)]) -> String {
    let mut text = String::new();
    let target = resource
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()));
    head(
        &mut text,
        "target_info",
        "gauge",
        "What these metrics are of",
    );
    line(&mut text, "target_info", target, 1.0);
    let mut last = None;
    for ((instrument, labels), value) in &measures.series {
        let name = name_of(instrument.name, instrument.unit, instrument.kind);
        if last != Some(instrument) {
            let kind = match instrument.kind {
                Kind::Counter => "counter",
                // What may fall is a gauge here.
                Kind::Gauge | Kind::UpDownCounter => "gauge",
                Kind::Histogram => "histogram",
            };
            head(&mut text, &name, kind, instrument.description);
            last = Some(instrument);
        }
        match value {
            Value::Number(value) => line(&mut text, &name, pairs(labels), *value),
            Value::Distribution(distribution) => {
                let bucket = format!("{name}_bucket");
                let mut below = 0;
                let bounds = BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
                for (count, bound) in distribution.buckets.iter().zip(bounds) {
                    below += count;
                    let le = [("le", bound.as_str())];
                    line(&mut text, &bucket, pairs(labels).chain(le), below as f64);
                }
                let (sum, count) = (distribution.sum, distribution.count as f64);
                line(&mut text, &format!("{name}_sum"), pairs(labels), sum);
                line(&mut text, &format!("{name}_count"), pairs(labels), count);
            }
        }
    }
    text
}

fn pairs(labels: &Labels) -> impl Iterator<Item = (&str, &str)> {
    labels.iter().map(|(key, value)| (*key, value.as_str()))
}

/// `spinectl.step.duration` in `s` -> `spinectl_step_duration_seconds`; counters end with `_total`.
fn name_of(name: &str, unit: &str, kind: Kind) -> String {
    let unit = match unit {
        "s" => "_seconds",
        "By" => "_bytes",
        _ => "",
    };
    let total = match kind {
        Kind::Counter => "_total",
        Kind::Gauge | Kind::UpDownCounter | Kind::Histogram => "",
    };
    format!("{}{unit}{total}", word(name))
}

/// Prometheus' names hold letters, digits and underscores, and begin with no digit.
fn word(name: &str) -> String {
    let name: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    match name.starts_with(|c: char| c.is_ascii_digit()) {
        true => format!("_{name}"),
        false => name,
    }
}

fn head(text: &mut String, name: &str, kind: &str, description: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP {name} {description}\n# TYPE {name} {kind}");
}

fn line<'l>(
    text: &mut String,
    name: &str,
    labels: impl Iterator<Item = (&'l str, &'l str)>,
    value: f64,
) {
    // Two keys may come to one word: a label that stands twice would spoil the whole scrape.
    let mut words: Vec<(String, String)> = Vec::new();
    for (key, value) in labels {
        let key = word(key);
        match words.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = format!("{known};{value}"),
            None => words.push((key, value.to_owned())),
        }
    }
    let escaped = words.iter().map(|(key, value)| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"");
        format!("{key}=\"{}\"", value.replace('\n', "\\n"))
    });
    let labels: Vec<String> = escaped.collect();
    let value = match value {
        value if value == f64::INFINITY => "+Inf".to_owned(),
        value if value == f64::NEG_INFINITY => "-Inf".to_owned(),
        value => value.to_string(),
    };
    let _ = match labels.is_empty() {
        true => writeln!(text, "{name} {value}"),
        false => writeln!(text, "{name}{{{}}} {value}", labels.join(",")),
    };
}

#[cfg(test)]
mod tests {
    use event::{EventKind, RunEvent, StepRecord};

    use super::*;

    #[test]
    fn series_are_written_as_prometheus_reads_them() {
        let mut measures = Measures::new(1.0);
        for seconds in [0.02, 400.0] {
            measures.take(&RunEvent::job(
                "a \"b\"",
                1,
                EventKind::Step(StepRecord {
                    step: 7,
                    loss: f64::NAN,
                    samples: 3,
                    seconds,
                    host_memory: Some(4096),
                    ..StepRecord::default()
                }),
            ));
        }
        let resource = [
            ("service.name", "a\nb"),
            ("host.name", "x"),
            ("host-name", "y"),
        ];
        let resource = resource.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let text = render(&measures, &resource);
        for line in [
            "# TYPE target_info gauge",
            "target_info{service_name=\"a\\nb\",host_name=\"x;y\"} 1",
            "# TYPE spinectl_samples_total counter",
            "spinectl_samples_total{spinectl_job=\"a \\\"b\\\"\"} 6",
            "spinectl_loss{spinectl_job=\"a \\\"b\\\"\",spinectl_loss_part=\"total\"} NaN",
            "# TYPE process_memory_usage_bytes gauge",
            "process_memory_usage_bytes{spinectl_job=\"a \\\"b\\\"\",spinectl_rank=\"0\"} 4096",
            "# TYPE spinectl_step_duration_seconds histogram",
            "spinectl_step_duration_seconds_bucket{spinectl_job=\"a \\\"b\\\"\",le=\"0.025\"} 1",
            "spinectl_step_duration_seconds_bucket{spinectl_job=\"a \\\"b\\\"\",le=\"300\"} 1",
            "spinectl_step_duration_seconds_bucket{spinectl_job=\"a \\\"b\\\"\",le=\"+Inf\"} 2",
            "spinectl_step_duration_seconds_count{spinectl_job=\"a \\\"b\\\"\"} 2",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        let types = text.matches("# TYPE spinectl_steps_total ").count();
        assert_eq!(types, 1, "one head a metric");
    }
}
