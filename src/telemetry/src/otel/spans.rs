//! A run's events as one tree of spans: launch, job, attempt, rank, epoch, and of some updates the step with its phases.
//!
//! ```text
//! launch ─ job ─ attempt ─┬─ rank 0 ─┬─ start-up, rendezvous, evaluate, inference, checkpoint, ...
//!                         │          └─ epoch ─ step ─ data wait, forward, backward, all-reduce, optimizer
//!                         └─ rank 1 ─ ...
//! ```
//!
//! Pure: all times are the events' own. A span is handed out once it has ended, so parents come after their children.

mod open;

use std::collections::BTreeMap;

use event::{EventKind, RunEvent, StepRecord};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::Span;
use sha2::{Digest, Sha256};

use super::Discretion;
use super::attributes::{count, number, text};
use open::{Attempt, Epoch, Job, Open, Rank};

pub(crate) type TraceId = [u8; 16];
pub(crate) type SpanId = [u8; 8];

/// The bit of W3C's trace flags that says that a trace is recorded.
pub(crate) const SAMPLED: u32 = 1;

/// Spans that have ended.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Ended {
    /// What others hang on: to be kept if at all possible.
    pub structure: Vec<Span>,
    /// A sampled step with its phases: may be dropped as a whole.
    pub step: Vec<Span>,
}

/// The spans that are open, and how the next event changes them.
#[derive(Debug)]
pub(crate) struct Tree {
    trace: TraceId,
    spans: u64,
    /// One update in so many becomes a span, and the first of an epoch.
    sample_steps: u64,
    discretion: Discretion,
    launch: Option<Open>,
    jobs: BTreeMap<String, Job>,
}

impl Tree {
    pub fn new(trace: TraceId, sample_steps: u64, discretion: Discretion) -> Self {
        Tree {
            trace,
            spans: 0,
            sample_steps: sample_steps.max(1),
            discretion,
            launch: None,
            jobs: BTreeMap::new(),
        }
    }

    /// The innermost open span that an event is about.
    pub fn context(&self, event: &RunEvent) -> Option<SpanId> {
        let launch = self.launch.as_ref().map(|launch| launch.id);
        let Some(job) = event.job.as_ref().and_then(|job| self.jobs.get(job)) else {
            return launch;
        };
        let Some(attempt) = &job.attempt else {
            return Some(job.span.id);
        };
        let rank = event.rank.and_then(|rank| attempt.ranks.get(&rank));
        Some(rank.map_or(attempt.span.id, |rank| rank.span.id))
    }

    /// What an event ends.
    pub fn take(&mut self, event: &RunEvent) -> Ended {
        let mut ended = Ended::default();
        match (&event.kind, &event.job) {
            (EventKind::RunStarted { .. }, _) => self.begin_launch(event),
            (EventKind::RunFinished { state, .. }, _) => {
                let fault = (state == "failed").then(|| "the run failed".to_owned());
                if let Some(launch) = &mut self.launch {
                    launch.attributes.push(text("spinectl.run.state", state));
                }
                ended.structure = self.end(event.time, fault);
            }
            (EventKind::JobStarted { world_size }, Some(job)) => {
                ended.structure = self.begin_attempt(job, event, *world_size);
            }
            (EventKind::JobFinished { .. } | EventKind::JobStopped { .. }, Some(job)) => {
                ended.structure = self.end_job(job, event.time, None);
            }
            (EventKind::JobFailed { reason }, Some(job)) => {
                // Some fail before they start: they are to be seen, too.
                if !self.jobs.contains_key(job) {
                    self.begin_job(job, event.time);
                }
                ended.structure = self.end_job(job, event.time, Some(reason));
            }
            (EventKind::JobRetried { reason, .. }, Some(job)) => {
                let fault = self.discretion.of(reason);
                if let Some(job) = self.jobs.get_mut(job)
                    && let Some(attempt) = job.attempt.take()
                {
                    attempt.end(self.trace, event.time, Some(fault), &mut ended.structure);
                }
            }
            (EventKind::JobResumed { step, .. }, Some(job)) => {
                if let Some(attempt) = self.jobs.get_mut(job).and_then(|job| job.attempt.as_mut()) {
                    let attributes = &mut attempt.span.attributes;
                    attributes.push(count("spinectl.resumed_from.step", *step));
                }
            }
            _ => self.take_of_rank(event, &mut ended),
        }
        ended
    }

