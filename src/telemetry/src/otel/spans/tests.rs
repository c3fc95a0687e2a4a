use std::collections::{BTreeMap, BTreeSet};

use event::{FailureClass, FailureReport, Phase, Pulse, Samples};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

use super::*;

const TRACE: TraceId = [7; 16];

fn at(time: f64, rank: Option<usize>, kind: EventKind) -> RunEvent {
    RunEvent {
        time,
        rank,
        ..RunEvent::job("a", 1, kind)
    }
}

fn run_started(time: f64) -> RunEvent {
    RunEvent {
        time,
        ..RunEvent::run(EventKind::RunStarted {
            plan_hash: "abc".into(),
            jobs: 1,
            done: 0,
            device: "cpu".into(),
            ranks: 2,
        })
    }
}

fn run_finished(time: f64, state: &str) -> RunEvent {
    RunEvent {
        time,
        ..RunEvent::run(EventKind::RunFinished {
            state: state.into(),
            seconds: time,
        })
    }
}

fn job_started(time: f64) -> RunEvent {
    at(time, None, EventKind::JobStarted { world_size: 2 })
}

fn heartbeat(time: f64, rank: usize, phase: Phase) -> RunEvent {
    let (step, sequence) = (0, 0);
    let kind = EventKind::Heartbeat {
        phase,
        step,
        sequence,
    };
    at(time, Some(rank), kind)
}

fn pulse(time: f64, rank: usize, phase: Phase) -> RunEvent {
    let pulse = Pulse {
        phase,
        step: 1,
        sequence: 1,
        waits: false,
        progress: 1,
        idle_seconds: 0.0,
        local_seconds: None,
        samples: Samples::default(),
    };
    at(time, Some(rank), EventKind::Pulse(pulse))
}

/// An update of one second of which half is waited for data.
fn step(time: f64, step: u64, epoch: u64) -> RunEvent {
    let record = StepRecord {
        step,
        epoch,
        samples: 4,
        images: 32,
        seconds: 1.0,
        phases: BTreeMap::from([(Phase::Forward, 0.25), (Phase::DataWait, 0.5)]),
        ..StepRecord::default()
    };
    at(time, Some(0), EventKind::Step(record))
}

fn job_finished(time: f64) -> RunEvent {
    let (seconds, metrics) = (1.0, BTreeMap::new());
    at(time, None, EventKind::JobFinished { seconds, metrics })
}

fn failed(time: f64, rank: usize) -> RunEvent {
    let report = FailureReport {
        phase: Some(Phase::Backward),
        ..FailureReport::new(time, FailureClass::Killed, "signal 9")
    };
    at(time, Some(rank), EventKind::RankFailed(report))
}

/// All spans of these events, one update in `sample_steps` traced.
fn spans(sample_steps: u64, events: &[RunEvent]) -> Vec<Span> {
    let mut tree = Tree::new(TRACE, sample_steps, Discretion::default());
    let ended = events.iter().flat_map(|event| {
        let Ended { step, structure } = tree.take(event);
        step.into_iter().chain(structure)
    });
    ended.collect()
}

/// Each span with its parents before it, its beginning and its end: `launch/job a/... 1..3`.
fn paths(spans: &[Span]) -> BTreeSet<String> {
    let by_id: BTreeMap<&[u8], &Span> = spans
        .iter()
        .map(|span| (span.span_id.as_slice(), span))
        .collect();
    assert_eq!(by_id.len(), spans.len(), "ids are unique");
    let path = |span: &Span| {
        let mut names = vec![span.name.clone()];
        let mut at = span;
        while !at.parent_span_id.is_empty() {
            let child = at;
            at = by_id[at.parent_span_id.as_slice()];
            assert!(at.start_time_unix_nano <= child.start_time_unix_nano);
            assert!(at.end_time_unix_nano >= child.end_time_unix_nano);
            names.push(at.name.clone());
        }
        names.reverse();
        let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
        format!(
            "{} {}..{}",
            names.join("/"),
            seconds(span.start_time_unix_nano),
            seconds(span.end_time_unix_nano)
        )
    };
    spans.iter().map(path).collect()
}

fn find<'s>(spans: &'s [Span], name: &str) -> &'s Span {
    let mut found = spans.iter().filter(|span| span.name == name);
    let first = found.next().unwrap();
    assert!(found.next().is_none(), "{name} is there twice");
    first
}

