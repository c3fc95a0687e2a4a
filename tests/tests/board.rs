//! What a whole run shows: TensorBoard's own reader finds every update, curve and picture, and a browser shows them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use event::{EventKind, RunEvent};
use serde_json::Value;
use spinectl_tests::{Launch, is_installed, launch_arguments, phantom, python, root};

/// Step, value, wall time.
type Point = (u64, f64, f64);

#[test]
fn tensorboard_and_a_browser_show_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let data = phantom(folder.path());
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

    let losses = losses(&run_dir);
    assert_eq!(losses.len(), 8, "two folds of four stages");
    for (job, losses) in &losses {
        let read = read(&run_dir, job);
        has_every_update(&read, losses, job);
        has_the_final_metrics(&read, &run_dir, job);
        has_what_its_stage_shows(&read, job);
    }
    let stage2 = losses.keys().find(|job| job.starts_with("stage2"));
    clips_as_its_curves_say(&read(&run_dir, stage2.unwrap()));
    is_shown_by_a_browser(&run_dir, &folder.path().join("shots"));
}

/// What TensorBoard reads of a job.
fn read(run_dir: &Path, job: &str) -> Value {
    let directory = run_dir.join("tensorboard").join(job);
    let script = "src/telemetry/tests/python/read_tensorboard.py";
    serde_json::from_str(&python(script, [directory])).unwrap()
}

/// Each training job's losses, as its events tell them; TensorBoard keeps values as f32.
fn losses(run_dir: &Path) -> BTreeMap<String, Vec<Point>> {
    let mut losses: BTreeMap<String, Vec<Point>> = BTreeMap::new();
    let lines = fs::read_to_string(run_dir.join("events.jsonl")).unwrap();
    for line in lines.lines() {
        let event: RunEvent = serde_json::from_str(line).unwrap();
        if let EventKind::Step(step) = event.kind {
            let point = (step.step, f64::from(step.loss as f32), event.time);
            losses.entry(event.job.unwrap()).or_default().push(point);
        }
    }
    losses
}

fn series(read: &Value, tag: &str) -> Vec<Point> {
    let points = read["scalars"][tag].as_array();
    let points = points.unwrap_or_else(|| panic!("no {tag} in {}", read["scalars"]));
    let number = |point: &Value, at: usize| point[at].as_f64().unwrap();
    let points = points.iter();
    points
        .map(|point| (number(point, 0) as u64, number(point, 1), number(point, 2)))
        .collect()
}

fn tags(read: &Value, kind: &str) -> Vec<String> {
    let mut tags: Vec<String> = read[kind].as_object().unwrap().keys().cloned().collect();
    tags.sort();
    tags
}

fn has_every_update(read: &Value, losses: &[Point], job: &str) {
    assert_eq!(series(read, "train/loss"), losses, "{job}");
    for tag in tags(read, "scalars") {
        let points = series(read, &tag);
        let times: Vec<f64> = points.iter().map(|point| point.2).collect();
        assert!(times.is_sorted(), "{job} {tag}: {times:?}");
        if tag.starts_with("train/") {
            let steps = points.iter().map(|point| point.0);
            let expected = losses.iter().map(|point| point.0);
            assert!(steps.eq(expected), "{job} {tag}");
        }
    }
    for tag in [
        "data_wait_share",
        "host_memory_gib",
        "images_per_second_per_rank",
    ] {
        let points = series(read, &format!("train/{tag}"));
        assert!(
            points.iter().all(|point| point.1 >= 0.0),
            "{job} {tag}: {points:?}"
        );
    }
}

fn has_the_final_metrics(read: &Value, run_dir: &Path, job: &str) {
    let metrics = fs::read(run_dir.join("jobs").join(job).join("metrics.json")).unwrap();
    let metrics: BTreeMap<String, f64> = serde_json::from_slice(&metrics).unwrap();
    assert!(!metrics.is_empty(), "{job}");
    for (name, value) in metrics {
        let points = series(read, &format!("eval/out_of_fold/{name}"));
        let last = points.last().unwrap().1;
        assert_eq!(last, f64::from(value as f32), "{job} {name}");
    }
}

fn has_what_its_stage_shows(read: &Value, job: &str) {
    let images: &[&str] = match job.split('-').next().unwrap() {
        "stage1a" => &["boxes/held_out/0", "boxes/out_of_fold/0", "inputs/0"],
        "stage1b" => &["curves/out_of_fold/0", "inputs/0"],
        "stage2" => &["curves/held_out/0", "curves/out_of_fold/0", "inputs/0"],
        _ => &[],
    };
    assert_eq!(tags(read, "images"), images, "{job}");
    if job.starts_with("stage1a") {
        let curves = ["held_out", "out_of_fold"];
        let curves = curves.map(|set| format!("precision_recall/{set}/has_box"));
        assert_eq!(tags(read, "pr_curves"), curves, "{job}");
    }
    let histograms = tags(read, "histograms");
    let of = |kind: &str| {
        let tags = histograms.iter();
        tags.filter_map(|tag| tag.strip_prefix(kind))
            .collect::<Vec<_>>()
    };
    assert!(of("weights/").len() > 4, "{job}: {histograms:?}");
    assert_eq!(of("weights/"), of("gradients/"), "{job}");
    assert_eq!(read["hparams"]["end"]["status"], "STATUS_SUCCESS", "{job}");
    let hparams = &read["hparams"]["start"]["hparams"];
    assert_eq!(hparams["learning_rate"], 0.001, "{job}");
    let settings = read["texts"]["job/settings"][0][1].as_str().unwrap();
    for setting in ["| learning_rate | 0.001 |", "| ranks | 2 |"] {
        assert!(settings.contains(setting), "{settings}");
    }
}

fn clips_as_its_curves_say(read: &Value) {
    let norms = series(read, "train/gradient_norm");
    let clipped = series(read, "train/gradient_norm_clipped");
    assert_eq!(norms.len(), clipped.len());
    for (before, after) in norms.iter().zip(clipped) {
        assert_eq!(after.1, before.1.min(1.0));
    }
}

fn is_shown_by_a_browser(run_dir: &Path, shots: &Path) {
    if !is_installed("chromium") {
        return;
    }
    let taken = Command::new(root().join("scripts/screenshots.sh"))
        .args([run_dir, shots])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&taken.stderr);
    assert_eq!(taken.status.code(), Some(0), "{said}");
    for page in ["scalars", "images", "pr-curves", "hparams"] {
        let picture = fs::read(shots.join(format!("{page}.png"))).unwrap();
        assert!(picture.starts_with(b"\x89PNG"), "{page}");
    }
}
