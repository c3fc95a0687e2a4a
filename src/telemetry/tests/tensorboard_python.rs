//! What TensorBoard itself reads from the event files, through its own Python reader: curves, texts, and what a resume leaves.

mod reader;

use std::collections::BTreeMap;

use event::{EventKind, GpuUse, Histogram, Phase, Picture, RunEvent, Scores, Setting, StepRecord};
use reader::{JOB, event, read, record};
use serde_json::{Value, json};
use telemetry::tensorboard::{Board, Writer};

/// The values of step n are exact in an f32, and all different.
fn step(n: u64) -> EventKind {
    let n32 = n as f64;
    EventKind::Step(StepRecord {
        step: n,
        loss: 1.0 / n32.exp2(),
        losses: BTreeMap::from([("fracture".into(), n32 + 0.25), ("ratio".into(), n32 + 0.5)]),
        learning_rate: n32 / 1024.0,
        learning_rates: BTreeMap::from([("backbone".into(), n32 / 2048.0)]),
        gradient_norm: 100.0 + n32,
        clipped_norm: Some(1.0 + n32),
        loss_scale: Some(n32 * 512.0),
        samples: 48,
        images: 1536,
        seconds: 0.5 / n32.exp2(),
        phases: BTreeMap::from([(Phase::DataWait, 0.125 / n32.exp2())]),
        host_memory: Some(n << 29),
        device_memory: Some(n << 32),
        ..StepRecord::default()
    })
}

fn resumed(step: u64) -> EventKind {
    EventKind::JobResumed {
        step,
        checkpoint: format!("checkpoints/step-{step:08}"),
        skipped: Vec::new(),
    }
}

/// `[[step, wall time], ...]` of a tag, as whole seconds after the run began.
fn times(read: &Value, tag: &str) -> Vec<(u64, u64)> {
    let series = read["scalars"][tag].as_array().unwrap();
    let time = |point: &Value| (point[2].as_f64().unwrap() - 1_700_000_000.0) as u64;
    series
        .iter()
        .map(|point| (point[0].as_u64().unwrap(), time(point)))
        .collect()
}

#[test]
fn every_tag_value_and_time_arrives() {
    let run = tempfile::tempdir().unwrap();
    let mut board = Board::new(run.path());
    let started = EventKind::JobStarted { world_size: 4 };
    record(&mut board, [event(1, 0.0, started)]);
    record(&mut board, (1..=3).map(|n| event(1, n as f64, step(n))));
    let metrics = BTreeMap::from([
        ("auc".to_owned(), 0.875),
        ("fracture_mae".to_owned(), 0.125),
    ]);
    let set = "held_out".to_owned();
    record(
        &mut board,
        [event(
            1,
            4.0,
            EventKind::Evaluated {
                step: 3,
                set,
                metrics,
            },
        )],
    );
    let reason = "rank 1 was killed".to_owned();
    record(&mut board, [event(1, 5.0, EventKind::JobFailed { reason })]);
    // Another rank's view of a step, and what belongs to no job, have no place here.
    let mut other = event(1, 6.0, step(9));
    other.rank = Some(1);
    record(
        &mut board,
        [
            other,
            RunEvent {
                job: None,
                ..event(1, 6.0, step(9))
            },
        ],
    );
    board.flush().unwrap();

    let t = |seconds: f64| 1_700_000_000.0 + seconds;
    let series = |value: &dyn Fn(f64) -> f64| {
        json!([1.0, 2.0, 3.0].map(|n: f64| json!([n as u64, value(n), t(n)])))
    };
    let read = read(&run.path().join("tensorboard").join(JOB));
    let expected = json!({
        "train/loss": series(&|n| 1.0 / n.exp2()),
        "train/loss/fracture": series(&|n| n + 0.25),
        "train/loss/ratio": series(&|n| n + 0.5),
        "train/learning_rate": series(&|n| n / 1024.0),
        "train/learning_rate/backbone": series(&|n| n / 2048.0),
        "train/gradient_norm": series(&|n| n + 100.0),
        "train/gradient_norm_clipped": series(&|n| n + 1.0),
        "train/loss_scale": series(&|n| n * 512.0),
        "train/samples_per_second": series(&|n| n.exp2() * 96.0),
        "train/images_per_second": series(&|n| n.exp2() * 3072.0),
        "train/samples_per_second_per_rank": series(&|n| n.exp2() * 24.0),
        "train/images_per_second_per_rank": series(&|n| n.exp2() * 768.0),
        "train/data_wait_share": series(&|_| 0.25),
        "train/host_memory_gib": series(&|n| n / 2.0),
        "train/device_memory_peak_gib": series(&|n| n * 4.0),
        "eval/held_out/auc": [[3, 0.875, t(4.0)]],
        "eval/held_out/fracture_mae": [[3, 0.125, t(4.0)]],
    });
    assert_eq!(read["scalars"], expected);
    assert_eq!(read["accumulated"], expected);
    assert_eq!(
        read["texts"],
        json!({"job/failed": [[3, "rank 1 was killed", t(5.0)]]})
    );
    assert_eq!(read["versions"], json!(["brain.Event:2"]));

    let by_samples = self::read(&run.path().join("tensorboard").join(JOB).join("by_samples"));
    let series = |value: &dyn Fn(f64) -> f64| {
        json!([1.0, 2.0, 3.0].map(|n: f64| json!([48 * n as u64, value(n), t(n)])))
    };
    let expected = json!({
        "by_samples/loss": series(&|n| 1.0 / n.exp2()),
        "by_samples/loss/fracture": series(&|n| n + 0.25),
        "by_samples/loss/ratio": series(&|n| n + 0.5),
        "by_samples/eval/held_out/auc": [[144, 0.875, t(4.0)]],
        "by_samples/eval/held_out/fracture_mae": [[144, 0.125, t(4.0)]],
    });
    assert_eq!(by_samples["scalars"], expected);
}