fn code(span: &Span) -> i32 {
    span.status.as_ref().map_or(0, |status| status.code)
}

#[test]
fn a_run_is_one_tree_with_the_times_of_its_events() {
    let evaluated = EventKind::Evaluated {
        step: 3,
        set: "held_out".into(),
        metrics: BTreeMap::from([("loss".to_owned(), 0.5)]),
    };
    let written = EventKind::CheckpointWritten {
        step: 3,
        bytes: 100,
        seconds: 0.5,
        stalled_seconds: 0.125,
        age_seconds: 0.25,
    };
    let spans = spans(
        3,
        &[
            run_started(1.0),
            job_started(2.0),
            heartbeat(2.5, 0, Phase::StartUp),
            heartbeat(2.75, 1, Phase::StartUp),
            heartbeat(3.0, 0, Phase::Rendezvous),
            pulse(3.5, 1, Phase::Forward),
            step(6.0, 1, 0),
            step(7.0, 2, 0),
            step(8.0, 3, 0),
            step(10.0, 4, 1),
            heartbeat(10.5, 0, Phase::Evaluate),
            at(11.0, Some(0), evaluated),
            at(12.0, Some(0), written),
            job_finished(13.0),
            run_finished(14.0, "done"),
        ],
    );
    let rank = "launch/job a/attempt 1/rank 0";
    let traced = |epoch: u64, end: f64| {
        let step = format!("{rank}/epoch {epoch}/step");
        let (begin, half) = (end - 1.0, end - 0.5);
        [
            format!("{step} {begin}..{end}"),
            format!("{step}/data wait {begin}..{half}"),
            format!("{step}/forward {half}..{}", half + 0.25),
        ]
    };
    let expected: BTreeSet<String> = [
        "launch 1..14".to_owned(),
        "launch/job a 2..13".to_owned(),
        "launch/job a/attempt 1 2..13".to_owned(),
        format!("{rank} 2..13"),
        format!("{rank}/start-up 2.5..3"),
        format!("{rank}/rendezvous 3..5"),
        format!("{rank}/epoch 0 5..8"),
        format!("{rank}/epoch 1 9..10"),
        format!("{rank}/evaluate 10.5..11"),
        format!("{rank}/checkpoint 11.25..11.75"),
        "launch/job a/attempt 1/rank 1 2..13".to_owned(),
        "launch/job a/attempt 1/rank 1/start-up 2.75..3.5".to_owned(),
    ]
    .into_iter()
    // The first update of each epoch and every third.
    .chain([traced(0, 6.0), traced(0, 8.0), traced(1, 10.0)].concat())
    .collect();
    assert_eq!(paths(&spans), expected);
    let epoch = find(&spans, "epoch 0");
    assert!(epoch.attributes.contains(&count("spinectl.images", 96)));
    let evaluate = find(&spans, "evaluate");
    assert!(
        evaluate
            .attributes
            .contains(&number("spinectl.evaluation.loss", 0.5))
    );
    assert!(
        spans
            .iter()
            .all(|span| span.trace_id == TRACE && code(span) == 0)
    );
}

#[test]
fn a_failure_marks_its_rank_and_attempt_and_the_next_attempt_hangs_on_the_same_job() {
    let retried = EventKind::JobRetried {
        reason: "rank 1 was killed".into(),
        delay_seconds: 1.0,
    };
    let mut again = job_started(6.0);
    again.attempt = Some(2);
    let resumed = EventKind::JobResumed {
        step: 3,
        checkpoint: "c".into(),
        skipped: Vec::new(),
    };
    let spans = spans(
        1,
        &[
            run_started(1.0),
            job_started(2.0),
            step(4.0, 1, 0),
            failed(4.5, 1),
            at(5.0, None, retried),
            again,
            at(6.5, Some(0), resumed),
            job_finished(7.0),
            run_finished(8.0, "done"),
        ],
    );
    let seen = paths(&spans);
    for path in [
        "launch/job a 2..7",
        "launch/job a/attempt 1 2..5",
        "launch/job a/attempt 1/rank 1 2..4.5",
        "launch/job a/attempt 1/rank 0/epoch 0 3..4",
        "launch/job a/attempt 2 6..7",
        "launch/job a/attempt 2/rank 1 6..7",
    ] {
        assert!(seen.contains(path), "{path}\n{seen:#?}");
    }
    let failed: Vec<_> = spans.iter().filter(|span| code(span) != 0).collect();
    let names: Vec<_> = failed.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["rank 1", "attempt 1"]);
    assert!(
        failed
            .iter()
            .all(|span| code(span) == i32::from(StatusCode::Error))
    );
    assert!(failed[0].attributes.contains(&text("error.type", "killed")));
    let resumed = find(&spans, "attempt 2");
    assert!(
        resumed
            .attributes
            .contains(&count("spinectl.resumed_from.step", 3))
    );
    assert_eq!(code(find(&spans, "launch")), 0);
}