    /// Ends all that is open. `fault`: why the launch did not end well.
    pub fn end(&mut self, time: f64, fault: Option<String>) -> Vec<Span> {
        let mut ended = Vec::new();
        for (_, job) in std::mem::take(&mut self.jobs) {
            job.end(self.trace, time, None, &mut ended);
        }
        if let Some(mut launch) = self.launch.take() {
            launch.fault = fault;
            ended.push(launch.end(self.trace, time));
        }
        ended
    }

    fn open(
        &mut self,
        parent: Option<SpanId>,
        name: impl Into<String>,
        start: f64,
        attributes: Vec<KeyValue>,
    ) -> Open {
        self.spans += 1;
        let digest = Sha256::new()
            .chain_update(self.trace)
            .chain_update(self.spans.to_be_bytes())
            .finalize();
        let mut id = SpanId::default();
        id.copy_from_slice(&digest[..8]);
        Open {
            id,
            parent,
            name: name.into(),
            start,
            attributes,
            fault: None,
        }
    }

    fn begin_launch(&mut self, event: &RunEvent) {
        let EventKind::RunStarted {
            plan_hash,
            jobs,
            done,
            device,
            ranks,
        } = &event.kind
        else {
            return;
        };
        let attributes = vec![
            text("spinectl.plan.hash", plan_hash),
            count("spinectl.run.jobs", *jobs as u64),
            count("spinectl.run.jobs_done", *done as u64),
            text("spinectl.device", device),
            count("spinectl.ranks", *ranks as u64),
        ];
        self.launch = Some(self.open(None, "launch", event.time, attributes));
    }

    /// Nothing where no launch has begun.
    fn begin_job(&mut self, name: &str, time: f64) {
        let Some(launch) = self.launch.as_ref().map(|launch| launch.id) else {
            return;
        };
        let attributes = vec![text("spinectl.job", name)];
        let span = self.open(Some(launch), format!("job {name}"), time, attributes);
        let attempt = None;
        self.jobs.insert(name.to_owned(), Job { span, attempt });
    }

    /// An attempt and its ranks; the job too, where it is the first.
    fn begin_attempt(&mut self, name: &str, event: &RunEvent, world_size: usize) -> Vec<Span> {
        if !self.jobs.contains_key(name) {
            self.begin_job(name, event.time);
        }
        let mut ended = Vec::new();
        let Some(mut job) = self.jobs.remove(name) else {
            return ended;
        };
        if let Some(attempt) = job.attempt.take() {
            attempt.end(self.trace, event.time, None, &mut ended);
        }
        let number = u64::from(event.attempt.unwrap_or(1));
        let about = vec![
            text("spinectl.job", name),
            count("spinectl.attempt", number),
        ];
        let mut attributes = about.clone();
        attributes.push(count("spinectl.world_size", world_size as u64));
        let attempt = format!("attempt {number}");
        let span = self.open(Some(job.span.id), attempt, event.time, attributes);
        let ranks = (0..world_size).map(|rank| {
            let mut attributes = about.clone();
            attributes.push(count("spinectl.rank", rank as u64));
            let name = format!("rank {rank}");
            let span = self.open(Some(span.id), name, event.time, attributes);
            (rank, Rank::new(span))
        });
        let ranks = ranks.collect();
        job.attempt = Some(Attempt { span, ranks });
        self.jobs.insert(name.to_owned(), job);
        ended
    }

    fn end_job(&mut self, name: &str, time: f64, fault: Option<&str>) -> Vec<Span> {
        let mut ended = Vec::new();
        let fault = fault.map(|fault| self.discretion.of(fault));
        if let Some(job) = self.jobs.remove(name) {
            job.end(self.trace, time, fault, &mut ended);
        }
        ended
    }