#[test]
fn a_resume_in_the_same_launch_takes_back_what_lies_past_the_checkpoint() {
    let run = tempfile::tempdir().unwrap();
    let mut board = Board::new(run.path());
    record(&mut board, (1..=6).map(|n| event(1, n as f64, step(n))));
    let retried = EventKind::JobRetried {
        reason: "rank 0 died".into(),
        delay_seconds: 1.0,
    };
    record(
        &mut board,
        [event(1, 7.0, retried), event(2, 10.0, resumed(4))],
    );
    // This one comes late from the attempt that is over.
    record(&mut board, [event(1, 10.0, step(7))]);
    record(&mut board, [event(2, 15.0, step(5))]);
    board.flush().unwrap();

    let read = read(&run.path().join("tensorboard").join(JOB));
    let expected = [(1, 1), (2, 2), (3, 3), (4, 4), (5, 15)];
    assert_eq!(times(&read, "train/loss"), expected);
    let by_samples = self::read(&run.path().join("tensorboard").join(JOB).join("by_samples"));
    assert_eq!(
        times(&by_samples, "by_samples/loss"),
        expected.map(|(step, time)| (48 * step, time))
    );
    assert_eq!(times(&read, "train/loss/ratio"), expected);
    assert_eq!(read["accumulated"], read["scalars"]);
    assert_eq!(read["files"].as_array().unwrap().len(), 1);
    let texts = json!({"job/retried": [[4, "rank 0 died", 1_700_000_010.0]]});
    assert_eq!(read["texts"], texts);
}

#[test]
fn gpus_are_shown_by_rank_at_the_newest_update() {
    let run = tempfile::tempdir().unwrap();
    let mut board = Board::new(run.path());
    let gpu = |attempt, seconds, rank, utilization, gib: u64| RunEvent {
        rank: Some(rank),
        ..event(
            attempt,
            seconds,
            EventKind::GpuUse(GpuUse {
                utilization,
                memory_used: Some(gib << 30),
                memory_total: Some(80 << 30),
                ..GpuUse::default()
            }),
        )
    };
    record(
        &mut board,
        [
            gpu(1, 0.5, 0, Some(0.0), 1),
            event(1, 1.0, step(1)),
            gpu(1, 1.5, 0, Some(0.75), 24),
            gpu(1, 1.5, 1, None, 12),
            event(1, 2.0, step(2)),
            event(1, 3.0, step(3)),
            gpu(1, 3.5, 0, Some(0.5), 25),
            event(2, 10.0, resumed(2)),
            gpu(1, 10.5, 0, Some(0.25), 9),
            gpu(2, 11.0, 0, Some(0.125), 20),
            gpu(2, 12.0, 0, Some(1.0), 21),
        ],
    );
    board.flush().unwrap();

    let read = read(&run.path().join("tensorboard").join(JOB));
    let t = |seconds: f64| 1_700_000_000.0 + seconds;
    assert_eq!(
        read["scalars"]["gpu/0/utilization"],
        json!([[1, 0.75, t(1.5)], [2, 0.125, t(11.0)], [2, 1.0, t(12.0)]])
    );
    assert_eq!(
        read["scalars"]["gpu/0/memory_used_gib"],
        json!([[1, 24.0, t(1.5)], [2, 20.0, t(11.0)], [2, 21.0, t(12.0)]])
    );
    assert_eq!(
        read["scalars"]["gpu/1/memory_used_gib"],
        json!([[1, 12.0, t(1.5)]])
    );
    assert_eq!(read["scalars"]["gpu/1/utilization"], json!(null));
    assert_eq!(read["accumulated"], read["scalars"]);
}

