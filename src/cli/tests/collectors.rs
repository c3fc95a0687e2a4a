//! That collectors which take nothing, or not all, or not at once, hold up nothing, and that what is lost is counted and told.

#[expect(dead_code, reason = "these launches have an environment of their own")]
mod fake_run;
#[expect(dead_code, reason = "other tests look at the tree")]
#[path = "../../../tests/src/otlp.rs"]
mod otlp;
mod otlp_run;
mod program;

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use fake_run::{Running, folder, wait_until};
use otlp_run::{TRAINS, launch, receiver};
use program::Ran;
use serde_json::Value;

/// Both protocols: as the collector calls them and as the variable has them.
const PROTOCOLS: [(&str, &str); 2] = [("grpc", "grpc"), ("http", "http/protobuf")];

/// Says a thousand warnings.
const WARNS: &str = r#"
case $job in stage1a*)
    for number in $(seq 1000); do say "\"event\":\"warning\",\"message\":\"warning $number\""; done ;;
esac
"#;

/// A port at which nobody listens any more.
fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// How many lines of what a launch said hold this.
fn told(ran: &Ran, part: &str) -> usize {
    ran.err.lines().filter(|line| line.contains(part)).count()
}

/// Spans and log records that a launch says it has lost; none where it does not.
#[track_caller]
fn dropped(ran: &Ran) -> Option<(u64, u64)> {
    let lost = |line: &str| {
        let (spans, rest) = line
            .split_once("telemetry: ")?
            .1
            .split_once(" spans and ")?;
        let (logs, _) = rest.split_once(" log records were dropped")?;
        Some((spans.parse().unwrap(), logs.parse().unwrap()))
    };
    let mut lost = ran.err.lines().filter_map(lost);
    let first = lost.next();
    assert_eq!(lost.next(), None, "{}", ran.err);
    first
}

/// The run is whole, and what was lost is told once and in the end.
#[track_caller]
fn nothing_but_telemetry_is_lost(folder: &Path, ran: &Ran) {
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(!ran.out.contains("telemetry: "), "{}", ran.out);
    let events = fs::read_to_string(folder.join("runs/small/events.jsonl")).unwrap();
    assert!(events.trim_end().ends_with('}') && events.contains("run_finished"));
    assert_eq!(
        told(ran, "telemetry: traces are not taken"),
        1,
        "{}",
        ran.err
    );
    assert!(
        dropped(ran).is_some_and(|(spans, _)| spans > 0),
        "{}",
        ran.err
    );
}

#[test]
fn a_collector_that_refuses_costs_spans_and_nothing_else() {
    for (_, word) in PROTOCOLS {
        let folder = folder(TRAINS);
        let output = launch(folder.path(), closed_port(), word, &[]).output();
        nothing_but_telemetry_is_lost(folder.path(), &output.unwrap().into());
    }
}

#[test]
fn a_collector_that_hangs_costs_spans_and_nothing_else() {
    let quick = [
        ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "200"),
    ];
    for (protocol, word) in PROTOCOLS {
        let folder = folder(TRAINS);
        let receiver = receiver(protocol, "hang");
        let output = launch(folder.path(), receiver.port, word, &quick).output();
        nothing_but_telemetry_is_lost(folder.path(), &output.unwrap().into());
    }
}

#[test]
fn a_collector_that_is_killed_costs_what_comes_after_it() {
    let folder = folder(TRAINS);
    fs::write(folder.path().join("wait"), "").unwrap();
    let receiver = receiver("grpc", "take");
    let quick = [("OTEL_BSP_SCHEDULE_DELAY", "10")];
    let running = launch(folder.path(), receiver.port, "grpc", &quick).spawn();
    let running = Running(running.unwrap());
    // Something has arrived, and the ranks of a training wait.
    receiver.first();
    wait_until("a rank waits", || folder.path().join("waits-0").exists());
    drop(receiver);
    fs::remove_file(folder.path().join("wait")).unwrap();
    nothing_but_telemetry_is_lost(folder.path(), &Ran::from(running));
}

