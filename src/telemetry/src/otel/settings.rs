//! What of the recipe and of OpenTelemetry's environment is meant. The recipe wins where it says something.

mod endpoint;
mod environment;

use std::time::Duration;

use hyper::Uri;
use hyper::header::HeaderMap;
use recipe::Recipe;

use super::{Discretion, Signal};
use environment::Environment;

/// What to send of a run, and where.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What is sent by OTLP.
    pub(crate) export: Option<Export>,
    /// The port on loopback that Prometheus scrapes; 0 takes a free one.
    pub(crate) metrics_port: Option<u16>,
    /// One update in so many is traced.
    pub(crate) sample_steps: u64,
    /// Attributes of the resource, which all signals share.
    pub(crate) resource: Vec<(String, String)>,
    pub(crate) discretion: Discretion,
}

/// Where the signals go, and in what rhythm.
#[derive(Clone, Debug)]
pub(crate) struct Export {
    pub traces: Option<Destination>,
    pub metrics: Option<Destination>,
    pub logs: Option<Destination>,
    /// Spans that may wait to be sent, and log records.
    pub queue: usize,
    /// Of them, as many as are sent at once.
    pub batch: usize,
    /// Between two batches that are not full.
    pub delay: Duration,
    pub metric_interval: Duration,
}

/// Where one signal goes.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    /// Complete, path included.
    pub uri: Uri,
    pub protocol: Protocol,
    pub headers: HeaderMap,
    /// Of one request.
    pub timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Grpc,
    Http,
}

impl Settings {
    /// Reads both; `environment` is asked for variables by name. What is wrong in the environment is told in words and left out, as
    /// OpenTelemetry wants it; of a run that nobody is told of, nothing is.
    pub fn resolve(
        recipe: &Recipe,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> (Self, Vec<String>) {
        let mut environment = Environment::new(environment);
        let telemetry = &recipe.telemetry;
        let mut settings = Settings {
            export: None,
            metrics_port: None,
            sample_steps: telemetry.sample_steps,
            resource: Vec::new(),
            discretion: discretion(recipe),
        };
        if environment.is_disabled() {
            return (settings, Vec::new());
        }
        settings.export = environment.export(telemetry.otlp.as_ref());
        settings.metrics_port = telemetry
            .metrics_port
            .and_then(|port| u16::try_from(port).ok());
        if let Some(export) = &mut settings.export
            && export.traces.is_some()
        {
            match environment.sampling(telemetry.sample_steps) {
                Some(steps) => settings.sample_steps = steps,
                None => export.traces = None,
            }
        }
        // Where no signal is left, there is nothing to send.
        let sends = |export: &Export| {
            export.traces.is_some() || export.metrics.is_some() || export.logs.is_some()
        };
        settings.export = settings.export.filter(sends);
        if settings.export.is_some() || settings.metrics_port.is_some() {
            settings.resource = environment.resource(&recipe.name);
        }
        (settings, environment.complaints)
    }
}

fn discretion(recipe: &Recipe) -> Discretion {
    let data = &recipe.data;
    let folders = [
        Some(&data.root),
        data.split.as_ref(),
        data.cache.dir.as_ref(),
    ];
    Discretion::new(folders.into_iter().flatten().map(|path| path.as_path()))
}

#[cfg(test)]
mod tests;
