//! What others get of a whole run: a collector its trace, its logs and its metrics, a Prometheus its numbers. And of a patient nobody
//! gets anything but the StudyInstanceUID.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use spinectl_tests::otlp::{Received, Receiver, text};
use spinectl_tests::{Launch, events, is_installed, launch_arguments, phantom, python, root};

/// Part of the path of the data.
const WARD: &str = "ward-of-nowhere";

#[test]
fn a_collector_and_prometheus_get_a_whole_run_and_nobody_gets_a_patient() {
    let folder = tempfile::tempdir().unwrap();
    let (data, planted, broken) = patients(folder.path());
    let run_dir = folder.path().join("run");
    let more = [
        "--set=data.bad_study=leave_out",
        "--metrics-port=0",
        "--set=telemetry.sample_steps=1",
        "--set=tensorboard.histograms=true",
        "--set=tensorboard.pictures=1",
    ];
    let receiver = Receiver::start(root(), "grpc", "take");
    let endpoint = format!("http://127.0.0.1:{}", receiver.port);
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())];
    let arguments = launch_arguments(&data, &run_dir, 2, &more);
    let mut launch = Launch::start_with(&arguments, &run_dir, &environment);

    launch.wait_for(&["\"event\":\"step\""]);
    let scraped = scraped(&launch.log());
    assert_eq!(launch.finish(), Some(0), "{}", launch.log());
    let log = launch.log();
    assert!(!log.contains("telemetry:"), "nothing is lost: {log}");
    let received = receiver.end();

    is_one_tree(&received, &updates(&run_dir));
    let told = format!("study {broken} is left out: study data.root/train_images/{broken} ");
    let logs = received.logs().into_iter();
    let mut bodies = logs.map(|log| log["body"].to_string());
    assert!(bodies.any(|body| body.contains(&told)), "{log}");
    names_nobody(&run_dir, &planted, &[&received.text, &scraped]);
}

#[test]
fn a_failure_names_the_study_and_what_is_wrong_and_no_patient() {
    let folder = tempfile::tempdir().unwrap();
    let (data, planted, broken) = patients(folder.path());
    let run_dir = folder.path().join("run");
    let receiver = Receiver::start(root(), "http", "take");
    let endpoint = format!("http://127.0.0.1:{}", receiver.port);
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
    ];
    let arguments = launch_arguments(&data, &run_dir, 2, &[]);
    let mut launch = Launch::start_with(&arguments, &run_dir, &environment);
    assert_eq!(launch.finish(), Some(4), "{}", launch.log());
    let told = format!("data.root/train_images/{broken}/[a name] is not one of them");
    assert!(launch.log().contains(&told), "{}", launch.log());
    let received = receiver.end();
    assert!(received.text.contains(&told), "{}", received.text);
    names_nobody(&run_dir, &planted, &[&received.text]);
}

/// A phantom in a ward, whose files hold names, which are planted, and a study of which is broken.
fn patients(folder: &Path) -> (PathBuf, String, String) {
    let ward = folder.join(WARD);
    fs::create_dir(&ward).unwrap();
    let data = phantom(&ward);
    let planted = python("tests/python/plant_names.py", [&data]);
    let broken = break_a_study(&data);
    (data, planted, broken)
}