#[test]
fn a_queue_that_is_full_is_told_at_its_first_loss() {
    let folder = folder(WARNS);
    let receiver = receiver("grpc", "hang");
    let small = [("OTEL_BSP_MAX_QUEUE_SIZE", "16")];
    let output = launch(folder.path(), receiver.port, "grpc", &small).output();
    let ran = Ran::from(output.unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let first = "the first spans or log records have been dropped";
    assert_eq!(told(&ran, first), 1, "{}", ran.err);
    assert!(
        dropped(&ran).is_some_and(|(_, logs)| logs > 0),
        "{}",
        ran.err
    );
}

#[test]
fn a_signal_that_hangs_holds_up_no_other() {
    for (protocol, word) in PROTOCOLS {
        let folder = folder(TRAINS);
        let receiver = receiver(protocol, "hang:traces");
        let output = launch(folder.path(), receiver.port, word, &[]).output();
        let ran = Ran::from(output.unwrap());
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let got = receiver.end();
        assert!(!got.requests.contains_key("traces"));
        let finished = |log: &&Value| log["eventName"] == "spinectl.run.finished";
        assert!(got.logs().iter().any(finished), "{}", got.text);
        assert_eq!(got.sums_by_job("spinectl.steps").len(), 2);
        let (spans, logs) = dropped(&ran).unwrap();
        assert!(spans > 0 && logs == 0, "{}", ran.err);
    }
}

#[test]
fn what_is_refused_for_the_moment_is_sent_again() {
    let quick = [("OTEL_BSP_SCHEDULE_DELAY", "10")];
    for (protocol, word) in PROTOCOLS {
        let folder = folder(TRAINS);
        fs::write(folder.path().join("wait"), "").unwrap();
        let receiver = receiver(protocol, "busy");
        let running = launch(folder.path(), receiver.port, word, &quick).spawn();
        let running = Running(running.unwrap());
        // Spans and log records were refused by now, and some have been taken since.
        receiver.first();
        fs::remove_file(folder.path().join("wait")).unwrap();
        let ran = Ran::from(running);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert_eq!(dropped(&ran), None, "{}", ran.err);
        for signal in ["traces", "logs", "metrics"] {
            let line = format!("telemetry: {signal} are not taken (http://127.0.0.1:");
            assert_eq!(told(&ran, &line), 1, "{}", ran.err);
        }
        assert!(receiver.end().requests.contains_key("metrics"));
    }
}

#[test]
fn what_is_refused_at_the_end_of_a_run_is_sent_once_more() {
    for (protocol, word) in PROTOCOLS {
        let folder = folder(TRAINS);
        let receiver = receiver(protocol, "busy");
        // All of it is sent when the run has ended, and refused once.
        let late = [("OTEL_BSP_SCHEDULE_DELAY", "600000")];
        let output = launch(folder.path(), receiver.port, word, &late).output();
        let ran = Ran::from(output.unwrap());
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert_eq!(dropped(&ran), None, "{}", ran.err);
        let got = receiver.end();
        assert_eq!(got.spans().paths().get("launch"), Some(&1));
        assert!(got.requests.contains_key("metrics"));
    }
}

#[test]
fn what_is_taken_is_not_sent_again_where_the_answer_does_not_end() {
    let folder = folder(TRAINS);
    let receiver = receiver("http", "stall");
    let quick = [("OTEL_EXPORTER_OTLP_TIMEOUT", "400")];
    let output = launch(folder.path(), receiver.port, "http/protobuf", &quick).output();
    let ran = Ran::from(output.unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(dropped(&ran), None, "{}", ran.err);
    // Here a span that comes twice is a fault.
    assert_eq!(receiver.end().spans().paths().get("launch"), Some(&1));
}

#[test]
fn what_is_refused_for_good_is_not_sent_again() {
    let quick = [("OTEL_BSP_SCHEDULE_DELAY", "10")];
    for (protocol, word) in PROTOCOLS {
        let folder = folder(TRAINS);
        let receiver = receiver(protocol, "full");
        let output = launch(folder.path(), receiver.port, word, &quick).output();
        let ran = Ran::from(output.unwrap());
        nothing_but_telemetry_is_lost(folder.path(), &ran);
        // Here a span that comes twice is a fault.
        let got = receiver.end();
        let counts = (got.spans().0.len() as u64, got.logs().len() as u64);
        assert_eq!(dropped(&ran), Some(counts), "{}", ran.err);
    }
}

#[test]
fn what_a_collector_takes_in_part_is_counted_and_told() {
    for (protocol, word) in PROTOCOLS {
        let folder = folder(TRAINS);
        let receiver = receiver(protocol, "partial");
        let output = launch(folder.path(), receiver.port, word, &[]).output();
        let ran = Ran::from(output.unwrap());
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        for signal in ["traces", "logs", "metrics"] {
            let line = format!("telemetry: {signal} are not all taken (http://127.0.0.1:");
            assert_eq!(told(&ran, &line), 1, "{}", ran.err);
        }
        assert_eq!(told(&ran, ": 1 refused, over quota)"), 3, "{}", ran.err);
        // One of each request.
        let got = receiver.end();
        let requests = |signal| got.requests[signal].len() as u64;
        let counts = (requests("traces"), requests("logs"));
        assert_eq!(dropped(&ran), Some(counts), "{}", ran.err);
    }
}

#[test]
fn what_is_taken_with_strange_words_is_taken() {
    for mode in ["page", "json"] {
        let folder = folder(TRAINS);
        let receiver = receiver("http", mode);
        let output = launch(folder.path(), receiver.port, "http/protobuf", &[]).output();
        let ran = Ran::from(output.unwrap());
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(!ran.err.contains("telemetry"), "{mode}: {}", ran.err);
        receiver.end().spans().assert_nested();
    }
}

#[test]
fn who_interrupts_after_the_run_does_not_wait_for_a_collector() {
    let folder = folder(TRAINS);
    let receiver = receiver("grpc", "hang");
    let running = launch(folder.path(), receiver.port, "grpc", &[]).spawn();
    let mut running = Running(running.unwrap());
    let events = folder.path().join("runs/small/events.jsonl");
    let has_finished = || fs::read_to_string(&events).is_ok_and(|it| it.contains("run_finished"));
    wait_until("the run ends", has_finished);
    let pid = running.0.id().to_string();
    wait_until("the launch ends", || {
        // It may be gone by now.
        let _ = Command::new("kill").args(["-s", "INT", &pid]).status();
        running.0.try_wait().unwrap().is_some()
    });
    let ran = Ran::from(running);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(told(&ran, "telemetry: interrupted"), 1, "{}", ran.err);
    assert!(dropped(&ran).is_some(), "{}", ran.err);
}

#[test]
fn a_launch_that_does_not_begin_sends_nothing() {
    let folder = folder("true");
    let port = closed_port();
    let ran = Ran::from(launch(folder.path(), port, "grpc", &[]).output().unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut again = launch(folder.path(), port, "grpc", &[]);
    let ran = Ran::from(again.args(["--resume", "never"]).output().unwrap());
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    let nobody = listener.accept().unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::WouldBlock);
}