#[test]
fn a_resume_by_a_new_launch_takes_back_what_earlier_files_hold() {
    let run = tempfile::tempdir().unwrap();
    record(
        &mut Board::new(run.path()),
        (1..=6).map(|n| event(1, n as f64, step(n))),
    );
    // In the same second, as far as the file's name can tell.
    record(
        &mut Board::new(run.path()),
        [
            event(2, 1.5, resumed(3)),
            event(2, 20.0, step(4)),
            event(2, 21.0, step(5)),
        ],
    );
    let read = read(&run.path().join("tensorboard").join(JOB));
    assert_eq!(
        times(&read, "train/loss"),
        [(1, 1), (2, 2), (3, 3), (4, 20), (5, 21)]
    );
    assert_eq!(read["accumulated"], read["scalars"]);
    assert_eq!(read["versions"], json!(["brain.Event:2", "brain.Event:2"]));
}

/// An evaluation in full, after `step` updates.
fn evaluation(step: u64, value: f64) -> Vec<EventKind> {
    let evaluated = |set: &str| EventKind::Evaluated {
        step,
        set: set.to_owned(),
        metrics: BTreeMap::from([("auc".to_owned(), value)]),
    };
    vec![
        EventKind::Picture(Picture {
            step,
            name: "inputs/0".into(),
            path: "a.png".into(),
            caption: String::new(),
        }),
        EventKind::Histogram(Histogram {
            step,
            name: "weights/head".into(),
            edges: vec![0.0, 1.0],
            counts: vec![1],
        }),
        EventKind::Scores(Scores {
            step,
            set: "held_out".into(),
            name: "fracture".into(),
            positives: vec![1, 2],
            negatives: vec![2, 1],
        }),
        evaluated("held_out"),
    ]
}

fn steps(read: &Value, kind: &str, tag: &str) -> Vec<u64> {
    let series = read[kind][tag].as_array().unwrap();
    series
        .iter()
        .map(|point| point[0].as_u64().unwrap())
        .collect()
}

/// Whether or not the evaluation of the checkpoint's step had been done, it is there once, and whole.
#[test]
fn an_evaluation_that_a_resume_repeats_is_there_once() {
    let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x02\0\0\0\x02\x08\x02\0\0\0";
    // How much of the evaluation was done, and whether another launch goes on.
    for (done, is_new_launch) in [(0, true), (2, true), (4, true), (2, false), (4, false)] {
        let run = tempfile::tempdir().unwrap();
        std::fs::write(run.path().join("a.png"), png).unwrap();
        let settings = || EventKind::TrainingStarted {
            settings: BTreeMap::from([("batch".to_owned(), Setting::Number(48.0))]),
        };
        let mut board = Board::new(run.path());
        record(&mut board, [event(1, 0.0, settings())]);
        record(&mut board, (1..=2).map(|n| event(1, 1.0, step(n))));
        record(
            &mut board,
            evaluation(2, 0.25)
                .into_iter()
                .map(|kind| event(1, 1.0, kind)),
        );
        record(&mut board, (3..=4).map(|n| event(1, 1.0, step(n))));
        let part = evaluation(4, 0.5).into_iter().take(done);
        record(&mut board, part.map(|kind| event(1, 1.0, kind)));
        if done == 4 {
            record(&mut board, [event(1, 1.0, step(5))]);
        }
        if is_new_launch {
            board = Board::new(run.path());
        }
        record(
            &mut board,
            [event(2, 5.0, settings()), event(2, 5.0, resumed(4))],
        );
        let again = evaluation(4, 0.5).into_iter();
        record(&mut board, again.map(|kind| event(2, 6.0, kind)));
        record(&mut board, [event(2, 7.0, step(5))]);
        let next = evaluation(6, 0.75).into_iter();
        record(&mut board, next.map(|kind| event(2, 8.0, kind)));
        board.flush().unwrap();

        let directory = run.path().join("tensorboard").join(JOB);
        let (read, by_samples) = (
            self::read(&directory),
            self::read(&directory.join("by_samples")),
        );
        let case = format!("{done} {is_new_launch}");
        let once = [2, 4, 6];
        for (kind, tag) in [
            ("images", "inputs/0"),
            ("histograms", "weights/head"),
            ("pr_curves", "precision_recall/held_out/fracture"),
            ("scalars", "eval/held_out/auc"),
        ] {
            assert_eq!(steps(&read, kind, tag), once, "{case}: {tag}");
        }
        let tag = "by_samples/eval/held_out/auc";
        assert_eq!(
            steps(&by_samples, "scalars", tag),
            once.map(|step| 48 * step),
            "{case}"
        );
        assert_eq!(
            steps(&read, "scalars", "train/loss"),
            [1, 2, 3, 4, 5],
            "{case}"
        );
    }
}

