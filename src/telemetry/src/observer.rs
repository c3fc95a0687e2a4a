//! Takes a run's events for OpenTelemetry and Prometheus. It never waits: what is sent, is sent by a thread of its own.

use std::collections::VecDeque;
use std::net::TcpListener;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use event::RunEvent;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::measures::Measures;
use crate::otel::exporter::{Ending, Exporter, Feed};
use crate::otel::outbox::{Lost, Outbox};
use crate::otel::spans::{Ended, TraceId, Tree};
use crate::otel::{Discretion, Otlp, Settings, logs};
use crate::prometheus;

/// After a run: for what is still to be sent. A collector that hangs holds up the end of a run so long and no longer.
const GRACE: Duration = Duration::from_secs(5);
/// For the thread to notice.
const MOMENT: Duration = Duration::from_secs(1);

/// A run as others see it. Must be [ended](Observer::end) for its last words to be sent.
pub struct Observer {
    measures: Arc<Mutex<Measures>>,
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
    outbox: Outbox,
    lost: Arc<Lost>,
    sends_traces: bool,
    sends_logs: bool,
    has_told: bool,
}

/// The thread that sends and answers.
struct Worker {
    ending: watch::Sender<Option<Instant>>,
    notices: mpsc::Receiver<String>,
    /// Closed once the thread is done.
    done: mpsc::Receiver<()>,
}

impl Observer {
    /// Begins to observe; none where nothing is asked for. What cannot be had (a port that is taken) is told and does not stop a run.
    pub fn start(settings: Settings) -> Option<Self> {
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
        if settings.otlp.is_none() && settings.metrics_port.is_none() {
            return None;
        }
        let since = event::now();
        let measures = Arc::new(Mutex::new(Measures::new(since)));
        let trace = trace_id(since);
        let mut resource = settings.resource;
        resource.push(("service.instance.id".to_owned(), hexadecimal(&trace)));

        let (ending, until) = watch::channel(None);
        let (notices_to, notices) = mpsc::channel();
        let (feeder, exporter) = match settings.otlp {
            None => (None, None),
            Some(otlp) => {
                let (outbox, queue) = Outbox::new(otlp.queue);
                let lost = Arc::new(Lost::default());
                let feeder = Feeder {
                    trace,
                    tree: Tree::new(trace, settings.sample_steps, settings.discretion.clone()),
                    discretion: settings.discretion,
                    outbox,
                    lost: lost.clone(),
                    sends_traces: otlp.traces.is_some(),
                    sends_logs: otlp.logs.is_some(),
                    has_told: false,
                };
                let feed = Feed {
                    queue,
                    measures: measures.clone(),
                    lost,
                    ending: until.clone(),
                    notices: notices_to.clone(),
                };
                (Some(feeder), Some((otlp, feed)))
            }
        };
        let (done_to, done) = mpsc::channel();
        let shown = measures.clone();
        let work = move || {
            // Closed when the work ends, however it ends.
            let _done = done_to;
            let endpoint = endpoint.map(|listener| (listener, shown));
            work(until, resource, exporter, endpoint, &notices_to);
        };
        let started = thread::Builder::new().name("telemetry".into()).spawn(work);
        if let Err(error) = started {
            own_notices.push_back(format!(
                "telemetry: nothing is sent, its thread cannot be started ({error})"
            ));
            return Some(Observer {
                measures,
                otlp: None,
                worker: None,
                own_notices,
            });
        }
        Some(Observer {
            measures,
            otlp: feeder,
            worker: Some(Worker {
                ending,
                notices,
                done,
            }),
            own_notices,
        })
    }

    /// Takes an event. Never waits.
    pub fn take(&mut self, event: &RunEvent) {
        self.measures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(event);
        let notice = self.otlp.as_mut().and_then(|otlp| otlp.take(event));
        self.own_notices.extend(notice);
    }

    /// What the user should know by now.
    pub fn notice(&mut self) -> Option<String> {
        let own = self.own_notices.pop_front();
        own.or_else(|| self.worker.as_ref()?.notices.try_recv().ok())
    }

    /// Sends what is left, for a few seconds at most, and returns what the user should know in the end.
    pub fn end(mut self) -> Vec<String> {
        let lost = self.otlp.take().map(Feeder::end);
        if let Some(worker) = &self.worker {
            // A thread that is gone needs no word.
            let _ = worker.ending.send(Some(Instant::now() + GRACE));
            // Closed in time or not: the run's end waits no longer.
            let _ = worker.done.recv_timeout(GRACE + MOMENT);
        }
        let mut notices: Vec<String> = std::iter::from_fn(|| self.notice()).collect();
        let (spans, logs) = lost.map_or((0, 0), |lost| (lost.spans(), lost.logs()));
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
        let log = match self.sends_logs {
            true => {
                let span = before.or_else(|| self.tree.context(event));
                let span = span.filter(|_| self.sends_traces);
                logs::record(event, span.map(|span| (self.trace, span)), &self.discretion)
            }
            false => None,
        };
        self.put(ended, log);
        let is_first = self.lost.spans() + self.lost.logs() > 0 && !self.has_told;
        self.has_told |= is_first;
        is_first.then(|| {
            "telemetry: the first spans or log records have been dropped; the run goes on, and they are counted".to_owned()
        })
    }

    fn put(&self, ended: Ended, log: Option<LogRecord>) {
        let ended = match self.sends_traces {
            true => ended,
            false => Ended::default(),
        };
        self.outbox.put(ended, log, &self.lost);
    }

    /// Ends what is still open (a launch that broke off) and the queue.
    fn end(mut self) -> Arc<Lost> {
        let fault = Some("the launch ended before its run".to_owned());
        let structure = self.tree.end(event::now(), fault);
        let step = Vec::new();
        self.put(Ended { structure, step }, None);
        self.lost
    }
}

/// The thread: it answers Prometheus and sends by OTLP until the run has ended.
fn work(
    mut ending: Ending,
    resource: Vec<(String, String)>,
    exporter: Option<(Otlp, Feed)>,
    endpoint: Option<(TcpListener, Arc<Mutex<Measures>>)>,
    notices: &mpsc::Sender<String>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let notice = format!("telemetry: nothing is sent, no runtime for it ({error})");
            // Nobody need listen.
            let _ = notices.send(notice);
            return;
        }
    };
    runtime.block_on(async {
        if let Some((listener, measures)) = endpoint {
            tokio::spawn(prometheus::serve(listener, measures, resource.clone()));
        }
        match exporter {
            Some((otlp, feed)) => Exporter::new(otlp, &resource, feed).run().await,
            // Nobody who could end it is an end too.
            None => drop(ending.wait_for(Option::is_some).await),
        }
    });
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
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