/// Calls a slice of a study after a patient, so that slices can no more be numbered by their names. The study's name.
fn break_a_study(data: &Path) -> String {
    let mut studies: Vec<PathBuf> = entries(&data.join("segmentations"));
    studies.sort();
    let study = studies[0].file_name().unwrap().to_str().unwrap();
    let study = study.split(".nii").next().unwrap().to_owned();
    let slices = data.join("train_images").join(&study);
    let slice = entries(&slices).pop().unwrap();
    fs::rename(&slice, slices.join("Quillfeather, Zebulon.dcm")).unwrap();
    study
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// What a real Prometheus has of a launch whose log tells the address.
fn scraped(log: &str) -> String {
    let address = log
        .split_once("Prometheus at http://")
        .map(|(_, rest)| rest);
    let address = address.and_then(|rest| rest.split_once("/metrics"));
    let (address, _) = address.unwrap_or_else(|| panic!("{log}"));
    if !is_installed("prometheus") {
        return String::new();
    }
    let series = python("tests/python/scrape_by_prometheus.py", [address]);
    let stage1a = "spinectl_steps_total {\"";
    assert!(series.contains(stage1a), "{series}");
    assert!(series.contains("spinectl_job\": \"stage1a-"), "{series}");
    assert!(series.contains("spinectl_step_duration_seconds_bucket"));
    series
}

/// Each training job's number of updates and of epochs, as its events tell them.
fn updates(run_dir: &Path) -> BTreeMap<String, (usize, u64)> {
    let mut updates: BTreeMap<String, (usize, u64)> = BTreeMap::new();
    for event in events(run_dir) {
        if event["event"] == "step" {
            let job = text(&event, "job").unwrap();
            let of_job = updates.entry(job).or_default();
            of_job.0 += 1;
            of_job.1 = event["epoch"].as_u64().unwrap() + 1;
        }
    }
    updates
}

fn is_one_tree(received: &Received, updates: &BTreeMap<String, (usize, u64)>) {
    let spans = received.spans();
    assert_eq!(spans.traces().len(), 1);
    spans.assert_nested();
    let paths = spans.paths();
    let count = |path: String| paths.get(&path).copied().unwrap_or(0);
    assert_eq!(count("launch".to_owned()), 1, "{paths:#?}");
    assert!(paths.keys().all(|path| path.starts_with("launch")));
    assert_eq!(updates.len(), 8, "two folds of four stages");
    for (job, (steps, epochs)) in updates {
        let attempt = format!("launch/job {job}/attempt 1");
        assert_eq!(count(format!("{attempt}/rank 1")), 1, "{paths:#?}");
        let of_steps = |phase: &str| {
            let epochs = 0..*epochs;
            let path = |epoch| format!("{attempt}/rank 0/epoch {epoch}/step{phase}");
            epochs.map(|epoch| count(path(epoch))).sum::<usize>()
        };
        for phase in ["", "/data wait", "/forward", "/backward", "/optimizer"] {
            assert_eq!(of_steps(phase), *steps, "{job}{phase}: {paths:#?}");
        }
    }
    let steps = received.sums_by_job("spinectl.steps");
    let expected = updates
        .iter()
        .map(|(job, (steps, _))| (job.clone(), *steps as f64));
    assert_eq!(steps, expected.collect());
    let traces = spans.traces();
    for log in received.logs() {
        assert_eq!(text(log, "traceId").as_ref(), traces.first(), "{log}");
    }
}

/// No patient in any file, nor in what was sent; and where the data lies stands in the recipe and in what is compiled from it, in no
/// record.
fn names_nobody(run_dir: &Path, planted: &str, sent: &[&str]) {
    let mut files = vec![run_dir.with_extension("log")];
    files_below(run_dir, &mut files);
    let records = files
        .iter()
        .map(|file| (file.display().to_string(), fs::read(file).unwrap()));
    let sent = sent
        .iter()
        .map(|text| ("what was sent".to_owned(), text.as_bytes().to_vec()));
    let of_the_recipe = ["recipe.yaml", "plan.json"].map(|name| run_dir.join(name));
    let of_the_recipe = of_the_recipe.map(|path| path.display().to_string());
    let planted = planted.lines().chain(["Quillfeather", "Zebulon"]);
    let planted: Vec<&str> = planted.collect();
    assert!(planted.len() > 5, "little is looked for: {planted:?}");
    for (name, bytes) in records.chain(sent) {
        for word in &planted {
            assert!(!holds(&bytes, word), "{word} is in {name}");
        }
        if !of_the_recipe.contains(&name) {
            assert!(!holds(&bytes, WARD), "{WARD} is in {name}");
        }
    }
    for kind in ["events.jsonl", "rank0.log", "summary.md"] {
        let mut names = files.iter().map(|file| file.to_str().unwrap());
        assert!(names.any(|name| name.contains(kind)), "no {kind} to search");
    }
}

fn files_below(folder: &Path, into: &mut Vec<PathBuf>) {
    for path in entries(folder) {
        match path.is_dir() {
            true => files_below(&path, into),
            false => into.push(path),
        }
    }
}

/// A number counts where it stands by itself: among the digits of a million losses any eight are found.
fn holds(bytes: &[u8], word: &str) -> bool {
    let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
    let mut windows = bytes.windows(word.len()).enumerate();
    windows.any(|(at, part)| {
        let before = at.checked_sub(1).and_then(|at| bytes.get(at));
        let after = bytes.get(at + word.len());
        part == word.as_bytes() && !(is_number && (is_digit(before) || is_digit(after)))
    })
}
