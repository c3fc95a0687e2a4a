//! OpenTelemetry's variables, and complaints about those that cannot be used.

use std::time::Duration;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use recipe::OtlpProtocol;

use super::endpoint::{join, shown, usual_endpoint, usual_protocol};
use super::{Destination, Export, Protocol, Signal};

pub(super) struct Environment<'e> {
    get: &'e dyn Fn(&str) -> Option<String>,
    pub complaints: Vec<String>,
}

impl<'e> Environment<'e> {
    pub fn new(get: &'e dyn Fn(&str) -> Option<String>) -> Self {
        Environment {
            get,
            complaints: Vec::new(),
        }
    }

    pub fn is_disabled(&self) -> bool {
        self.get("OTEL_SDK_DISABLED")
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// A variable that is set to something: an empty one counts as not set.
    fn get(&self, name: &str) -> Option<String> {
        (self.get)(name)
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty())
    }

    fn complain(&mut self, what: String) {
        // A variable for all signals is read once for each.
        if !self.complaints.contains(&what) {
            self.complaints.push(what);
        }
    }

    fn leave_out(&mut self, name: &str, value: &str, why: &str) {
        self.complain(format!("{name} `{value}` is left out: {why}"));
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
                self.leave_out(name, &value, "expected a whole number above 0");
                default
            }
        }
    }

    /// One update in how many is traced; none where there are to be no traces.
    pub fn sampling(&mut self, recipe: u64) -> Option<u64> {
        let Some(sampler) = self.get("OTEL_TRACES_SAMPLER") else {
            return Some(recipe);
        };
        match sampler.strip_prefix("parentbased_").unwrap_or(&sampler) {
            "always_on" => Some(1),
            "always_off" => None,
            "traceidratio" => {
                let share = self.get("OTEL_TRACES_SAMPLER_ARG");
                match share.map_or(Ok(1.0), |share| share.parse::<f64>()) {
                    Ok(0.0) => None,
                    Ok(share) if share > 0.0 && share <= 1.0 => Some((1.0 / share).round() as u64),
                    _ => {
                        let argument = self.get("OTEL_TRACES_SAMPLER_ARG").unwrap_or_default();
                        let why = "expected a share of the updates from 0 to 1";
                        self.leave_out("OTEL_TRACES_SAMPLER_ARG", &argument, why);
                        Some(recipe)
                    }
                }
            }
            _ => {
                let why = "known are always_on, always_off and traceidratio";
                self.leave_out("OTEL_TRACES_SAMPLER", &sampler, why);
                Some(recipe)
            }
        }
    }

    pub fn export(&mut self, recipe: Option<&recipe::Otlp>) -> Option<Export> {
        let traces = self.destination(Signal::Traces, recipe);
        let metrics = self.destination(Signal::Metrics, recipe);
        let logs = self.destination(Signal::Logs, recipe);
        if traces.is_none() && metrics.is_none() && logs.is_none() {
            return None;
        }
        let queue = self.number("OTEL_BSP_MAX_QUEUE_SIZE", 2048).min(1 << 20) as usize;
        let batch = self.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512) as usize;
        Some(Export {
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
        let named = match recipe {
            Some(otlp) => Some(("telemetry.otlp.endpoint".to_owned(), otlp.endpoint.clone())),
            None => self.of_signal(signal, "ENDPOINT"),
        };
        let exporter = format!("OTEL_{}_EXPORTER", signal.variable());
        let exporters = self.get(&exporter);
        let wants = |word: &str| {
            let mut all = exporters.iter().flat_map(|list| list.split(','));
            all.any(|it| it.trim() == word)
        };
        match &exporters {
            Some(_) if wants("otlp") => {}
            Some(_) if wants("none") => return None,
            // Where nothing would be sent anyway, other exporters are none of our business.
            Some(other) if named.is_some() => {
                let why = "known are otlp and none; nothing is sent of this signal";
                self.leave_out(&exporter, other, why);
                return None;
            }
            None if named.is_some() => {}
            _ => return None,
        }
        let said = match recipe {
            Some(otlp) => otlp.protocol.map(|protocol| match protocol {
                OtlpProtocol::Grpc => Protocol::Grpc,
                OtlpProtocol::Http => Protocol::Http,
            }),
            None => self.protocol(signal),
        };
        let (name, endpoint) = named.unwrap_or_else(|| {
            let endpoint = usual_endpoint(said.unwrap_or(Protocol::Grpc));
            ("the usual endpoint".to_owned(), endpoint)
        });
        let protocol = said.unwrap_or_else(|| usual_protocol(&endpoint));
        // A signal's own endpoint over HTTP is used as it is.
        let is_own = name.contains(signal.variable());
        let path = match protocol {
            Protocol::Grpc => signal.service(),
            Protocol::Http if is_own => "",
            Protocol::Http => signal.path(),
        };
        let Some(uri) = join(&endpoint, path) else {
            let why = "expected http:// or https://, a host and a port";
            self.leave_out(&name, shown(&endpoint), why);
            return None;
        };
        Some(Destination {
            uri,
            protocol,
            headers: self.headers(signal),
            timeout: self.timeout(signal),
        })
    }

    fn protocol(&mut self, signal: Signal) -> Option<Protocol> {
        let (name, value) = self.of_signal(signal, "PROTOCOL")?;
        match value.as_str() {
            "grpc" => Some(Protocol::Grpc),
            "http/protobuf" => Some(Protocol::Http),
            _ => {
                self.leave_out(&name, &value, "known are grpc and http/protobuf");
                None
            }
        }
    }

    /// They hold keys: nothing of them is repeated.
    fn headers(&mut self, signal: Signal) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let Some((variable, list)) = self.of_signal(signal, "HEADERS") else {
            return headers;
        };
        for (position, key, value) in self.entries(&variable, &list) {
            let name = HeaderName::try_from(key.to_lowercase());
            match (name, HeaderValue::try_from(value)) {
                (Ok(name), Ok(mut value)) => {
                    value.set_sensitive(true);
                    headers.insert(name, value);
                }
                _ => self.complain(format!(
                    "{variable}: entry {position} is left out: it is no header"
                )),
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

    /// Each key once.
    pub fn resource(&mut self, recipe: &str) -> Vec<(String, String)> {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let own = [
            ("service.name", "spinectl".to_owned()),
            ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
            ("host.name", host.trim().to_owned()),
            ("process.pid", std::process::id().to_string()),
            ("spinectl.recipe.name", recipe.to_owned()),
        ];
        let mut attributes: Vec<_> = own.map(|(key, value)| (key.to_owned(), value)).into();
        let variable = "OTEL_RESOURCE_ATTRIBUTES";
        let list = self.get(variable).unwrap_or_default();
        let named = self.entries(variable, &list).into_iter();
        let service = self.get("OTEL_SERVICE_NAME");
        let service = service.map(|name| ("service.name".to_owned(), name));
        for (key, value) in named.map(|(_, key, value)| (key, value)).chain(service) {
            match attributes.iter_mut().find(|(known, _)| *known == key) {
                Some((_, known)) => *known = value,
                None => attributes.push((key, value)),
            }
        }
        attributes
    }

    /// The entries of `key=value,key=value`, values percent-encoded, each with its position from 1.
    fn entries(&mut self, variable: &str, list: &str) -> Vec<(usize, String, String)> {
        let mut entries = Vec::new();
        for (index, entry) in list.split(',').enumerate() {
            match entry.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => {
                    let value = percent_decode_str(value.trim()).decode_utf8_lossy();
                    entries.push((index + 1, key.trim().to_owned(), value.into_owned()));
                }
                _ if entry.trim().is_empty() => {}
                _ => self.complain(format!(
                    "{variable}: entry {} is left out: expected key=value",
                    index + 1
                )),
            }
        }
        entries
    }
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
}