/// What an attempt found to be there stands no more once another one begins at the start.
#[test]
fn an_evaluation_is_written_again_where_it_was_taken_back() {
    let run = tempfile::tempdir().unwrap();
    let settings = EventKind::TrainingStarted {
        settings: BTreeMap::from([("batch".to_owned(), Setting::Number(48.0))]),
    };
    let evaluated = || evaluation(2, 0.5).pop().unwrap();
    let mut board = Board::new(run.path());
    let first = [
        settings,
        step(1),
        step(2),
        evaluated(),
        resumed(2),
        evaluated(),
    ];
    record(&mut board, first.map(|kind| event(1, 1.0, kind)));
    let from_the_start = [step(1), step(2), evaluated()];
    record(&mut board, from_the_start.map(|kind| event(2, 9.0, kind)));
    board.flush().unwrap();
    let directory = run.path().join("tensorboard").join(JOB);
    assert_eq!(times(&read(&directory), "eval/held_out/auc"), [(2, 9)]);
    let by_samples = read(&directory.join("by_samples"));
    let tag = "by_samples/eval/held_out/auc";
    assert_eq!(times(&by_samples, tag), [(96, 9)]);

    // And where a restart in an earlier file took it back.
    record(
        &mut Board::new(run.path()),
        [resumed(1), step(2)].map(|kind| event(3, 20.0, kind)),
    );
    record(
        &mut Board::new(run.path()),
        [resumed(2), evaluated()].map(|kind| event(4, 30.0, kind)),
    );
    assert_eq!(times(&read(&directory), "eval/held_out/auc"), [(2, 30)]);
}

#[test]
fn an_attempt_from_the_start_takes_back_everything() {
    let run = tempfile::tempdir().unwrap();
    let directory = run.path().join("tensorboard").join(JOB);
    let mut board = Board::new(run.path());
    record(&mut board, (1..=6).map(|n| event(1, n as f64, step(n))));
    record(
        &mut board,
        [event(2, 30.0, step(1)), event(2, 31.0, step(2))],
    );
    board.flush().unwrap();
    assert_eq!(times(&read(&directory), "train/loss"), [(1, 30), (2, 31)]);

    record(&mut Board::new(run.path()), [event(3, 40.0, step(1))]);
    assert_eq!(times(&read(&directory), "train/loss"), [(1, 40)]);
}

#[test]
fn a_file_cut_in_the_middle_of_a_record_is_read_up_to_there() {
    let run = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(run.path(), 1_700_000_000.0).unwrap();
    for n in 1..=4 {
        writer
            .scalar("train/loss", n, 0.5, 1_700_000_000.0 + n as f64)
            .unwrap();
    }
    writer.flush().unwrap();
    let file = std::fs::File::options()
        .write(true)
        .open(writer.path())
        .unwrap();
    file.set_len(file.metadata().unwrap().len() - 3).unwrap();
    assert_eq!(
        times(&read(run.path()), "train/loss"),
        [(1, 1), (2, 2), (3, 3)]
    );
}
