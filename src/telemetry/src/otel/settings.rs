//! What of the recipe and of OpenTelemetry's environment is meant. The recipe wins where it says something.

use std::time::Duration;

use hyper::Uri;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use recipe::{OtlpProtocol, Recipe};

use super::{Discretion, Signal};

/// What to send of a run, and where.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(crate) otlp: Option<Otlp>,
    /// The port on loopback that Prometheus scrapes; 0 takes a free one.
    pub(crate) metrics_port: Option<u16>,
    pub(crate) sample_steps: u64,
    /// Attributes of the resource, which all signals share.
    pub(crate) resource: Vec<(String, String)>,
    pub(crate) discretion: Discretion,
}

/// How OTLP is spoken.
#[derive(Clone, Debug)]
pub struct Otlp {
    pub traces: Option<Destination>,
    pub metrics: Option<Destination>,
    pub logs: Option<Destination>,
    /// Spans and log records that may wait to be sent.
    pub(crate) queue: usize,
    /// Of them, as many as are sent at once.
    pub(crate) batch: usize,
    /// Between two batches that are not full.
    pub(crate) delay: Duration,
    pub(crate) metric_interval: Duration,
}

/// Where one signal goes.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Complete, path included.
    pub uri: Uri,
    pub protocol: Protocol,
    pub(crate) headers: HeaderMap,
    pub(crate) timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Grpc,
    Http,
}

/// The environment, and what of it could not be used.
struct Environment<'e> {
    get: &'e dyn Fn(&str) -> Option<String>,
    complaints: Vec<String>,
}

