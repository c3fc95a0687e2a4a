//! A run's events as log records: what a person would want to read, beside the trace that it belongs to.

use event::{EventKind, FailureReport, RunEvent};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};

use super::Discretion;
use super::attributes::{body, count, nanoseconds, number, text};
use super::spans::{SAMPLED, SpanId, TraceId};

/// What to log of an event; nothing of those that come again and again. `trace`: the span that was open as it happened.
pub(crate) fn record(
    event: &RunEvent,
    trace: Option<(TraceId, SpanId)>,
    discretion: &Discretion,
) -> Option<LogRecord> {
    use SeverityNumber::{Error, Info, Warn};
    let (severity, name, message, more) = match &event.kind {
        EventKind::RunStarted {
            plan_hash,
            jobs,
            done,
            device,
            ranks,
        } => (
            Info,
            "run.started",
            format!("{done} of {jobs} jobs are done; {ranks} ranks on {device}"),
            vec![text("spinectl.plan.hash", plan_hash)],
        ),
        EventKind::RunFinished { state, seconds } => (
            if state == "failed" { Error } else { Info },
            "run.finished",
            format!("run {state} after {seconds:.0} s"),
            vec![text("spinectl.run.state", state)],
        ),
        EventKind::JobResumed { step, skipped, .. } => (
            if skipped.is_empty() { Info } else { Warn },
            "job.resumed",
            match skipped.is_empty() {
                true => format!("goes on from step {step}"),
                false => format!("goes on from step {step}; skipped {}", skipped.join("; ")),
            },
            vec![count("spinectl.step", *step)],
        ),
        EventKind::JobFinished { seconds, metrics } => (
            Info,
            "job.finished",
            format!("finished after {seconds:.0} s"),
            metrics
                .iter()
                .map(|(name, value)| number(&format!("spinectl.evaluation.{name}"), *value))
                .collect(),
        ),
        EventKind::JobFailed { reason } => (Error, "job.failed", reason.clone(), Vec::new()),
        EventKind::JobRetried {
            reason,
            delay_seconds,
        } => (
            Warn,
            "job.retried",
            format!("starts again in {delay_seconds:.0} s: {reason}"),
            Vec::new(),
        ),
        EventKind::JobStopped { step } => (
            Info,
            "job.stopped",
            match step {
                Some(step) => format!("stopped; saved at step {step}"),
                None => "stopped before its first step".to_owned(),
            },
            Vec::new(),
        ),
        EventKind::JobPaused => (Info, "job.paused", "paused".to_owned(), Vec::new()),
        EventKind::JobCancelled { skipped } => (
            Info,
            "job.cancelled",
            match skipped.is_empty() {
                true => "cancelled".to_owned(),
                false => format!("cancelled, and with it {}", skipped.join(", ")),
            },
            Vec::new(),
        ),
        EventKind::JobReleased => (Info, "job.released", "may run again".to_owned(), Vec::new()),
        EventKind::TableWritten { table, rows } => (
            Info,
            "table.written",
            format!("table {table}: {rows} rows"),
            Vec::new(),
        ),
        EventKind::WeightsLoaded { sha256, report, .. } => (
            Info,
            "weights.loaded",
            format!("weights of SHA-256 {sha256}: {report}"),
            Vec::new(),
        ),
        EventKind::Warning { message } => (Warn, "warning", message.clone(), Vec::new()),
        EventKind::RankFailed(report) => (
            Error,
            "rank.failed",
            report.message.clone(),
            failure(report, discretion),
        ),
        EventKind::JobStarted { .. }
        | EventKind::Heartbeat { .. }
        | EventKind::Pulse(_)
        | EventKind::GpuUse(_)
        | EventKind::Stack { .. }
        | EventKind::Step(_)
        | EventKind::Evaluated { .. }
        | EventKind::TrainingStarted { .. }
        | EventKind::Scores(_)
        | EventKind::Picture(_)
        | EventKind::Histogram(_)
        | EventKind::Progress { .. }
        | EventKind::CheckpointWritten { .. } => return None,
    };
    let mut attributes = about(event);
    attributes.extend(more);
    let (trace_id, span_id) = match trace {
        Some((trace, span)) => (trace.to_vec(), span.to_vec()),
        None => (Vec::new(), Vec::new()),
    };
    Some(LogRecord {
        time_unix_nano: nanoseconds(event.time),
        observed_time_unix_nano: nanoseconds(event.time),
        severity_number: severity.into(),
        severity_text: match severity {
            Error => "ERROR",
            Warn => "WARN",
            _ => "INFO",
        }
        .to_owned(),
        body: Some(body(discretion.of(&message))),
        attributes,
        flags: if trace_id.is_empty() { 0 } else { SAMPLED },
        trace_id,
        span_id,
        event_name: format!("spinectl.{name}"),
        ..LogRecord::default()
    })
}

