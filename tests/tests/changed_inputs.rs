//! A finished run whose inputs change: the next launch does exactly what depends on them again, and says so beforehand.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use spinectl_tests::{launch_arguments, phantom, spinectl};

/// Names that begin so: what reads the labels of fractures, and what does not.
const READ_LABELS: [&str; 5] = ["labels", "slice-labels", "stage2", "stage3", "summary"];
const READ_NONE: [&str; 3] = ["stage1a", "study-boxes", "stage1b"];

/// A run, and how it is launched.
struct Run {
    data: PathBuf,
    split: PathBuf,
    folder: PathBuf,
}

impl Run {
    /// The arguments of a launch.
    fn arguments(&self) -> Vec<String> {
        let split = format!("--set=data.split={}", self.split.display());
        launch_arguments(&self.data, &self.folder, 2, &[&split])
    }

    fn launch(&self) -> (Option<i32>, String) {
        let ended = spinectl(self.arguments());
        let err = String::from_utf8_lossy(&ended.stderr).into_owned();
        (ended.status.code(), err)
    }

    /// What `spinectl plan --diff` says of each job: name, fate, why.
    fn diff(&self) -> Vec<(String, String, String)> {
        let run_dir = self.folder.display().to_string();
        let mut words = self.arguments();
        words.retain(|word| !word.starts_with("--run-dir"));
        words[0] = "plan".into();
        words.extend(["--json".into(), "--diff".into(), run_dir]);
        let ended = spinectl(&words);
        let err = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{err}");
        let diff: Value = serde_json::from_slice(&ended.stdout).unwrap();
        let jobs = diff["jobs"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        jobs.map(|job| (text(&job["id"]), text(&job["fate"]), job["why"].to_string()))
            .collect()
    }

    /// The jobs that were started after so many bytes of events.
    fn started_since(&self, bytes: usize) -> BTreeSet<String> {
        let events = self.events();
        let lines = events[bytes..].lines();
        let events = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
        let started = events.filter(|event| event["event"] == "job_started");
        started
            .map(|event| event["job"].as_str().unwrap().to_owned())
            .collect()
    }

    fn events(&self) -> String {
        fs::read_to_string(self.folder.join("events.jsonl")).unwrap()
    }
}

fn is_one_of(job: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| job.starts_with(prefix))
}

/// Turns the label of C3 over in the first study of a fold, and `patient_overall` with it.
fn turn_label_over(data: &Path, split: &Path, fold: &str) {
    let rows = fs::read_to_string(split).unwrap();
    let mut rows = rows.lines().skip(1).map(|row| row.split_once(',').unwrap());
    let (study, _) = rows.find(|(_, of)| *of == fold).unwrap();
    let path = data.join("train.csv");
    let text = fs::read_to_string(&path).unwrap();
    let lines = text.lines().map(|line| {
        let mut cells: Vec<&str> = line.split(',').collect();
        if cells[0] == study {
            // StudyInstanceUID, patient_overall, C1, C2, C3
            cells[4] = if cells[4] == "1" { "0" } else { "1" };
            cells[1] = if cells[2..9].contains(&"1") { "1" } else { "0" };
        }
        cells.join(",") + "\n"
    });
    let changed: String = lines.collect();
    assert_ne!(changed, text);
    fs::write(path, changed).unwrap();
}

#[test]
fn a_changed_label_of_one_fold_reruns_exactly_what_reads_labels() {
    let place = tempfile::tempdir().unwrap();
    let mut run = Run {
        data: phantom(place.path()),
        split: place.path().join("folds.csv"),
        folder: place.path().join("run"),
    };
    let words = ["data".as_ref(), "folds".as_ref(), run.data.as_os_str()];
    let more = [
        "--folds=2".as_ref(),
        "--out".as_ref(),
        run.split.as_os_str(),
    ];
    let made = spinectl(words.into_iter().chain(more));
    assert!(made.status.success());
    let (code, err) = run.launch();
    assert_eq!(code, Some(0), "{err}");
    let first_summary = fs::read(run.folder.join("summary.json")).unwrap();

    // Where the data lies does not matter.
    let moved = place.path().join("moved");
    fs::rename(&run.data, &moved).unwrap();
    run.data = moved;
    let diff = run.diff();
    assert!(diff.len() > 10);
    for (job, fate, why) in &diff {
        assert_eq!((fate.as_str(), why.as_str()), ("kept", "[]"), "{job}");
    }

    turn_label_over(&run.data, &run.split, "1");
    let diff = run.diff();
    for (job, fate, why) in &diff {
        assert!(
            is_one_of(job, &READ_LABELS) || is_one_of(job, &READ_NONE),
            "{job}"
        );
        if is_one_of(job, &READ_NONE) {
            assert_eq!((fate.as_str(), why.as_str()), ("kept", "[]"), "{job}");
        } else {
            assert_eq!(fate, "rerun", "{job}");
            assert!(why.contains("labels of fold 1 changed"), "{job}: {why}");
        }
    }

    let before = run.events().len();
    let (code, err) = run.launch();
    assert_eq!(code, Some(0), "{err}");
    let foretold: BTreeSet<String> = diff
        .into_iter()
        .filter(|(_, fate, _)| fate == "rerun")
        .map(|(job, ..)| job)
        .collect();
    assert_eq!(run.started_since(before), foretold);
    assert_ne!(
        fs::read(run.folder.join("summary.json")).unwrap(),
        first_summary
    );
    assert!(run.diff().iter().all(|(_, fate, _)| fate == "kept"));

    // The labels change while the run is at work: whoever reads them then refuses.
    turn_label_over(&run.data, &run.split, "0");
    let ended = std::process::Command::new(spinectl_tests::program("spinectl-rank"))
        .args([
            "job",
            "--device=cpu",
            "--resume=never",
            "--job=slice-labels",
            "--run-dir",
        ])
        .arg(&run.folder)
        .output()
        .unwrap();
    assert!(!ended.status.success());
    let err = String::from_utf8_lossy(&ended.stderr);
    assert!(
        err.contains("has changed since the run was launched"),
        "{err}"
    );

    // A run of other rules is shown and left alone.
    let path = run.folder.join("plan.json");
    let plan = fs::read_to_string(&path).unwrap();
    let old = plan.replacen("\"addresses\": 2", "\"addresses\": 1", 1);
    assert_ne!(old, plan);
    fs::write(&path, &old).unwrap();
    let before = run.events().len();
    let (code, err) = run.launch();
    assert_eq!(code, Some(2), "{err}");
    assert!(
        err.contains("by other rules") && err.contains("--run-dir"),
        "{err}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), old);
    assert_eq!(run.events().len(), before);
}