    /// What is said of one rank of an attempt that is under way.
    fn take_of_rank(&mut self, event: &RunEvent, ended: &mut Ended) {
        let Some((name, index)) = event.job.as_ref().zip(event.rank) else {
            return;
        };
        let attempt = self.jobs.get_mut(name).and_then(|job| job.attempt.as_mut());
        let Some(mut rank) = attempt.and_then(|attempt| attempt.ranks.remove(&index)) else {
            return;
        };
        let mut has_failed = false;
        match &event.kind {
            EventKind::Heartbeat { phase, step, .. } => {
                rank.end_phase(self.trace, event.time, &mut ended.structure);
                let attributes = vec![count("spinectl.step", *step)];
                let parent = Some(rank.span.id);
                let span = self.open(parent, phase.as_str(), event.time, attributes);
                rank.phase = Some((*phase, span));
            }
            EventKind::Pulse(pulse)
                if rank
                    .phase
                    .as_ref()
                    .is_some_and(|(at, _)| *at != pulse.phase) =>
            {
                // Not its end yet: an update is told of once it is over, and the phase before it ends where it began.
                rank.left.get_or_insert(event.time);
            }
            EventKind::Evaluated { metrics, .. } => {
                if let Some((_, span)) = &mut rank.phase {
                    let metrics = metrics.iter();
                    span.attributes.extend(metrics.map(|(name, value)| {
                        number(&format!("spinectl.evaluation.{name}"), *value)
                    }));
                }
                rank.end_phase(self.trace, event.time, &mut ended.structure);
            }
            EventKind::Step(step) => {
                self.step(&mut rank, event.time, step, ended);
            }
            EventKind::CheckpointWritten {
                step,
                bytes,
                seconds,
                stalled_seconds,
                age_seconds,
            } => {
                let attributes = vec![
                    count("spinectl.step", *step),
                    count("spinectl.checkpoint.size", *bytes),
                    number("spinectl.checkpoint.stall", *stalled_seconds),
                ];
                let end = event.time - age_seconds;
                let start = end - seconds;
                let span = self.open(Some(rank.span.id), "checkpoint", start, attributes);
                ended.structure.push(span.end(self.trace, end));
            }
            EventKind::RankFailed(report) => {
                rank.fails(report, &self.discretion);
                has_failed = true;
            }
            _ => {}
        }
        let attempt = self.jobs.get_mut(name).and_then(|job| job.attempt.as_mut());
        if has_failed {
            rank.end(self.trace, event.time, &mut ended.structure);
        } else if let Some(attempt) = attempt {
            attempt.ranks.insert(index, rank);
        }
    }

    fn step(&mut self, rank: &mut Rank, time: f64, record: &StepRecord, ended: &mut Ended) {
        let start = time - record.seconds;
        rank.end_phase(self.trace, start, &mut ended.structure);
        let same = rank.epoch.take_if(|epoch| epoch.number == record.epoch);
        let begins = same.is_none();
        let mut epoch = match same {
            Some(epoch) => epoch,
            None => {
                rank.end_epoch(self.trace, &mut ended.structure);
                let attributes = vec![count("spinectl.epoch", record.epoch)];
                let name = format!("epoch {}", record.epoch);
                Epoch {
                    number: record.epoch,
                    span: self.open(Some(rank.span.id), name, start, attributes),
                    end: time,
                    steps: 0,
                    samples: 0,
                    images: 0,
                }
            }
        };
        epoch.end = time;
        epoch.steps += 1;
        epoch.samples += record.samples;
        epoch.images += record.images;
        if begins || record.step.is_multiple_of(self.sample_steps) {
            self.sample(epoch.span.id, start, time, record, &mut ended.step);
        }
        rank.epoch = Some(epoch);
    }

    /// An update and its phases. Phases are sums over its micro-batches: they stand one after the other, in the order of an update.
    fn sample(
        &mut self,
        epoch: SpanId,
        start: f64,
        end: f64,
        record: &StepRecord,
        ended: &mut Vec<Span>,
    ) {
        let mut attributes = vec![
            count("spinectl.step", record.step),
            count("spinectl.epoch", record.epoch),
            number("spinectl.loss", record.loss),
            number("spinectl.learning_rate", record.learning_rate),
            number("spinectl.gradient.norm", record.gradient_norm),
            count("spinectl.samples", record.samples),
            count("spinectl.images", record.images),
        ];
        attributes.extend(record.loss_scale.map(|x| number("spinectl.loss_scale", x)));
        let step = self.open(Some(epoch), "step", start, attributes);
        let mut from = start;
        for (phase, seconds) in &record.phases {
            let span = self.open(Some(step.id), phase.as_str(), from, Vec::new());
            from = (from + seconds).min(end);
            ended.push(span.end(self.trace, from));
        }
        ended.push(step.end(self.trace, end));
    }
}

#[cfg(test)]
mod tests;