fn about(event: &RunEvent) -> Vec<KeyValue> {
    let job = event.job.as_ref().map(|job| text("spinectl.job", job));
    let attempt = event
        .attempt
        .map(|attempt| count("spinectl.attempt", u64::from(attempt)));
    let rank = event.rank.map(|rank| count("spinectl.rank", rank as u64));
    [job, attempt, rank].into_iter().flatten().collect()
}

/// A verdict: its class, place, samples and stack.
fn failure(report: &FailureReport, discretion: &Discretion) -> Vec<KeyValue> {
    let said = |key, words: &Option<String>| words.as_ref().map(|it| text(key, discretion.of(it)));
    let optional = [
        report.phase.map(|at| text("spinectl.phase", at.as_str())),
        report.step.map(|step| count("spinectl.step", step)),
        report.exit.as_ref().map(|exit| text("spinectl.exit", exit)),
        report.device.as_ref().map(|it| text("spinectl.device", it)),
        (!report.samples.is_empty())
            .then(|| text("spinectl.sample.ids", report.samples.to_string())),
        said("spinectl.process.state", &report.state),
        said("spinectl.done", &report.done),
        said("spinectl.advice", &report.advice),
    ];
    let mut attributes = vec![text("error.type", report.class.as_str())];
    attributes.extend(optional.into_iter().flatten());
    if !report.stack.is_empty() {
        attributes.extend([
            text("exception.type", report.class.as_str()),
            text("exception.message", discretion.of(&report.message)),
            text("exception.stacktrace", report.stack.join("\n")),
        ]);
    }
    attributes
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use event::{FailureClass, Phase, Samples};

    use super::*;

    #[test]
    fn a_verdict_is_an_error_in_its_span_and_names_no_file_of_the_data() {
        let report = FailureReport {
            phase: Some(Phase::DataWait),
            step: Some(4),
            samples: Samples {
                ids: vec!["1.2.3/41".into()],
                count: 1,
            },
            stack: vec!["read".into(), "main".into()],
            advice: Some("look at /scans/DOE".into()),
            ..FailureReport::new(
                7.0,
                FailureClass::Data,
                "cannot read /scans/DOE JOHN/1.dcm: torn",
            )
        };
        let event = RunEvent {
            time: 7.5,
            rank: Some(1),
            ..RunEvent::job("stage2", 3, EventKind::RankFailed(report))
        };
        let discretion = Discretion::new([Path::new("/scans")]);
        let record = record(&event, Some(([1; 16], [2; 8])), &discretion).unwrap();
        assert_eq!(
            (record.severity_number, record.severity_text.as_str()),
            (17, "ERROR")
        );
        assert_eq!(record.event_name, "spinectl.rank.failed");
        assert_eq!((record.trace_id.len(), record.span_id.len()), (16, 8));
        assert_eq!(record.time_unix_nano, 7_500_000_000);
        let written = format!("{record:?}");
        assert!(
            !written.contains("DOE") && written.contains("1.2.3/41"),
            "{written}"
        );
        for attribute in [
            text("spinectl.job", "stage2"),
            count("spinectl.attempt", 3),
            count("spinectl.rank", 1),
            text("error.type", "data"),
            text("spinectl.sample.ids", "1.2.3/41"),
            text("exception.type", "data"),
            text("exception.stacktrace", "read\nmain"),
        ] {
            assert!(record.attributes.contains(&attribute), "{attribute:?}");
        }
    }
}