impl Settings {
    /// Reads both; `environment` is asked for variables by name. What is wrong in the environment is told in words and left out, as
    /// OpenTelemetry wants it.
    pub fn resolve(
        recipe: &Recipe,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> (Self, Vec<String>) {
        let mut environment = Environment {
            get: environment,
            complaints: Vec::new(),
        };
        let telemetry = &recipe.telemetry;
        let is_disabled = environment
            .get("OTEL_SDK_DISABLED")
            .is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let (sample_steps, is_traced) = environment.sampling(telemetry.sample_steps);
        let otlp = match is_disabled {
            true => None,
            false => environment.otlp(telemetry.otlp.as_ref(), is_traced),
        };
        let metrics_port = telemetry.metrics_port.filter(|_| !is_disabled);
        let data = &recipe.data;
        let folders = [
            Some(&data.root),
            data.split.as_ref(),
            data.cache.dir.as_ref(),
        ];
        let settings = Settings {
            otlp,
            metrics_port: metrics_port.and_then(|port| u16::try_from(port).ok()),
            sample_steps,
            resource: environment.resource(&recipe.name),
            discretion: Discretion::new(folders.into_iter().flatten().map(|path| path.as_path())),
        };
        (settings, environment.complaints)
    }
}

impl Environment<'_> {
    /// A variable that is set to something: an empty one counts as not set.
    fn get(&self, name: &str) -> Option<String> {
        (self.get)(name)
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty())
    }

    fn complain(&mut self, name: &str, value: &str, what: &str) {
        // Headers hold keys: their values are not repeated.
        let value = match name.ends_with("HEADERS") {
            true => String::new(),
            false => format!(" `{value}`"),
        };
        let complaint = format!("{name}{value} is left out: {what}");
        // A variable for all signals is read once for each.
        if !self.complaints.contains(&complaint) {
            self.complaints.push(complaint);
        }
    }

    /// A signal's own variable, else the one for all, with its name.
    fn of_signal(&self, signal: Signal, rest: &str) -> Option<(String, String)> {
        let own = format!("OTEL_EXPORTER_OTLP_{}_{rest}", signal.variable());
        let all = format!("OTEL_EXPORTER_OTLP_{rest}");
        [own, all]
            .into_iter()
            .find_map(|name| self.get(&name).map(|value| (name, value)))
    }

    fn number(&mut self, name: &str, default: u64) -> u64 {
        let Some(value) = self.get(name) else {
            return default;
        };
        match value.parse() {
            Ok(number @ 1..=1_000_000_000) => number,
            _ => {
                self.complain(name, &value, "expected a whole number above 0");
                default
            }
        }
    }

    /// One update in how many, and whether there are traces at all.
    fn sampling(&mut self, recipe: u64) -> (u64, bool) {
        let Some(sampler) = self.get("OTEL_TRACES_SAMPLER") else {
            return (recipe, true);
        };
        match sampler.strip_prefix("parentbased_").unwrap_or(&sampler) {
            "always_on" => (1, true),
            "always_off" => (recipe, false),
            "traceidratio" => {
                let share = self.get("OTEL_TRACES_SAMPLER_ARG");
                match share.map_or(Ok(1.0), |share| share.parse::<f64>()) {
                    Ok(0.0) => (recipe, false),
                    Ok(share) if share > 0.0 && share <= 1.0 => {
                        ((1.0 / share).round() as u64, true)
                    }
                    _ => {
                        let argument = self.get("OTEL_TRACES_SAMPLER_ARG").unwrap_or_default();
                        let what = "expected a share of the updates from 0 to 1";
                        self.complain("OTEL_TRACES_SAMPLER_ARG", &argument, what);
                        (recipe, true)
                    }
                }
            }
            _ => {
                let what = "known are always_on, always_off and traceidratio";
                self.complain("OTEL_TRACES_SAMPLER", &sampler, what);
                (recipe, true)
            }
        }
    }

    /// Whether a signal is wanted: `otlp` asks for it even where no endpoint is named, `none` forbids it.
    fn wanted(&mut self, signal: Signal) -> Option<bool> {
        let name = format!("OTEL_{}_EXPORTER", signal.variable());
        let value = self.get(&name)?;
        match value.as_str() {
            "otlp" => Some(true),
            "none" => Some(false),
            _ => {
                self.complain(&name, &value, "known are otlp and none");
                None
            }
        }
    }

    fn otlp(&mut self, recipe: Option<&recipe::Otlp>, is_traced: bool) -> Option<Otlp> {
        let traces = self
            .destination(Signal::Traces, recipe)
            .filter(|_| is_traced);
        let metrics = self.destination(Signal::Metrics, recipe);
        let logs = self.destination(Signal::Logs, recipe);
        if traces.is_none() && metrics.is_none() && logs.is_none() {
            return None;
        }
        let queue = self.number("OTEL_BSP_MAX_QUEUE_SIZE", 2048).min(1 << 20) as usize;
        let batch = self.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512) as usize;
        Some(Otlp {
            traces,
            metrics,
            logs,
            queue,
            batch: batch.min(queue),
            delay: Duration::from_millis(self.number("OTEL_BSP_SCHEDULE_DELAY", 5_000)),
            metric_interval: Duration::from_millis(
                self.number("OTEL_METRIC_EXPORT_INTERVAL", 60_000),
            ),
        })
    }

    fn destination(
        &mut self,
        signal: Signal,
        recipe: Option<&recipe::Otlp>,
    ) -> Option<Destination> {
        let wanted = self.wanted(signal);
        if wanted == Some(false) {
            return None;
        }
        let protocol = match recipe {
            Some(otlp) => match otlp.protocol {
                OtlpProtocol::Grpc => Protocol::Grpc,
                OtlpProtocol::Http => Protocol::Http,
            },
            None => self.protocol(signal),
        };
        let (name, endpoint) = match (recipe, self.of_signal(signal, "ENDPOINT"), wanted) {
            (Some(otlp), _, _) => ("telemetry.otlp.endpoint".to_owned(), otlp.endpoint.clone()),
            (None, Some(named), _) => named,
            (None, None, Some(true)) => {
                let port = match protocol {
                    Protocol::Grpc => 4317,
                    Protocol::Http => 4318,
                };
                let endpoint = format!("http://localhost:{port}");
                ("the default endpoint".to_owned(), endpoint)
            }
            (None, None, _) => return None,
        };
        // A signal's own endpoint over HTTP is used as it is.
        let is_own = name.contains(signal.variable());
        let complete = match protocol {
            Protocol::Grpc => signal.service().to_owned(),
            Protocol::Http if is_own => String::new(),
            Protocol::Http => signal.path().to_owned(),
        };
        let Some(uri) = join(&endpoint, &complete) else {
            self.complain(
                &name,
                &endpoint,
                "expected http:// or https://, a host and a port",
            );
            return None;
        };
        Some(Destination {
            uri,
            protocol,
            headers: self.headers(signal),
            timeout: self.timeout(signal),
        })
    }

    fn protocol(&mut self, signal: Signal) -> Protocol {
        match self.of_signal(signal, "PROTOCOL") {
            Some((_, value)) if value == "http/protobuf" => Protocol::Http,
            Some((name, value)) if value != "grpc" => {
                self.complain(&name, &value, "known are grpc and http/protobuf");
                Protocol::Grpc
            }
            // OpenTelemetry leaves the default open; grpc is the recipe's too.
            _ => Protocol::Grpc,
        }
    }

    /// `key=value,key=value`, values percent-encoded.
    fn headers(&mut self, signal: Signal) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let Some((variable, list)) = self.of_signal(signal, "HEADERS") else {
            return headers;
        };
        for (key, value) in entries(&list) {
            let name = HeaderName::try_from(key.to_lowercase());
            let value = HeaderValue::try_from(value);
            match (name, value) {
                (Ok(name), Ok(mut value)) => {
                    value.set_sensitive(true);
                    headers.insert(name, value);
                }
                _ => self.complain(&variable, "", &format!("`{key}` is no header")),
            }
        }
        headers
    }

    fn timeout(&mut self, signal: Signal) -> Duration {
        let name = match self.of_signal(signal, "TIMEOUT") {
            Some((name, _)) => name,
            None => return Duration::from_secs(10),
        };
        Duration::from_millis(self.number(&name, 10_000))
    }

    fn resource(&self, recipe: &str) -> Vec<(String, String)> {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let mut attributes = vec![
            ("service.name".to_owned(), "spinectl".to_owned()),
            (
                "service.version".to_owned(),
                env!("CARGO_PKG_VERSION").to_owned(),
            ),
            ("host.name".to_owned(), host.trim().to_owned()),
            ("process.pid".to_owned(), std::process::id().to_string()),
            ("spinectl.recipe.name".to_owned(), recipe.to_owned()),
        ];
        let list = self.get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        let service = self.get("OTEL_SERVICE_NAME");
        let service = service.map(|name| ("service.name".to_owned(), name));
        for (key, value) in entries(&list).into_iter().chain(service) {
            match attributes.iter_mut().find(|(known, _)| *known == key) {
                Some((_, known)) => *known = value,
                None => attributes.push((key, value)),
            }
        }
        attributes
    }
}

