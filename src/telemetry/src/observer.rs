//! Takes a run's events for OpenTelemetry and Prometheus. It never waits: what is sent, is sent by a thread of its own.

use std::collections::VecDeque;

use event::RunEvent;
use sha2::{Digest, Sha256};

use crate::meter::Meter;
use crate::otel::exporter::{Exporter, Intake};
use crate::otel::outbox::{Lost, Outbox};
use crate::otel::spans::{Ended, TraceId, Tree};
use crate::otel::{Discretion, Settings, logs};
use crate::prometheus;
use crate::worker::{Work, Worker};

/// A run as others see it. Must be [ended](Observer::end) for its last words to be sent.
pub struct Observer {
    meter: Meter,
    otlp: Option<Feeder>,
    worker: Option<Worker>,
    /// To be told to the user.
    own_notices: VecDeque<String>,
}

/// What makes spans and log records of events.
struct Feeder {
    trace: TraceId,
    tree: Tree,
    discretion: Discretion,
    intake: Intake,
    has_told: bool,
}

impl Observer {
    /// Begins to observe; none where nothing is asked for. What cannot be had (a port that is taken) is told and does not stop a run.
    pub fn start(settings: Settings) -> Option<Self> {
        if settings.export.is_none() && settings.metrics_port.is_none() {
            return None;
        }
        let mut own_notices = VecDeque::new();
        let endpoint = settings.metrics_port.and_then(|port| {
            match prometheus::listen(port) {
                Ok((listener, address)) => {
                    own_notices.push_back(format!("metrics for Prometheus at http://{address}/metrics"));
                    Some(listener)
                }
                Err(error) => {
                    own_notices.push_back(format!(
                        "telemetry: no metrics for Prometheus, port {port} of 127.0.0.1 cannot be had ({error}); choose \
                         another one by --metrics-port"
                    ));
                    None
                }
            }
        });
        let since = event::now();
        let meter = Meter::new(since);
        let trace = trace_id(since);
        let mut resource = settings.resource;
        let instance = "service.instance.id";
        if !resource.iter().any(|(key, _)| key == instance) {
            resource.push((instance.to_owned(), hexadecimal(&trace)));
        }
        let (exporter, intake) = settings.export.map(Exporter::new).unzip();
        let otlp = intake.map(|intake| Feeder {
            trace,
            tree: Tree::new(trace, settings.sample_steps, settings.discretion.clone()),
            discretion: settings.discretion,
            intake,
            has_told: false,
        });
        let worker = Worker::start(Work {
            exporter,
            endpoint,
            meter: meter.clone(),
            resource,
        });
        let worker = worker.map_err(|error| {
            own_notices.push_back(format!(
                "telemetry: nothing is sent, its thread cannot be started ({error})"
            ));
        });
        Some(Observer {
            meter,
            otlp: otlp.filter(|_| worker.is_ok()),
            worker: worker.ok(),
            own_notices,
        })
    }

    /// Takes an event. Never waits.
    pub fn take(&mut self, event: &RunEvent) {
        self.meter.take(event);
        let notice = self.otlp.as_mut().and_then(|otlp| otlp.take(event));
        self.own_notices.extend(notice);
    }

    /// What the user should know by now.
    pub fn notice(&mut self) -> Option<String> {
        let own = self.own_notices.pop_front();
        own.or_else(|| self.worker.as_ref()?.notice())
    }

    /// Sends what is left, for a few seconds at most, and returns what the user should know in the end.
    pub fn end(mut self) -> Vec<String> {
        let lost = self.otlp.take().map(Feeder::end);
        if let Some(worker) = &self.worker {
            worker.end();
        }
        let mut notices: Vec<String> = std::iter::from_fn(|| self.notice()).collect();
        let (spans, logs) = lost.map_or((0, 0), |[spans, logs]| (spans.count(), logs.count()));
        if spans + logs > 0 {
            notices.push(format!(
                "telemetry: {spans} spans and {logs} log records were dropped; the run itself is complete"
            ));
        }
        notices
    }
}

impl Feeder {
    fn take(&mut self, event: &RunEvent) -> Option<String> {
        // What an event ends, it is about; what it begins, too.
        let before = self.tree.context(event);
        let ended = self.tree.take(event);
        if let Some(logs) = &self.intake.logs {
            let span = before.or_else(|| self.tree.context(event));
            let span = span.filter(|_| self.intake.spans.is_some());
            let trace = span.map(|span| (self.trace, span));
            logs.put(logs::record(event, trace, &self.discretion));
        }
        self.put(ended);
        let is_first = !self.has_told && self.lost().iter().any(|lost| lost.count() > 0);
        self.has_told |= is_first;
        is_first.then(|| {
            "telemetry: the first spans or log records have been dropped; the run goes on, and they are counted".to_owned()
        })
    }

    fn put(&self, ended: Ended) {
        if let Some(spans) = &self.intake.spans {
            spans.put_where_ample(ended.step);
            spans.put(ended.structure);
        }
    }

    /// Spans and log records that came to nothing.
    fn lost(&self) -> [Lost; 2] {
        let Intake { spans, logs } = &self.intake;
        let spans = spans.as_ref().map(Outbox::lost);
        let logs = logs.as_ref().map(Outbox::lost);
        [spans, logs].map(|lost| lost.cloned().unwrap_or_default())
    }

    /// Ends what is still open (a launch that broke off) and the queues.
    fn end(mut self) -> [Lost; 2] {
        let fault = Some("the launch broke off".to_owned());
        let structure = self.tree.end(event::now(), fault);
        let step = Vec::new();
        self.put(Ended { structure, step });
        self.lost()
    }
}

/// Unique among launches, on this machine and others.
fn trace_id(now: f64) -> TraceId {
    let random = std::fs::read("/proc/sys/kernel/random/uuid").unwrap_or_default();
    let digest = Sha256::new()
        .chain_update(random)
        .chain_update(std::process::id().to_be_bytes())
        .chain_update(now.to_be_bytes())
        .finalize();
    let mut id = TraceId::default();
    id.copy_from_slice(&digest[..16]);
    id
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
