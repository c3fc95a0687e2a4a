//! What TensorBoard itself reads of pictures, precision and recall, histograms, hyperparameters and the layout.

mod reader;

use std::collections::BTreeMap;
use std::fs;

use event::{EventKind, Histogram, Picture, Scores, Setting, StepRecord};
use reader::{JOB, event, read, record};
use serde_json::json;
use telemetry::tensorboard::{Board, Error};

fn step(step: u64) -> EventKind {
    EventKind::Step(StepRecord {
        step,
        samples: 48,
        ..StepRecord::default()
    })
}

/// Signature, IHDR and nothing more: what it takes to be known as a PNG of that size.
fn png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    bytes.extend(width.to_be_bytes());
    bytes.extend(height.to_be_bytes());
    bytes.extend([8, 2, 0, 0, 0]);
    bytes
}

fn picture(step: u64, path: &str) -> EventKind {
    EventKind::Picture(Picture {
        step,
        name: "curves/0".into(),
        path: path.into(),
        caption: "study 1.2.3".into(),
    })
}

#[test]
fn pictures_come_with_size_and_caption_and_a_resume_takes_them_back() {
    let run = tempfile::tempdir().unwrap();
    for (name, width) in [("a.png", 300), ("b.png", 301), ("c.png", 302)] {
        fs::write(run.path().join(name), png(width, 200)).unwrap();
    }
    let mut board = Board::new(run.path());
    let events = [
        step(1),
        picture(1, "a.png"),
        step(2),
        picture(2, "b.png"),
        EventKind::JobResumed {
            step: 1,
            checkpoint: "checkpoints/step-00000001".into(),
            skipped: Vec::new(),
        },
        step(2),
        picture(2, "c.png"),
    ];
    record(&mut board, events.map(|kind| event(1, 1.0, kind)));
    board.flush().unwrap();
    let read = read(&run.path().join("tensorboard").join(JOB));
    let expected = json!({"curves/0": [
        [1, [300, 200], "study 1.2.3", [300, 200]],
        [2, [302, 200], "study 1.2.3", [302, 200]],
    ]});
    assert_eq!(read["images"], expected);
}

#[test]
fn a_picture_that_is_none_or_lies_elsewhere_is_told_and_all_else_goes_on() {
    let run = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("a.png"), png(1, 1)).unwrap();
    fs::write(
        run.path().join("text.png"),
        "not a picture, but as long as one has to be",
    )
    .unwrap();
    let absolute = outside.path().join("a.png");
    let up = format!(
        "../{}/a.png",
        outside.path().file_name().unwrap().to_str().unwrap()
    );
    for path in [absolute.to_str().unwrap(), &up, "text.png", "gone.png", ""] {
        // Each by a board of its own: a job tells of the first.
        let mut board = Board::new(run.path());
        let error = board.record(&event(1, 1.0, picture(1, path))).unwrap_err();
        assert!(matches!(error, Error::Picture { .. }), "{error}");
    }
    let mut board = Board::new(run.path());
    board
        .record(&event(1, 1.0, picture(1, "gone.png")))
        .unwrap_err();
    record(&mut board, [event(1, 2.0, step(1))]);
    board.flush().unwrap();
    let read = read(&run.path().join("tensorboard").join(JOB));
    assert_eq!(read["images"], json!({}));
    assert_eq!(read["scalars"]["train/loss"][0][0], 1);
}

#[test]
fn precision_and_recall_are_counted_from_each_threshold_on() {
    let run = tempfile::tempdir().unwrap();
    let mut board = Board::new(run.path());
    let scores = |positives: Vec<u64>, negatives: Vec<u64>| {
        EventKind::Scores(Scores {
            step: 7,
            set: "held_out".into(),
            name: "fracture".into(),
            positives,
            negatives,
        })
    };
    // Thresholds 0, 0.5, 1. Bins that do not fit are no curve.
    let events = [
        scores(vec![1, 2, 1], vec![6, 1, 1]),
        scores(vec![1, 2], vec![6, 1, 1]),
        scores(vec![1], vec![1]),
    ];
    record(&mut board, events.map(|kind| event(1, 1.0, kind)));
    board.flush().unwrap();
    let read = read(&run.path().join("tensorboard").join(JOB));
    let tag = "precision_recall/held_out/fracture";
    let curves = [
        [4.0, 3.0, 1.0],
        [8.0, 2.0, 1.0],
        [0.0, 6.0, 7.0],
        [0.0, 1.0, 3.0],
        [4.0 / 12.0, 0.6, 0.5],
        [1.0, 0.75, 0.25],
    ]
    .map(|row| row.map(|value: f64| f64::from(value as f32)));
    assert_eq!(
        read["pr_curves"],
        json!({tag: [[7, curves, 1_700_000_001.0]]})
    );
    assert_eq!(read["thresholds"], json!({tag: 3}));
}

