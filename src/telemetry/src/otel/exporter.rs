//! Sends what waits in the queue, in batches, and the metrics at intervals: as long as the run lasts and a moment longer.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::outbox::{Item, Lost};
use super::requests::Origin;
use super::transport::{Refused, Transport};
use super::{Destination, Otlp, Signal};
use crate::measures::Measures;

/// Between the first two tries at a collector that does not answer; it doubles each time, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Until when is to be sent: none while the run goes on.
pub(crate) type Ending = watch::Receiver<Option<Instant>>;

pub(crate) struct Exporter {
    queue: Receiver<Item>,
    measures: Arc<Mutex<Measures>>,
    lost: Arc<Lost>,
    origin: Origin,
    traces: Option<Transport>,
    metrics: Option<Transport>,
    logs: Option<Transport>,
    courier: Courier,
    batch: usize,
    delay: Duration,
    metric_interval: Duration,
    spans: Vec<Span>,
    records: Vec<LogRecord>,
    /// Spans and log records of the request that is on its way.
    on_their_way: (u64, u64),
}

/// What an exporter shares with those who feed it.
pub(crate) struct Feed {
    pub queue: Receiver<Item>,
    pub measures: Arc<Mutex<Measures>>,
    pub lost: Arc<Lost>,
    pub ending: Ending,
    /// What a user should be told.
    pub notices: mpsc::Sender<String>,
}

impl Exporter {
    /// Connects to nothing yet.
    pub fn new(otlp: Otlp, resource: &[(String, String)], feed: Feed) -> Self {
        let mut courier = Courier {
            ending: feed.ending,
            notices: feed.notices,
            told: Vec::new(),
        };
        Exporter {
            queue: feed.queue,
            measures: feed.measures,
            lost: feed.lost,
            origin: Origin::new(resource),
            traces: courier.transport(Signal::Traces, otlp.traces),
            metrics: courier.transport(Signal::Metrics, otlp.metrics),
            logs: courier.transport(Signal::Logs, otlp.logs),
            courier,
            batch: otlp.batch.max(1),
            delay: otlp.delay,
            metric_interval: otlp.metric_interval,
            spans: Vec::new(),
            records: Vec::new(),
            on_their_way: (0, 0),
        }
    }

    /// Sends until the queue has ended and is empty, or there is no time left; what is left then is counted as lost.
    pub async fn run(mut self) {
        let ending = self.courier.ending.clone();
        tokio::select! {
            () = self.send_all() => {}
            () = no_time_is_left(ending) => {}
        }
        let (spans, records) = self.on_their_way;
        self.lost
            .spans
            .fetch_add(spans + self.spans.len() as u64, Relaxed);
        self.lost
            .logs
            .fetch_add(records + self.records.len() as u64, Relaxed);
        self.queue.close();
        while let Ok(item) = self.queue.try_recv() {
            self.lost.count(&item);
        }
    }

    async fn send_all(&mut self) {
        let mut flush = interval(self.delay);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut measure = interval(self.metric_interval);
        measure.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick comes at once, when there is nothing to tell.
        measure.tick().await;
        let mut received = Vec::new();
        loop {
            let room = self.batch.saturating_sub(self.waiting()).max(1);
            tokio::select! {
                count = self.queue.recv_many(&mut received, room) => {
                    if count == 0 {
                        break;
                    }
                    for item in received.drain(..) {
                        match item {
                            Item::Span(span) => self.spans.push(*span),
                            Item::Log(record) => self.records.push(*record),
                        }
                    }
                    if self.waiting() >= self.batch {
                        self.flush().await;
                    }
                }
                _ = flush.tick() => self.flush().await,
                _ = measure.tick() => self.send_metrics().await,
            }
        }
        self.flush().await;
        self.send_metrics().await;
    }

    fn waiting(&self) -> usize {
        self.spans.len() + self.records.len()
    }

