//! OpenTelemetry: what happens in a run as one trace, as metrics and as logs, sent by OTLP over gRPC or HTTP.
//!
//! Pure are the mapping of events to spans ([`spans`]) and to log records ([`logs`]), and what of the recipe and the
//! environment is meant ([`Settings`]). One thread sends ([`exporter`]), each signal from a bounded queue ([`outbox`]) by a
//! [`courier`] of its own, which tries again what [`verdict`] says may pass.

mod answers;
mod attributes;
mod backoff;
pub(crate) mod courier;
mod discretion;
pub(crate) mod exporter;
pub(crate) mod logs;
pub(crate) mod outbox;
mod requests;
mod settings;
pub(crate) mod spans;
mod transport;
mod verdict;

pub(crate) use discretion::Discretion;
pub use settings::Settings;
use settings::{Destination, Export, Protocol};

/// What OTLP sends apart from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Traces,
    Metrics,
    Logs,
}
