//! Sends spans and log records in batches, and the metrics at intervals: as long as the run lasts and a moment longer. No signal
//! waits for another one.

use std::future::pending;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};

use super::answers::Answer;
use super::courier::{Courier, Ending, LAST_PAUSE, Wires};
use super::outbox::{Inbox, Outbox};
use super::requests::Origin;
use super::{Destination, Export, Signal};
use crate::meter::Meter;

/// Where what is sent comes in: each queue is there if its signal is wanted.
#[derive(Debug)]
pub(crate) struct Intake {
    pub spans: Option<Outbox<Span>>,
    pub logs: Option<Outbox<LogRecord>>,
}

pub(crate) struct Exporter {
    spans: Option<Line<Span>>,
    logs: Option<Line<LogRecord>>,
    metrics: Option<Destination>,
    metric_interval: Duration,
}

impl Exporter {
    /// Connects to nothing yet.
    pub fn new(export: Export) -> (Self, Intake) {
        let rhythm = Rhythm {
            batch: export.batch.max(1),
            delay: export.delay,
        };
        let (spans, span_line) = line(export.traces, export.queue, rhythm);
        let (logs, log_line) = line(export.logs, export.queue, rhythm);
        let exporter = Exporter {
            spans: span_line,
            logs: log_line,
            metrics: export.metrics,
            metric_interval: export.metric_interval,
        };
        (exporter, Intake { spans, logs })
    }

    /// Sends until the queues have ended and are empty, or there is no time left; what is left then is counted as lost.
    pub async fn run(self, resource: &[(String, String)], meter: Meter, wires: Wires) {
        let origin = Origin::new(resource);
        let spans = async {
            if let Some(line) = self.spans {
                line.run(&origin, wires.clone()).await;
            }
        };
        let logs = async {
            if let Some(line) = self.logs {
                line.run(&origin, wires.clone()).await;
            }
        };
        let metrics = async {
            if let Some(to) = self.metrics {
                let sending = send_metrics(&meter, &origin, to, self.metric_interval, &wires);
                in_time(sending, wires.ending.clone()).await;
            }
        };
        tokio::join!(spans, logs, metrics);
    }
}

/// How many are sent at once, and after how long those that are fewer.
#[derive(Clone, Copy)]
struct Rhythm {
    batch: usize,
    delay: Duration,
}

/// What is sent from a queue of its own.
trait Parcel: Sized {
    const SIGNAL: Signal;
    type Answer: Answer;

    fn request(parcels: Vec<Self>, origin: &Origin) -> impl Message;
}

impl Parcel for Span {
    const SIGNAL: Signal = Signal::Traces;
    type Answer = ExportTraceServiceResponse;

    fn request(parcels: Vec<Self>, origin: &Origin) -> impl Message {
        origin.spans(parcels)
    }
}

impl Parcel for LogRecord {
    const SIGNAL: Signal = Signal::Logs;
    type Answer = ExportLogsServiceResponse;

    fn request(parcels: Vec<Self>, origin: &Origin) -> impl Message {
        origin.logs(parcels)
    }
}

/// A queue's way to its collector.
struct Line<P> {
    inbox: Inbox<P>,
    to: Destination,
    rhythm: Rhythm,
    batch: Vec<P>,
    /// Of the request that is under way.
    on_their_way: u64,
}

fn line<P>(
    to: Option<Destination>,
    capacity: usize,
    rhythm: Rhythm,
) -> (Option<Outbox<P>>, Option<Line<P>>) {
    let Some(to) = to else {
        return (None, None);
    };
    let (outbox, inbox) = Outbox::new(capacity);
    let line = Line {
        inbox,
        to,
        rhythm,
        batch: Vec::new(),
        on_their_way: 0,
    };
    (Some(outbox), Some(line))
}

impl<P: Parcel> Line<P> {
    async fn run(mut self, origin: &Origin, wires: Wires) {
        let ending = wires.ending.clone();
        let mut courier = Courier::new(P::SIGNAL, self.to.clone(), wires);
        in_time(self.send_all(origin, &mut courier), ending).await;
        let Inbox { queue, lost } = &mut self.inbox;
        queue.close();
        lost.add(self.on_their_way + self.batch.len() as u64);
        while queue.try_recv().is_ok() {
            lost.add(1);
        }
    }

    async fn send_all(&mut self, origin: &Origin, courier: &mut Courier) {
        let mut flush = interval(self.rhythm.delay);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let room = self.rhythm.batch.saturating_sub(self.batch.len()).max(1);
            tokio::select! {
                count = self.inbox.queue.recv_many(&mut self.batch, room) => {
                    if count == 0 {
                        break;
                    }
                    if self.batch.len() >= self.rhythm.batch {
                        self.flush(origin, courier).await;
                    }
                }
                _ = flush.tick() => self.flush(origin, courier).await,
            }
        }
        self.flush(origin, courier).await;
    }

    async fn flush(&mut self, origin: &Origin, courier: &mut Courier) {
        if self.batch.is_empty() {
            return;
        }
        let count = self.batch.len() as u64;
        self.on_their_way = count;
        let request = P::request(std::mem::take(&mut self.batch), origin);
        let refused = courier.deliver::<P::Answer>(&request).await;
        self.inbox.lost.add(refused.unwrap_or(count).min(count));
        self.on_their_way = 0;
    }
}

/// Metrics are sums since the beginning: what is not taken now is part of the next time, so nothing is tried again.
async fn send_metrics(
    meter: &Meter,
    origin: &Origin,
    to: Destination,
    every: Duration,
    wires: &Wires,
) {
    let mut courier = Courier::new(Signal::Metrics, to, wires.clone());
    let mut ending = wires.ending.clone();
    let mut measure = interval(every);
    measure.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick comes at once, when there is nothing to tell.
    measure.tick().await;
    let mut has_ended = false;
    while !has_ended {
        tokio::select! {
            _ = measure.tick() => {}
            // Nobody who could end it is an end too.
            _ = ending.wait_for(Option::is_some) => has_ended = true,
        }
        let reading = meter.reading();
        if !reading.series.is_empty() {
            let request = origin.metrics(&reading, event::now());
            // What is wrong has been told.
            let sent = courier.send::<ExportMetricsServiceResponse>(&request).await;
            if has_ended && sent.is_err_and(|refused| refused.is_passing) {
                sleep(LAST_PAUSE).await;
                let _ = courier.send::<ExportMetricsServiceResponse>(&request).await;
            }
        }
    }
}

/// Works until it is done or no time is left: an end may be set, and brought forward.
async fn in_time(work: impl Future<Output = ()>, mut ending: Ending) {
    let no_time_is_left = async {
        loop {
            let until = *ending.borrow_and_update();
            let pause = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = pause => break,
                changed = ending.changed() => if changed.is_err() {
                    // Without anybody who could end it, it has ended.
                    break;
                },
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = no_time_is_left => {}
    }
}
