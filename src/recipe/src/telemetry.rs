//! The section `telemetry`: who else is told of a run.

use serde::{Deserialize, Serialize};

use crate::section::Section;

/// What is told of a run, besides its terminal and TensorBoard. Nothing in it changes what a job comes to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Telemetry {
    /// Where traces, metrics and logs are sent; nowhere where absent, unless the environment says it (OTEL_EXPORTER_OTLP_ENDPOINT).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp: Option<Otlp>,
    /// One update in so many is traced, with its phases.
    pub sample_steps: u64,
    /// The port of the loopback interface at which Prometheus finds the metrics, 0 for a free one; no endpoint where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_port: Option<u64>,
}

impl Default for Telemetry {
    fn default() -> Self {
        Telemetry {
            otlp: None,
            sample_steps: 50,
            metrics_port: None,
        }
    }
}

/// A collector that takes OTLP. Headers, which may hold keys, come from the environment alone (OTEL_EXPORTER_OTLP_HEADERS): the
/// recipe is kept beside the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Otlp {
    /// `http://` or `https://`, a host and a port.
    pub endpoint: String,
    /// Where it is absent: HTTP at port 4318, gRPC elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<OtlpProtocol>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OtlpProtocol {
    Grpc,
    /// Protocol buffers over HTTP.
    Http,
}

pub(crate) fn telemetry(section: Section) -> Telemetry {
    let otlp = section.section("otlp");
    let is_present = otlp.is_present();
    let endpoint = otlp.text("endpoint", "");
    let begins = |scheme: &str| {
        endpoint
            .strip_prefix(scheme)
            .is_some_and(|rest| !rest.is_empty())
    };
    if is_present && !begins("http://") && !begins("https://") {
        otlp.refuse(
            "endpoint",
            "expected where a collector listens".into(),
            "for example `endpoint: http://localhost:4317`".into(),
        );
    }
    let protocol = otlp.choice(
        "protocol",
        None,
        &[
            ("grpc", Some(OtlpProtocol::Grpc)),
            ("http", Some(OtlpProtocol::Http)),
        ],
    );
    otlp.finish();
    let default = Telemetry::default();
    let telemetry = Telemetry {
        otlp: is_present.then_some(Otlp { endpoint, protocol }),
        sample_steps: section.integer("sample_steps", default.sample_steps, 1..=1_000_000_000),
        metrics_port: section.optional_integer("metrics_port", 0..=65_535),
    };
    section.finish();
    telemetry
}
