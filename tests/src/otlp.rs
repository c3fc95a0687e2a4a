//! A collector of OpenTelemetry for tests (`tests/python/otlp_receiver.py`), and what it got: spans as a tree, log records, metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use serde_json::Value;

/// The collector at work, killed at its end.
pub struct Receiver {
    child: Child,
    stdin: Option<ChildStdin>,
    /// What it prints: the port, then a request a line.
    lines: mpsc::Receiver<String>,
    pub port: u16,
}

impl Receiver {
    /// `protocol`: `grpc` or `http`; `mode`: how it treats what it gets, as the program says. `root`: the repository.
    pub fn start(root: &Path, protocol: &str, mode: &str) -> Self {
        Receiver::start_with(root, &[protocol.as_ref(), mode.as_ref()])
    }

    /// One that speaks TLS and takes everything.
    pub fn start_tls(root: &Path, protocol: &str, certificate: &Path, key: &Path) -> Self {
        let words = [
            protocol.as_ref(),
            "take".as_ref(),
            certificate.as_os_str(),
            key.as_os_str(),
        ];
        Receiver::start_with(root, &words)
    }

    fn start_with(root: &Path, words: &[&OsStr]) -> Self {
        let python = std::env::var_os("SPINECTL_PYTHON")
            .map_or_else(|| root.join(".venv/bin/python"), PathBuf::from);
        let mut child = Command::new(&python)
            .arg(root.join("tests/python/otlp_receiver.py"))
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}: run `make setup-tests`", python.display()));
        let out = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        let (to, lines) = mpsc::channel();
        // Read all the time: a pipe that is full would make it a collector that hangs.
        thread::spawn(move || {
            let lines = out.lines().map_while(Result::ok);
            lines.for_each(|line| drop(to.send(line)));
        });
        let port = lines.recv().expect("its first line");
        let port = port.parse().expect("its port");
        Receiver {
            stdin: child.stdin.take(),
            child,
            lines,
            port,
        }
    }

    /// Waits until something has arrived, which is then not in what [`Receiver::end`] returns.
    pub fn first(&self) -> String {
        self.lines.recv().expect("a request")
    }

    /// Everything that it has got.
    pub fn end(mut self) -> Received {
        drop(self.stdin.take());
        let text: Vec<String> = self.lines.iter().collect();
        let text = text.join("\n");
        let mut requests: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).expect("JSON");
            let signal = line["signal"].as_str().expect("a signal").to_owned();
            requests.entry(signal).or_default().push(line);
        }
        Received { text, requests }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a collector got: as text, and the requests by signal (`traces`, `metrics`, `logs`).
pub struct Received {
    pub text: String,
    pub requests: BTreeMap<String, Vec<Value>>,
}

impl Received {
    pub fn spans(&self) -> Spans {
        let keys = ["resourceSpans", "scopeSpans", "spans"];
        let spans = entries(&self.requests["traces"], &keys);
        let mut by_id = BTreeMap::new();
        for span in spans {
            let id = text(span, "spanId").expect("an id");
            let twice = by_id.insert(id, span.clone());
            assert!(twice.is_none(), "a span came twice: {span}");
        }
        Spans(by_id)
    }

    pub fn logs(&self) -> Vec<&Value> {
        entries(
            &self.requests["logs"],
            &["resourceLogs", "scopeLogs", "logRecords"],
        )
    }

    /// The points of a sum in the last request of metrics: attribute `spinectl.job` -> value.
    pub fn sums_by_job(&self, name: &str) -> BTreeMap<String, f64> {
        let requests = &self.requests["metrics"];
        let last = &requests[requests.len() - 1..];
        let metrics = entries(last, &["resourceMetrics", "scopeMetrics", "metrics"]);
        let metrics = metrics.into_iter().filter(|metric| metric["name"] == name);
        let points = metrics.flat_map(|metric| {
            let points = metric["sum"]["dataPoints"].as_array();
            points.into_iter().flatten()
        });
        points
            .map(|point| {
                let job = attribute(point, "spinectl.job").expect("a job");
                let job = job["stringValue"].as_str().expect("a name").to_owned();
                (job, point["asDouble"].as_f64().expect("a number"))
            })
            .collect()
    }
}

/// Spans by their id.
pub struct Spans(pub BTreeMap<String, Value>);

impl Spans {
    /// The names from the root to this span, joined by `/`. Every parent has to be there.
    pub fn path(&self, span: &Value) -> String {
        let mut names = Vec::new();
        let mut at = span;
        loop {
            names.push(text(at, "name").expect("a name"));
            let Some(parent) = text(at, "parentSpanId") else {
                break;
            };
            at = self.0.get(&parent).expect("no parent is missing");
        }
        names.reverse();
        names.join("/")
    }

    /// How many spans there are of each path.
    pub fn paths(&self) -> BTreeMap<String, usize> {
        let mut paths: BTreeMap<String, usize> = BTreeMap::new();
        for span in self.0.values() {
            *paths.entry(self.path(span)).or_default() += 1;
        }
        paths
    }

    pub fn traces(&self) -> BTreeSet<String> {
        let spans = self.0.values();
        spans
            .map(|span| text(span, "traceId").expect("an id"))
            .collect()
    }

    /// Every span lies within its parent.
    pub fn assert_nested(&self) {
        let time = |span: &Value, key: &str| -> u64 {
            let time = text(span, key).expect("a time");
            time.parse().expect("nanoseconds")
        };
        for span in self.0.values() {
            let parent = text(span, "parentSpanId").map(|parent| &self.0[&parent]);
            let Some(parent) = parent else { continue };
            let (start, end) = ("startTimeUnixNano", "endTimeUnixNano");
            let is_within = time(parent, start) <= time(span, start)
                && time(span, end) <= time(parent, end)
                && time(span, start) <= time(span, end);
            assert!(is_within, "{span}\nis not within\n{parent}");
        }
    }
}

/// The entries below `keys`, one list in another, of all requests.
fn entries<'v>(requests: &'v [Value], keys: &[&str]) -> Vec<&'v Value> {
    let mut level: Vec<&Value> = requests.iter().map(|line| &line["message"]).collect();
    for key in keys {
        let lists = level.into_iter().filter_map(|value| value[*key].as_array());
        level = lists.flatten().collect();
    }
    level
}

/// The value of an attribute, as OTLP's JSON has it.
pub fn attribute<'v>(of: &'v Value, key: &str) -> Option<&'v Value> {
    let attributes = of["attributes"].as_array()?;
    let attribute = attributes.iter().find(|pair| pair["key"] == key)?;
    Some(&attribute["value"])
}

pub fn text(of: &Value, key: &str) -> Option<String> {
    of[key].as_str().map(str::to_owned)
}
