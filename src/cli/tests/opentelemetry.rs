//! What receivers of OTLP and a scraper get of a launch, and that those who take nothing hold up nothing. The receivers are
//! Python's gRPC and OpenTelemetry's own messages (`tests/python/otlp_receiver.py`).

mod fake_run;
#[path = "../../../tests/src/otlp.rs"]
mod otlp;
mod program;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use fake_run::{Running, command, folder, wait_until};
use otlp::{Receiver, text};
use program::Ran;

/// Four updates in two epochs, a warning that names a file of the data, a checkpoint; then it waits where there is `wait`.
const TRAINS: &str = r#"
here=${0%/*}
case $job in stage1a*)
    say '"event":"heartbeat","phase":"start_up","step":0,"sequence":0'
    if [ "$RANK" = 0 ]; then
        for step in 1 2 3 4; do
            sleep 0.02
            say "\"event\":\"step\",\"step\":$step,\"total_steps\":4,\"epoch\":$(((step - 1) / 2)),\"loss\":0.5,
                \"learning_rate\":0.1,\"gradient_norm\":1.0,\"samples\":8,\"images\":8,\"seconds\":0.01,
                \"phases\":{\"data_wait\":0.002,\"forward\":0.004}"
        done
        say '"event":"warning","message":"study 1.2.3 is odd, see ./scans/DOE JOHN/1.dcm"'
        say '"event":"checkpoint_written","step":4,"bytes":100,"seconds":0.001'
    fi
    touch "$here/waits-$RANK"
    while [ -e "$here/wait" ]; do sleep 0.02; done ;;
esac
"#;

/// Says a thousand warnings.
const WARNS: &str = r#"
case $job in stage1a*)
    for number in $(seq 1000); do say "\"event\":\"warning\",\"message\":\"warning $number\""; done ;;
esac
"#;

fn receiver(protocol: &str, mode: &str) -> Receiver {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    Receiver::start(&root, protocol, mode)
}

fn launch(folder: &Path, port: u16, protocol: &str, more: &[(&str, &str)]) -> Command {
    let mut command = command(folder, &["launch", "--ranks", "2", "-q"]);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OTEL_") {
            command.env_remove(name);
        }
    }
    let endpoint = format!("http://127.0.0.1:{port}");
    command
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        .env("OTEL_EXPORTER_OTLP_HEADERS", "key=a%20secret")
        .env("OTEL_TRACES_SAMPLER", "always_on")
        .envs(more.iter().copied());
    command
}

/// A port at which nobody listens any more.
fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn the_trace_arrives_as_one_tree(protocol: &str, word: &str) {
    let folder = folder(TRAINS);
    let receiver = receiver(protocol, "take");
    let output = launch(folder.path(), receiver.port, word, &[]).output();
    let ran = Ran::from(output.unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(!ran.err.contains("telemetry"), "{}", ran.err);
    assert!(!ran.out.contains("telemetry: "), "{}", ran.out);
    let got = receiver.end();
    assert!(!got.text.contains("DOE"), "a path of the data");

    let spans = got.spans();
    spans.assert_nested();
    let paths = spans.paths();
    let attempt = "launch/job stage1a-resnest14d-fold0-seed0/attempt 1";
    for (path, count) in [
        ("launch".to_owned(), 1),
        ("launch/job labels/attempt 1/rank 0".to_owned(), 1),
        (attempt.to_owned(), 1),
        (format!("{attempt}/rank 0"), 1),
        (format!("{attempt}/rank 0/start-up"), 1),
        (format!("{attempt}/rank 0/checkpoint"), 1),
        (format!("{attempt}/rank 0/epoch 0"), 1),
        (format!("{attempt}/rank 0/epoch 1/step"), 2),
        (format!("{attempt}/rank 0/epoch 1/step/forward"), 2),
        (format!("{attempt}/rank 1/start-up"), 1),
    ] {
        assert_eq!(paths.get(&path), Some(&count), "{path}\n{paths:#?}");
    }
    assert!(paths.keys().all(|path| path.starts_with("launch")));
    let traces = spans.traces();
    assert_eq!(traces.len(), 1);

    let logs = got.logs();
    let warning = logs
        .iter()
        .find(|log| log["eventName"] == "spinectl.warning")
        .unwrap();
    assert_eq!(warning["severityText"], "WARN");
    let body = warning["body"]["stringValue"].as_str().unwrap();
    assert!(
        body.starts_with("study 1.2.3 is odd, see [a path"),
        "{body}"
    );
    let of = spans.path(&spans.0[warning["spanId"].as_str().unwrap()]);
    assert!(
        of.starts_with("launch/job stage1a") && of.ends_with("/attempt 1/rank 0"),
        "{of}"
    );
    for log in logs {
        assert_eq!(text(log, "traceId").as_ref(), traces.first(), "{log}");
    }

    let steps = got.sums_by_job("spinectl.steps");
    assert_eq!(steps.len(), 2, "the two folds");
    assert!(steps.values().all(|steps| *steps == 4.0), "{steps:?}");
    for line in got.requests.values().flatten() {
        assert_eq!(line["headers"]["key"], "a secret");
    }
}

#[test]
fn the_trace_arrives_as_one_tree_over_grpc() {
    the_trace_arrives_as_one_tree("grpc", "grpc");
}

#[test]
fn the_trace_arrives_as_one_tree_over_http() {
    the_trace_arrives_as_one_tree("http", "http/protobuf");
}

/// The run is whole, and what was lost is told once and in the end.
#[track_caller]
fn nothing_but_telemetry_is_lost(folder: &Path, ran: &Ran) {
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let events = fs::read_to_string(folder.join("runs/small/events.jsonl")).unwrap();
    assert!(events.trim_end().ends_with('}') && events.contains("run_finished"));
    let told = |part: &str| ran.err.lines().filter(|line| line.contains(part)).count();
    assert_eq!(told("telemetry: traces are not taken"), 1, "{}", ran.err);
    let dropped: Vec<u64> = ran
        .err
        .lines()
        .filter_map(|line| line.split_once("telemetry: ")?.1.split_once(" spans and "))
        .map(|(spans, _)| spans.parse().unwrap())
        .collect();
    assert_eq!(dropped.len(), 1, "{}", ran.err);
    assert!(dropped[0] > 0, "{}", ran.err);
}

#[test]
fn a_collector_that_refuses_costs_spans_and_nothing_else() {
    for protocol in ["grpc", "http/protobuf"] {
        let folder = folder(TRAINS);
        let output = launch(folder.path(), closed_port(), protocol, &[]).output();
        nothing_but_telemetry_is_lost(folder.path(), &output.unwrap().into());
    }
}

#[test]
fn a_collector_that_hangs_costs_spans_and_nothing_else() {
    let quick = [
        ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "200"),
    ];
    for (protocol, word) in [("grpc", "grpc"), ("http", "http/protobuf")] {
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
    let mut receiver = receiver("grpc", "take");
    let quick = [("OTEL_BSP_SCHEDULE_DELAY", "10")];
    let mut running = Running(
        launch(folder.path(), receiver.port, "grpc", &quick)
            .spawn()
            .unwrap(),
    );
    // Something has arrived, and the ranks of a training wait.
    receiver.first();
    wait_until("a rank waits", || folder.path().join("waits-0").exists());
    drop(receiver);
    fs::remove_file(folder.path().join("wait")).unwrap();
    let code = running.0.wait().unwrap().code();
    let mut err = String::new();
    let stderr = running.0.stderr.as_mut().unwrap();
    stderr.read_to_string(&mut err).unwrap();
    let out = String::new();
    nothing_but_telemetry_is_lost(folder.path(), &Ran { code, out, err });
}

#[test]
fn a_queue_that_is_full_is_told_at_its_first_loss() {
    let folder = folder(WARNS);
    let receiver = receiver("grpc", "hang");
    let small = [("OTEL_BSP_MAX_QUEUE_SIZE", "16")];
    let output = launch(folder.path(), receiver.port, "grpc", &small).output();
    let ran = Ran::from(output.unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let told = |part: &str| ran.err.lines().filter(|line| line.contains(part)).count();
    assert_eq!(told("the first spans or log records have been dropped"), 1);
    assert_eq!(
        told("log records were dropped; the run itself is complete"),
        1
    );
}

/// The answer to a request, head and all.
fn ask(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!("{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn prometheus_finds_the_metrics_of_a_run_on_loopback() {
    let folder = folder(TRAINS);
    fs::write(folder.path().join("wait"), "").unwrap();
    let words = ["launch", "--ranks", "2", "-q", "--metrics-port", "0"];
    let mut running = Running(command(folder.path(), &words).spawn().unwrap());
    let mut err = BufReader::new(running.0.stderr.take().unwrap());
    let mut line = String::new();
    err.read_line(&mut line).unwrap();
    let address = line
        .split_once("http://")
        .and_then(|(_, rest)| rest.trim_end().strip_suffix("/metrics"))
        .unwrap_or_else(|| panic!("{line}"))
        .to_owned();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    let sample = "spinectl_steps_total{spinectl_job=\"stage1a-resnest14d-fold0-seed0\"} 4";
    wait_until("the steps are counted", || {
        ask(&address, "GET /metrics").contains(sample)
    });
    let metrics = ask(&address, "GET /metrics");
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    assert!(metrics.contains("text/plain; version=0.0.4"), "{metrics}");
    assert!(ask(&address, "GET /").starts_with("HTTP/1.1 404"));
    assert!(ask(&address, "POST /metrics").starts_with("HTTP/1.1 405"));
    // One that says nothing keeps nobody waiting.
    let _silent = TcpStream::connect(&address).unwrap();
    assert!(ask(&address, "GET /metrics").contains(sample));

    // Another launch that wants the same port goes on without it.
    let other = fake_run::folder("true");
    let port = address.rsplit(':').next().unwrap();
    let ran = fake_run::spinectl(other.path(), &["launch", "-q", "--metrics-port", port]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("no metrics for Prometheus"), "{}", ran.err);

    fs::remove_file(folder.path().join("wait")).unwrap();
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
    assert!(
        TcpStream::connect(&address).is_err(),
        "it ends with its run"
    );
}
