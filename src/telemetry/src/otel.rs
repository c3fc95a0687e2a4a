//! OpenTelemetry: what happens in a run as one trace, as metrics and as logs, sent by OTLP over gRPC or HTTP.
//!
//! Pure are the mapping of events to spans ([`spans`]) and to log records ([`logs`]), and what of the recipe and the
//! environment is meant ([`Settings`]). One thread ([`exporter`]) sends, by one client ([`transport`]), from a bounded queue.

mod attributes;
mod discretion;
pub(crate) mod exporter;
pub(crate) mod logs;
pub(crate) mod outbox;
mod requests;
mod settings;
pub(crate) mod spans;
mod transport;

pub(crate) use discretion::Discretion;
pub use settings::Settings;
pub(crate) use settings::{Destination, Otlp, Protocol};

/// What OTLP sends apart from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Traces,
    Metrics,
    Logs,
}