#[test]
fn what_is_open_as_a_run_ends_is_closed_with_it() {
    let begun = [
        run_started(1.0),
        job_started(2.0),
        heartbeat(3.0, 0, Phase::Tables),
    ];
    let mut tree = Tree::new(TRACE, 1, Discretion::default());
    assert!(
        begun
            .iter()
            .all(|event| tree.take(event) == Ended::default())
    );
    let spans = tree.end(9.0, Some("broken off".into()));
    let seen = paths(&spans);
    assert!(
        seen.contains("launch/job a/attempt 1/rank 0/tables 3..9"),
        "{seen:?}"
    );
    assert_eq!(spans.len(), 6);
    let launch = find(&spans, "launch").status.as_ref().unwrap();
    assert_eq!(launch.message, "broken off");
    assert!(tree.end(10.0, None).is_empty(), "once");

    let mut tree = Tree::new(TRACE, 1, Discretion::default());
    tree.take(&run_started(1.0));
    let ended = tree.take(&run_finished(2.0, "failed"));
    assert_eq!(code(&ended.structure[0]), i32::from(StatusCode::Error));
}

#[test]
fn an_event_belongs_to_the_innermost_span_that_is_open() {
    let mut tree = Tree::new(TRACE, 1, Discretion::default());
    let of_rank = pulse(3.0, 1, Phase::Forward);
    assert_eq!(tree.context(&of_rank), None);
    tree.take(&run_started(1.0));
    let launch = tree.context(&of_rank).unwrap();
    tree.take(&job_started(2.0));
    let rank = tree.context(&of_rank).unwrap();
    let attempt = tree.context(&job_finished(4.0)).unwrap();
    assert_eq!(BTreeSet::from([launch, rank, attempt]).len(), 3);
    tree.take(&failed(3.5, 1));
    assert_eq!(tree.context(&of_rank), Some(attempt), "its rank has ended");
    tree.take(&job_finished(4.0));
    assert_eq!(tree.context(&of_rank), Some(launch));
}

#[test]
fn events_that_nothing_has_begun_are_passed_over() {
    let events = [
        job_started(1.0),
        step(2.0, 1, 0),
        failed(2.0, 5),
        job_finished(3.0),
        run_finished(4.0, "done"),
    ];
    assert!(spans(1, &events).is_empty());
}

#[test]
fn a_job_that_never_starts_is_a_failed_span() {
    let reason = "cannot start the ranks".to_owned();
    let events = [
        run_started(1.0),
        at(2.0, None, EventKind::JobFailed { reason }),
        run_finished(3.0, "failed"),
    ];
    let spans = spans(1, &events);
    assert!(paths(&spans).contains("launch/job a 2..2"));
    let status = find(&spans, "job a").status.as_ref().unwrap();
    assert_eq!(status.code, i32::from(StatusCode::Error));
    assert_eq!(status.message, "cannot start the ranks");
}

#[test]
fn a_phase_has_ended_where_the_first_update_begins_also_where_a_pulse_comes_within_it() {
    let events = [
        run_started(0.0),
        job_started(1.0),
        heartbeat(1.0, 0, Phase::Rendezvous),
        heartbeat(1.0, 1, Phase::Rendezvous),
        pulse(3.5, 0, Phase::Forward),
        pulse(3.5, 1, Phase::Forward),
        pulse(3.8, 1, Phase::Backward),
        step(4.0, 1, 0),
        job_finished(5.0),
        run_finished(6.0, "done"),
    ];
    let paths = paths(&spans(1, &events));
    for path in [
        "launch/job a/attempt 1/rank 0/rendezvous 1..3",
        "launch/job a/attempt 1/rank 0/epoch 0 3..4",
        "launch/job a/attempt 1/rank 1/rendezvous 1..3.5",
    ] {
        assert!(paths.contains(path), "{path}: {paths:#?}");
    }
}