#[test]
fn a_histogram_has_its_ends_and_counts() {
    let run = tempfile::tempdir().unwrap();
    let mut board = Board::new(run.path());
    let kind = EventKind::Histogram(Histogram {
        step: 4,
        name: "weights/head.bias".into(),
        edges: vec![-0.1, 0.0, 0.3],
        counts: vec![3, 5],
    });
    record(&mut board, [event(1, 1.0, kind)]);
    board.flush().unwrap();
    let read = read(&run.path().join("tensorboard").join(JOB));
    let expected = json!([[4, [[-0.1, 0.0, 3.0], [0.0, 0.3, 5.0]], 1_700_000_001.0]]);
    assert_eq!(read["histograms"], json!({"weights/head.bias": expected}));
}

fn settings(learning_rate: f64, ranks: f64) -> EventKind {
    EventKind::TrainingStarted {
        settings: BTreeMap::from([
            ("arch".into(), Setting::Text("resnest14d".into())),
            ("batch".into(), Setting::Number(48.0)),
            ("decay_all".into(), Setting::Flag(false)),
            ("fold".into(), Setting::Number(0.0)),
            ("learning_rate".into(), Setting::Number(learning_rate)),
            ("ranks".into(), Setting::Number(ranks)),
        ]),
    }
}

fn finished() -> EventKind {
    EventKind::JobFinished {
        seconds: 8.0,
        metrics: BTreeMap::new(),
    }
}

#[test]
fn a_job_that_is_done_again_shows_its_own_settings_and_no_success_before_its_end() {
    let run = tempfile::tempdir().unwrap();
    fs::write(run.path().join("a.png"), png(2, 2)).unwrap();
    let directory = run.path().join("tensorboard").join(JOB);
    let first = [settings(0.1, 2.0), step(1), picture(1, "a.png"), finished()];
    record(
        &mut Board::new(run.path()),
        first.map(|kind| event(1, 1.0, kind)),
    );
    let rate =
        |read: &serde_json::Value| read["hparams"]["start"]["hparams"]["learning_rate"].clone();
    let before = read(&directory);
    assert_eq!(rate(&before), json!(0.1));
    assert_eq!(before["hparams"]["end"]["status"], "STATUS_SUCCESS");

    let again = [settings(0.2, 2.0), step(1)];
    record(
        &mut Board::new(run.path()),
        again.map(|kind| event(1, 9.0, kind)),
    );
    let after = read(&directory);
    assert_eq!(rate(&after), json!(0.2));
    assert_eq!(after["hparams"]["end"], json!(null));
    assert_eq!(after["images"], json!({}));
}

#[test]
fn settings_are_hyperparameters_a_text_and_a_layout() {
    let run = tempfile::tempdir().unwrap();
    let mut board = Board::new(run.path());
    record(
        &mut board,
        [event(1, 1.0, settings(0.1, 4.0)), event(1, 2.0, step(1))],
    );
    board.flush().unwrap();
    let directory = run.path().join("tensorboard").join(JOB);
    assert_eq!(read(&directory)["hparams"]["end"], json!(null));

    // A second attempt, on fewer ranks.
    record(
        &mut board,
        [
            event(2, 3.0, settings(0.1, 2.0)),
            event(2, 4.0, step(1)),
            event(2, 5.0, finished()),
        ],
    );
    let read = read(&directory);
    let expected = json!({
        "start": {
            "hparams": {"arch": "resnest14d", "batch": 48.0, "decay_all": false, "learning_rate": 0.1},
            "groupName": "stage2-resnest14d-seed0",
            "startTimeSecs": 1_700_000_001.0,
        },
        "end": {"status": "STATUS_SUCCESS", "endTimeSecs": 1_700_000_005.0},
    });
    assert_eq!(read["hparams"], expected);
    let text = read["texts"]["job/settings"][0][1].as_str().unwrap();
    assert!(text.contains("| arch | resnest14d |\n| batch | 48 |\n| decay_all | false |"));
    let texts = [0, 1].map(|at| read["texts"]["job/settings"][at][1].as_str().unwrap());
    assert!(texts[0].contains("| ranks | 4 |") && texts[1].contains("| ranks | 2 |"));

    let category = &read["layout"]["category"][0];
    assert_eq!(category["title"], "Folds side by side");
    let expected = json!({"title": "loss by head", "multiline": {"tag": ["^train/loss/"]}});
    assert_eq!(category["chart"][1], expected);
}
