//! A collector's address: as a user writes it, as it is shown to one, and with a signal's path.

use hyper::Uri;
use hyper::http::uri::PathAndQuery;

use super::{Protocol, Signal};

/// Where OTLP over HTTP is spoken unless something else is said.
const HTTP_PORT: u16 = 4318;

/// An endpoint and a path behind its own one; a query stays behind both.
pub(super) fn join(endpoint: &str, path: &str) -> Option<Uri> {
    let uri: Uri = endpoint.parse().ok()?;
    let is_known = matches!(uri.scheme_str(), Some("http" | "https"));
    if !is_known || uri.host().is_none_or(str::is_empty) {
        return None;
    }
    if path.is_empty() {
        return Some(uri);
    }
    let query = uri
        .query()
        .map_or(String::new(), |query| format!("?{query}"));
    let whole = format!("{}{path}{query}", uri.path().trim_end_matches('/'));
    let mut parts = uri.into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(whole).ok()?);
    Uri::from_parts(parts).ok()
}

/// What may be shown of an endpoint: not what stands before an `@` or behind a `?`, where keys are.
pub(super) fn shown(endpoint: &str) -> &str {
    let host = endpoint.rsplit('@').next().unwrap_or(endpoint);
    host.split('?').next().unwrap_or(host)
}

/// What is spoken there, where nothing is said of it.
pub(super) fn usual_protocol(endpoint: &str) -> Protocol {
    match join(endpoint, "").and_then(|uri| uri.port_u16()) {
        Some(HTTP_PORT) => Protocol::Http,
        _ => Protocol::Grpc,
    }
}

/// Where a collector is that no endpoint is named for.
pub(super) fn usual_endpoint(protocol: Protocol) -> String {
    let port = match protocol {
        Protocol::Grpc => 4317,
        Protocol::Http => HTTP_PORT,
    };
    format!("http://localhost:{port}")
}

impl Signal {
    /// Its method of gRPC.
    pub(super) fn service(self) -> &'static str {
        match self {
            Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        }
    }

    /// Its path over HTTP.
    pub(super) fn path(self) -> &'static str {
        match self {
            Signal::Traces => "/v1/traces",
            Signal::Metrics => "/v1/metrics",
            Signal::Logs => "/v1/logs",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_goes_between_an_endpoints_own_and_its_query() {
        for (endpoint, path, whole) in [
            ("http://a:1", "/v1/x", "http://a:1/v1/x"),
            ("http://a:1/base/", "/v1/x", "http://a:1/base/v1/x"),
            ("https://a/?t=x", "/v1/x", "https://a/v1/x?t=x"),
            ("http://a/b?t=x", "", "http://a/b?t=x"),
        ] {
            let joined = join(endpoint, path).map(|uri| uri.to_string());
            assert_eq!(joined.as_deref(), Some(whole), "{endpoint}");
        }
        for wrong in ["a:1", "unix:/a", "http://", "ftp://a:1", ""] {
            assert_eq!(join(wrong, "/v1/x"), None, "{wrong}");
        }
    }

    #[test]
    fn keys_in_an_endpoint_are_not_shown() {
        for (endpoint, known) in [
            ("user:hunter2@collector:4318", "collector:4318"),
            ("user:a@b?c@collector:4318", "collector:4318"),
            ("ftp://collector/x?token=1", "ftp://collector/x"),
        ] {
            assert_eq!(shown(endpoint), known);
        }
    }

    #[test]
    fn a_port_says_what_is_spoken_there() {
        assert_eq!(usual_protocol("http://a:4318/base"), Protocol::Http);
        assert_eq!(usual_protocol("http://a:4317"), Protocol::Grpc);
        assert_eq!(usual_protocol("https://a"), Protocol::Grpc);
    }
}
