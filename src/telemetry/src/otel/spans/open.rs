//! What is open of a run: spans that have begun, each with what hangs on it, until they end.

use std::collections::BTreeMap;

use event::{FailureReport, Phase};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};

use super::{SAMPLED, SpanId, TraceId};
use crate::otel::Discretion;
use crate::otel::attributes::{count, nanoseconds, shortened, text};

#[derive(Debug)]
pub struct Open {
    pub id: SpanId,
    pub parent: Option<SpanId>,
    pub name: String,
    pub start: f64,
    pub attributes: Vec<KeyValue>,
    pub fault: Option<String>,
}

#[derive(Debug)]
pub struct Job {
    pub span: Open,
    pub attempt: Option<Attempt>,
}

#[derive(Debug)]
pub struct Attempt {
    pub span: Open,
    pub ranks: BTreeMap<usize, Rank>,
}

#[derive(Debug)]
pub struct Rank {
    pub span: Open,
    pub phase: Option<(Phase, Open)>,
    /// When it was first heard of in another phase.
    pub left: Option<f64>,
    pub epoch: Option<Epoch>,
}

#[derive(Debug)]
pub struct Epoch {
    pub number: u64,
    pub span: Open,
    /// When its newest update ended.
    pub end: f64,
    pub steps: u64,
    pub samples: u64,
    pub images: u64,
}

impl Job {
    pub fn end(self, trace: TraceId, time: f64, fault: Option<String>, ended: &mut Vec<Span>) {
        let mut span = self.span;
        if let Some(attempt) = self.attempt {
            attempt.end(trace, time, fault.clone(), ended);
        }
        span.fault = fault;
        ended.push(span.end(trace, time));
    }
}

impl Attempt {
    pub fn end(self, trace: TraceId, time: f64, fault: Option<String>, ended: &mut Vec<Span>) {
        for rank in self.ranks.into_values() {
            rank.end(trace, time, ended);
        }
        let mut span = self.span;
        span.fault = fault;
        ended.push(span.end(trace, time));
    }
}

impl Rank {
    pub fn new(span: Open) -> Self {
        Rank {
            span,
            phase: None,
            left: None,
            epoch: None,
        }
    }

    pub fn fails(&mut self, report: &FailureReport, discretion: &Discretion) {
        let attributes = &mut self.span.attributes;
        attributes.push(text("error.type", report.class.as_str()));
        attributes.extend(report.phase.map(|at| text("spinectl.phase", at.as_str())));
        attributes.extend(report.step.map(|step| count("spinectl.step", step)));
        attributes.extend(report.exit.as_ref().map(|exit| text("spinectl.exit", exit)));
        self.span.fault = Some(discretion.of(&report.message));
    }

    /// Ends the phase that it has said to be in, at `time` at the latest.
    pub fn end_phase(&mut self, trace: TraceId, time: f64, ended: &mut Vec<Span>) {
        let end = self.left.take().map_or(time, |left| left.min(time));
        ended.extend(self.phase.take().map(|(_, span)| span.end(trace, end)));
    }

    pub fn end_epoch(&mut self, trace: TraceId, ended: &mut Vec<Span>) {
        if let Some(mut epoch) = self.epoch.take() {
            epoch.span.attributes.extend([
                count("spinectl.steps", epoch.steps),
                count("spinectl.samples", epoch.samples),
                count("spinectl.images", epoch.images),
            ]);
            ended.push(epoch.span.end(trace, epoch.end));
        }
    }

    pub fn end(mut self, trace: TraceId, time: f64, ended: &mut Vec<Span>) {
        self.end_phase(trace, time, ended);
        self.end_epoch(trace, ended);
        ended.push(self.span.end(trace, time));
    }
}

impl Open {
    /// The span as OTLP has it; one never ends before it began.
    pub fn end(self, trace: TraceId, time: f64) -> Span {
        let (message, code) = match self.fault {
            Some(fault) => (shortened(fault), StatusCode::Error),
            None => (String::new(), StatusCode::Unset),
        };
        Span {
            trace_id: trace.to_vec(),
            span_id: self.id.to_vec(),
            parent_span_id: self.parent.map_or_else(Vec::new, |parent| parent.to_vec()),
            flags: SAMPLED,
            name: self.name,
            kind: SpanKind::Internal.into(),
            start_time_unix_nano: nanoseconds(self.start),
            end_time_unix_nano: nanoseconds(time.max(self.start)),
            attributes: self.attributes,
            status: Some(Status {
                message,
                code: code.into(),
            }),
            ..Span::default()
        }
    }
}