    async fn flush(&mut self) {
        if !self.spans.is_empty() {
            let spans = std::mem::take(&mut self.spans);
            let count = spans.len() as u64;
            self.on_their_way.0 = count;
            let request = self.origin.spans(spans);
            let answer: Option<ExportTraceServiceResponse> = self
                .courier
                .deliver(Signal::Traces, self.traces.as_ref(), &request)
                .await;
            let refused = answer.map_or(count, |answer| {
                let partial = answer.partial_success.unwrap_or_default();
                u64::try_from(partial.rejected_spans).unwrap_or(0)
            });
            self.lost.spans.fetch_add(refused, Relaxed);
            self.on_their_way.0 = 0;
        }
        if !self.records.is_empty() {
            let records = std::mem::take(&mut self.records);
            let count = records.len() as u64;
            self.on_their_way.1 = count;
            let request = self.origin.logs(records);
            let answer: Option<ExportLogsServiceResponse> = self
                .courier
                .deliver(Signal::Logs, self.logs.as_ref(), &request)
                .await;
            let refused = answer.map_or(count, |answer| {
                let partial = answer.partial_success.unwrap_or_default();
                u64::try_from(partial.rejected_log_records).unwrap_or(0)
            });
            self.lost.logs.fetch_add(refused, Relaxed);
            self.on_their_way.1 = 0;
        }
    }

    /// Metrics are sums since the beginning: what is not taken now is part of the next time.
    async fn send_metrics(&mut self) {
        let Some(transport) = &self.metrics else {
            return;
        };
        let snapshot = self
            .measures
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone();
        let request = self.origin.metrics(&snapshot, event::now());
        let sent: Result<ExportMetricsServiceResponse, _> = transport.send(&request).await;
        if let Err(refused) = sent {
            self.courier.tell(Signal::Metrics, transport, &refused);
        }
    }
}

async fn no_time_is_left(mut ending: Ending) {
    let until = ending.wait_for(Option::is_some).await.map(|until| *until);
    // Without anybody who could end it, it has ended.
    if let Ok(Some(until)) = until {
        sleep_until(until).await;
    }
}

/// Tries again where that may help, and tells once a signal what is wrong.
struct Courier {
    ending: Ending,
    notices: mpsc::Sender<String>,
    told: Vec<Signal>,
}

impl Courier {
    fn transport(&mut self, signal: Signal, to: Option<Destination>) -> Option<Transport> {
        match Transport::new(to?) {
            Ok(transport) => Some(transport),
            Err(reason) => {
                self.say(signal, &reason);
                None
            }
        }
    }

    /// The answer; none once the request is given up.
    async fn deliver<A: Message + Default>(
        &mut self,
        signal: Signal,
        transport: Option<&Transport>,
        request: &impl Message,
    ) -> Option<A> {
        let transport = transport?;
        let mut pause = FIRST_PAUSE;
        loop {
            let refused = match transport.send(request).await {
                Ok(answer) => return Some(answer),
                Err(refused) => refused,
            };
            self.tell(signal, transport, &refused);
            if !refused.is_passing || self.ending.borrow().is_some() {
                return None;
            }
            // The end of the run cuts a pause short, for one more try.
            tokio::select! {
                () = sleep(pause) => {}
                _ = self.ending.changed() => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn tell(&mut self, signal: Signal, transport: &Transport, refused: &Refused) {
        let reason = format!("{}: {}", transport.place(), refused.reason);
        self.say(signal, &reason);
    }

    fn say(&mut self, signal: Signal, reason: &str) {
        if self.told.contains(&signal) {
            return;
        }
        self.told.push(signal);
        // Nobody need listen.
        let _ = self.notices.send(format!(
            "telemetry: {} are not taken ({reason}); the run goes on, and what finds no room to wait is dropped and counted",
            signal.words()
        ));
    }
}

impl Signal {
    fn words(self) -> &'static str {
        match self {
            Signal::Traces => "traces",
            Signal::Metrics => "metrics",
            Signal::Logs => "logs",
        }
    }
}
