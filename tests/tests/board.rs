//! What a whole run shows: TensorBoard's own reader finds every update, picture and curve; and no patient is named anywhere.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use event::{EventKind, RunEvent};
use serde_json::Value;
use spinectl_tests::parity::python;
use spinectl_tests::{Launch, launch_arguments, phantom, root};

/// What a script of the repository prints.
fn ran(script: &str, argument: &Path) -> String {
    let output = Command::new(python())
        .arg(root().join(script))
        .arg(argument)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn files_below(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files_below(&path, into),
            false => into.push(path),
        }
    }
}

fn holds(bytes: &[u8], word: &str) -> bool {
    bytes
        .windows(word.len())
        .any(|part| part == word.as_bytes())
}

/// The points of a tag: step, value, wall time.
fn series(read: &Value, tag: &str) -> Vec<(u64, f64, f64)> {
    let points = read["scalars"][tag].as_array();
    let points = points.unwrap_or_else(|| panic!("no {tag} in {}", read["scalars"]));
    let number = |point: &Value, at: usize| point[at].as_f64().unwrap();
    points
        .iter()
        .map(|point| (number(point, 0) as u64, number(point, 1), number(point, 2)))
        .collect()
}

fn tags(read: &Value, kind: &str) -> Vec<String> {
    read[kind].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn tensorboard_reads_all_that_a_run_shows_and_no_record_names_a_patient() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("ward-of-nowhere");
    fs::create_dir(&secret).unwrap();
    let data = phantom(&secret);
    let planted = ran("tests/python/plant_names.py", &data);
    let run_dir = folder.path().join("run");
    let more = [
        "--set=tensorboard.histograms=true",
        "--set=tensorboard.pictures=1",
        "--set=stage1a.training.evaluate_every=1",
        "--set=stage2.training.evaluate_every=1",
        "--set=stage2.training.clip_norm=1.0",
    ];
    let arguments = launch_arguments(&data, &run_dir, 2, &more);
    let mut launch = Launch::start(&arguments, &run_dir);
    assert_eq!(launch.finish(), Some(0), "{}", launch.log());

    // No patient, in no file; and where the data is stands in the recipe and what is made of it, in no record.
    let mut files = Vec::new();
    files_below(&run_dir, &mut files);
    files.push(run_dir.with_extension("log"));
    for file in &files {
        let bytes = fs::read(file).unwrap();
        for word in planted.lines() {
            assert!(!holds(&bytes, word), "{word} is in {}", file.display());
        }
        let name = file.file_name().unwrap().to_str().unwrap();
        let about_the_recipe = ["recipe.yaml", "plan.json"].contains(&name);
        assert!(
            about_the_recipe || !holds(&bytes, "ward-of-nowhere"),
            "the data's folder is in {}",
            file.display()
        );
    }
    let names = files.iter().map(|file| file.to_str().unwrap());
    let kinds = [
        "events.jsonl",
        "tfevents",
        "rank0.log",
        "summary.md",
        ".png",
    ];
    let found: Vec<bool> = kinds
        .iter()
        .map(|kind| names.clone().any(|name| name.contains(kind)))
        .collect();
    assert_eq!(found, [true; 5], "there was something to search");

    // Every update, with its time.
    let lines = fs::read_to_string(run_dir.join("events.jsonl")).unwrap();
    let mut losses: BTreeMap<String, Vec<(u64, f64, f64)>> = BTreeMap::new();
    for line in lines.lines() {
        let event: RunEvent = serde_json::from_str(line).unwrap();
        if let EventKind::Step(step) = event.kind {
            let point = (step.step, f64::from(step.loss as f32), event.time);
            losses.entry(event.job.unwrap()).or_default().push(point);
        }
    }
    assert_eq!(losses.len(), 8, "two folds of four stages");
    for (job, expected) in &losses {
        let directory = run_dir.join("tensorboard").join(job);
        let script = "src/telemetry/tests/python/read_tensorboard.py";
        let read: Value = serde_json::from_str(&ran(script, &directory)).unwrap();
        assert_eq!(&series(&read, "train/loss"), expected, "{job}");
        for tag in tags(&read, "scalars") {
            let times: Vec<f64> = series(&read, &tag).iter().map(|point| point.2).collect();
            assert!(times.is_sorted(), "{job} {tag}: {times:?}");
        }
        for tag in [
            "data_wait_share",
            "host_memory_gib",
            "images_per_second_per_rank",
        ] {
            let points = series(&read, &format!("train/{tag}"));
            assert_eq!(points.len(), expected.len(), "{job} {tag}");
            assert!(points.iter().all(|point| point.1 >= 0.0), "{job} {tag}");
        }
        let metrics = fs::read(run_dir.join("jobs").join(job).join("metrics.json")).unwrap();
        let metrics: BTreeMap<String, f64> = serde_json::from_slice(&metrics).unwrap();
        assert!(!metrics.is_empty());
        for (name, value) in metrics {
            let points = series(&read, &format!("eval/out_of_fold/{name}"));
            assert_eq!(
                points.last().unwrap().1,
                f64::from(value as f32),
                "{job} {name}"
            );
        }

        let images = tags(&read, "images");
        let expected: &[&str] = match job.split('-').next().unwrap() {
            "stage1a" => &["boxes/held_out/0", "boxes/out_of_fold/0", "inputs/0"],
            "stage1b" => &["curves/out_of_fold/0", "inputs/0"],
            "stage2" => &["curves/held_out/0", "curves/out_of_fold/0", "inputs/0"],
            _ => &[],
        };
        assert_eq!(images, expected, "{job}");
        if job.starts_with("stage1a") {
            let curves = tags(&read, "pr_curves");
            let expected = ["held_out", "out_of_fold"].map(|set| format!("precision_recall/{set}/has_box"));
            assert_eq!(curves, expected, "{job}");
        }
        let histograms = tags(&read, "histograms");
        let of = |kind: &str| {
            histograms
                .iter()
                .filter(|tag| tag.starts_with(kind))
                .count()
        };
        assert!(
            of("weights/") > 4 && of("weights/") == of("gradients/"),
            "{job}"
        );
        assert_eq!(read["hparams"]["end"]["status"], "STATUS_SUCCESS", "{job}");
        assert_eq!(read["hparams"]["start"]["hparams"]["ranks"], 2.0, "{job}");
        let settings = read["texts"]["job/settings"][0][1].as_str().unwrap();
        assert!(settings.contains("| learning_rate | 0.001 |"), "{settings}");
    }

    // Clipping does what its curve says.
    let stage2 = losses.keys().find(|job| job.starts_with("stage2")).unwrap();
    let directory = run_dir.join("tensorboard").join(stage2);
    let read: Value = serde_json::from_str(&ran(
        "src/telemetry/tests/python/read_tensorboard.py",
        &directory,
    ))
    .unwrap();
    let norms = series(&read, "train/gradient_norm");
    let clipped = series(&read, "train/gradient_norm_clipped");
    assert_eq!(norms.len(), clipped.len());
    for (before, after) in norms.iter().zip(clipped) {
        assert_eq!(after.1, before.1.min(1.0));
    }
}
