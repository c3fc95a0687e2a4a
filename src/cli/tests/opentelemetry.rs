//! What receivers of OTLP and a scraper get of a launch. The receivers are Python's gRPC and OpenTelemetry's own messages
//! (`tests/python/otlp_receiver.py`).

mod fake_run;
#[expect(dead_code, reason = "other tests look at requests as they come")]
#[path = "../../../tests/src/otlp.rs"]
mod otlp;
mod otlp_run;
mod program;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

use fake_run::{Running, command, folder, wait_until};
use otlp::{Receiver, text};
use otlp_run::{TRAINS, launch, receiver, root};
use program::Ran;

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

#[test]
fn the_trace_arrives_over_tls() {
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    for (protocol, word) in [("grpc", "grpc"), ("http", "http/protobuf")] {
        let folder = folder(TRAINS);
        let [certificate, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
        fs::write(&certificate, certified.cert.pem()).unwrap();
        fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
        let receiver = Receiver::start_tls(&root(), protocol, &certificate, &key);
        let endpoint = format!("https://127.0.0.1:{}", receiver.port);
        let secure = ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str());
        let known = ("SSL_CERT_FILE", certificate.to_str().unwrap());
        let output = launch(folder.path(), receiver.port, word, &[secure, known]).output();
        let ran = Ran::from(output.unwrap());
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(!ran.err.contains("telemetry"), "{}", ran.err);

        // One that nobody vouches for gets nothing.
        let other = fake_run::folder("true");
        let output = launch(other.path(), receiver.port, word, &[secure]).output();
        let ran = Ran::from(output.unwrap());
        assert!(ran.err.contains("traces are not taken ("), "{}", ran.err);
        let spans = receiver.end().spans();
        assert_eq!(spans.paths()["launch"], 1);
    }
}

/// The answer to a request, head and all.
fn ask(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!("{request} HTTP/1.1\r\nHost: {address}\r\n\r\n");
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
    let mut launch = command(folder.path(), &words);
    // OTLP is asked for, and nothing to be sent by it.
    launch.env("OTEL_TRACES_EXPORTER", "otlp");
    launch.env("OTEL_TRACES_SAMPLER", "always_off");
    let mut running = Running(launch.spawn().unwrap());
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
    assert!(metrics.contains("connection: close"), "{metrics}");
    assert!(ask(&address, "GET /").starts_with("HTTP/1.1 404"));
    assert!(ask(&address, "POST /metrics").starts_with("HTTP/1.1 405"));
    // One that says nothing keeps nobody waiting.
    let _silent = TcpStream::connect(&address).unwrap();
    assert!(ask(&address, "GET /metrics").contains(sample));

    // Nor do many take the descriptors that ranks are started with.
    let open = format!("/proc/{}/fd", running.0.id());
    let count = || fs::read_dir(&open).unwrap().count();
    let before = count();
    let many: Vec<_> = (0..100)
        .map(|_| TcpStream::connect(&address).unwrap())
        .collect();
    wait_until("some are served", || count() >= before + 10);
    for _ in 0..20 {
        assert!(count() <= before + 20, "{} {before}", count());
        sleep(Duration::from_millis(5));
    }
    drop(many);
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
