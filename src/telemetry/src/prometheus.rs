//! What [`Measures`] hold, in Prometheus' text format, and the endpoint on loopback from which it is scraped.

use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::measures::{BOUNDS, Kind, Labels, Measures, Value};

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// For a request's head; a scraper sends it at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes a port of the loopback interface; 0 takes a free one.
pub(crate) fn listen(port: u16) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Answers scrapes for as long as the runtime lives.
pub(crate) async fn serve(
    listener: TcpListener,
    measures: Arc<Mutex<Measures>>,
    resource: Vec<(String, String)>,
) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    let resource = Arc::new(resource);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // No descriptors left: later ones may be free again.
            tokio::time::sleep(PATIENCE).await;
            continue;
        };
        let (measures, resource) = (measures.clone(), resource.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let response = answer(&request, &measures, &resource);
            async move { response }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .serve_connection(TokioIo::new(stream), service);
        // Whoever asked may go away at any time.
        tokio::spawn(async move { drop(connection.await) });
    }
}

fn answer(
    request: &Request<Incoming>,
    measures: &Mutex<Measures>,
    resource: &[(String, String)],
) -> Result<Response<Full<Bytes>>, hyper::http::Error> {
    let response = Response::builder();
    let (response, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            let snapshot = measures
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .clone();
            let body = render(&snapshot, resource);
            (response.header(CONTENT_TYPE, TEXT), body)
        }
        (&Method::GET | &Method::HEAD, _) => (
            response.status(StatusCode::NOT_FOUND),
            "the metrics are at /metrics\n".to_owned(),
        ),
        _ => (
            response
                .status(StatusCode::METHOD_NOT_ALLOWED)
                .header(ALLOW, "GET, HEAD"),
            String::new(),
        ),
    };
    response.body(Full::new(Bytes::from(body)))
}

/// All series in the text format, version 0.0.4, by OpenTelemetry's rules for names in Prometheus.
pub(crate) fn render(measures: &Measures, resource: &[(String, String)]) -> String {
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
    let labels: Vec<String> = labels
        .map(|(key, value)| {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"");
            format!("{}=\"{}\"", word(key), value.replace('\n', "\\n"))
        })
        .collect();
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
        let resource = [("service.name".to_owned(), "a\nb".to_owned())];
        let text = render(&measures, &resource);
        for line in [
            "# TYPE target_info gauge",
            "target_info{service_name=\"a\\nb\"} 1",
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