/// `key=value` pairs between commas; what is none is passed over.
fn entries(list: &str) -> Vec<(String, String)> {
    list.split(',')
        .filter_map(|entry| entry.split_once('='))
        .map(|(key, value)| {
            let value = percent_decode_str(value.trim()).decode_utf8_lossy();
            (key.trim().to_owned(), value.into_owned())
        })
        .filter(|(key, _)| !key.is_empty())
        .collect()
}

/// An endpoint with a path behind it.
fn join(endpoint: &str, path: &str) -> Option<Uri> {
    let whole = match path.is_empty() {
        true => endpoint.to_owned(),
        false => format!("{}{path}", endpoint.trim_end_matches('/')),
    };
    let uri: Uri = whole.parse().ok()?;
    let is_known = matches!(uri.scheme_str(), Some("http" | "https"));
    (is_known && uri.host().is_some_and(|host| !host.is_empty())).then_some(uri)
}

impl Signal {
    /// Its word in the environment.
    fn variable(self) -> &'static str {
        match self {
            Signal::Traces => "TRACES",
            Signal::Metrics => "METRICS",
            Signal::Logs => "LOGS",
        }
    }

    /// Its method of gRPC.
    fn service(self) -> &'static str {
        match self {
            Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        }
    }

    /// Its path over HTTP.
    fn path(self) -> &'static str {
        match self {
            Signal::Traces => "/v1/traces",
            Signal::Metrics => "/v1/metrics",
            Signal::Logs => "/v1/logs",
        }
    }
}

#[cfg(test)]
mod tests;
