//! The board without TensorBoard: when files are made, flushed, and given up.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use event::{EventKind, Picture, RunEvent, StepRecord};
use telemetry::tensorboard::{Board, Error};

fn step(job: &str, time: f64, step: u64) -> RunEvent {
    RunEvent {
        time,
        job: Some(job.to_owned()),
        attempt: Some(1),
        rank: Some(0),
        kind: EventKind::Step(StepRecord {
            step,
            ..StepRecord::default()
        }),
    }
}

fn resumed(job: &str, time: f64, step: u64) -> RunEvent {
    let kind = EventKind::JobResumed {
        step,
        checkpoint: format!("step-{step:08}"),
        skipped: Vec::new(),
    };
    RunEvent {
        kind,
        ..self::step(job, time, step)
    }
}

fn picture(time: f64, step: u64, name: &str) -> RunEvent {
    let kind = EventKind::Picture(Picture {
        step,
        name: name.into(),
        path: "a.png".into(),
        caption: String::new(),
    });
    RunEvent {
        kind,
        ..self::step("job", time, step)
    }
}

/// What is known as a PNG, of so many bytes.
fn png(bytes: usize) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    png.resize(bytes, 1);
    png
}

fn files(directory: &Path) -> Vec<String> {
    let files = fs::read_dir(directory).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn bytes(directory: &Path) -> u64 {
    let files = fs::read_dir(directory).unwrap();
    files
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum()
}

#[test]
fn a_job_without_records_has_no_directory() {
    let run = tempfile::tempdir().unwrap();
    let mut board = Board::new(run.path());
    board
        .record(&RunEvent::job(
            "stage1a-labels",
            1,
            EventKind::JobStarted { world_size: 1 },
        ))
        .unwrap();
    board
        .record(&RunEvent::run(EventKind::Warning {
            message: "low disk".into(),
        }))
        .unwrap();
    board.flush().unwrap();
    assert_eq!(fs::read_dir(run.path()).unwrap().count(), 0);
}

#[test]
fn a_run_directory_that_is_gone_is_not_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    Board::new(&run).record(&step("job", 100.0, 1)).unwrap_err();
    assert!(!run.exists());
}

#[test]
fn a_run_directory_made_anew_at_the_same_place_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    fs::create_dir(&run).unwrap();
    let mut board = Board::new(&run);
    let started = EventKind::JobStarted { world_size: 1 };
    board.record(&RunEvent::job("job", 1, started)).unwrap();
    fs::rename(&run, folder.path().join("moved")).unwrap();
    fs::create_dir(&run).unwrap();
    board.record(&step("job", 100.0, 1)).unwrap();
    board.flush().unwrap();
    assert_eq!(fs::read_dir(&run).unwrap().count(), 0);
}

#[test]
fn records_reach_the_file_every_few_seconds_and_at_the_end() {
    let run = tempfile::tempdir().unwrap();
    let directory = run.path().join("tensorboard/job");
    let mut board = Board::new(run.path());
    board.record(&step("job", 100.0, 1)).unwrap();
    let begun = bytes(&directory);
    board.record(&step("job", 104.0, 2)).unwrap();
    assert_eq!(bytes(&directory), begun, "still in the buffer");
    board.record(&step("job", 105.0, 3)).unwrap();
    let flushed = bytes(&directory);
    assert!(flushed > begun);
    board.record(&step("job", 106.0, 4)).unwrap();
    assert_eq!(bytes(&directory), flushed);
    let stopped = EventKind::JobStopped { step: Some(4) };
    board
        .record(&RunEvent {
            kind: stopped,
            ..step("job", 107.0, 4)
        })
        .unwrap();
    assert!(bytes(&directory) > flushed);
}

#[test]
fn a_training_from_nothing_removes_the_event_files_of_the_one_before_and_nothing_else() {
    let run = tempfile::tempdir().unwrap();
    let job = run.path().join("tensorboard/job");
    let by_samples = job.join("by_samples");
    for time in [1.0, 2.0] {
        let mut board = Board::new(run.path());
        board.record(&resumed("job", time, 1)).unwrap();
        board.record(&step("job", time, 2)).unwrap();
        board.record(&step("other", time, 2)).unwrap();
    }
    let kept = [
        "notes.txt",
        "events.out.tfevents",
        "events.out.tfevents.mine",
    ];
    for name in kept {
        fs::write(job.join(name), "a user's").unwrap();
    }
    assert_eq!((files(&job).len(), files(&by_samples).len()), (6, 2));

    let mut board = Board::new(run.path());
    let started = EventKind::TrainingStarted {
        settings: [].into(),
    };
    let begin = RunEvent {
        kind: started,
        ..step("job", 3.0, 0)
    };
    board.record(&begin).unwrap();
    assert_eq!(files(&job).len(), 7, "it may go on from a checkpoint");
    board.record(&step("job", 4.0, 1)).unwrap();
    let left = files(&job);
    assert_eq!(left.len(), 5, "{left:?}");
    assert!(kept.iter().all(|name| left.contains(&(*name).to_owned())));
    assert!(
        left.iter().any(|name| name.contains(".0000000003.")),
        "{left:?}"
    );
    assert_eq!(files(&by_samples).len(), 1);
    assert_eq!(files(&run.path().join("tensorboard/other")).len(), 2);

    // A second attempt of the same launch is not another training.
    board.record(&step("job", 5.0, 1)).unwrap();
    assert_eq!(files(&job).len(), 5);
}

#[test]
fn of_jobs_that_cannot_be_written_one_is_named_and_the_others_go_on() {
    let run = tempfile::tempdir().unwrap();
    fs::create_dir(run.path().join("tensorboard")).unwrap();
    for job in ["blocked", "blocked_too"] {
        fs::write(
            run.path().join("tensorboard").join(job),
            "a file where a folder should be",
        )
        .unwrap();
    }
    let mut board = Board::new(run.path());
    let error = board.record(&step("blocked", 1.0, 1)).unwrap_err();
    assert!(error.to_string().contains("tensorboard/blocked"), "{error}");
    board.record(&step("blocked", 2.0, 2)).unwrap();
    board.record(&step("blocked_too", 2.0, 2)).unwrap();
    board.record(&step("other", 2.0, 1)).unwrap();
    board.flush().unwrap();
    assert!(bytes(&run.path().join("tensorboard/other")) > 0);
}

#[test]
fn what_ails_the_disk_is_told_once_for_all_jobs() {
    let run = tempfile::tempdir().unwrap();
    let mut board = Board::new(run.path());
    // As a full disk is, the same for each job.
    fs::write(run.path().join("tensorboard"), "no folder").unwrap();
    let error = board.record(&step("first", 1.0, 1)).unwrap_err();
    assert!(error.to_string().contains("tensorboard"), "{error}");
    for job in ["first", "second", "third"] {
        board.record(&step(job, 2.0, 2)).unwrap();
        board.flush().unwrap();
    }
    // Another cause is another trouble: in /proc nobody makes folders.
    fs::remove_file(run.path().join("tensorboard")).unwrap();
    symlink("/proc", run.path().join("tensorboard")).unwrap();
    board.record(&step("fourth", 3.0, 1)).unwrap_err();
    fs::remove_file(run.path().join("tensorboard")).unwrap();
    // A job that begins once there is room has its records.
    board.record(&step("fifth", 4.0, 1)).unwrap();
    board.flush().unwrap();
    assert!(bytes(&run.path().join("tensorboard/fifth")) > 0);
}

#[test]
fn a_name_that_is_a_path_is_refused_once() {
    let run = tempfile::tempdir().unwrap();
    let mut board = Board::new(run.path());
    for job in ["../../outside", "/tmp/outside", "", ".", "..", "a b", "a/b"] {
        let error = board.record(&step(job, 1.0, 1)).unwrap_err();
        assert!(matches!(error, Error::JobName { .. }), "{error}");
        board.record(&step(job, 2.0, 2)).unwrap();
    }
    assert_eq!(fs::read_dir(run.path()).unwrap().count(), 0);
}

#[test]
fn a_hundred_thousand_steps_and_a_hundred_evaluations_take_less_than_100_megabytes() {
    const STEPS: u64 = 100_000;
    let run = tempfile::tempdir().unwrap();
    fs::write(run.path().join("a.png"), png(500_000)).unwrap();
    let mut board = Board::new(run.path());
    let mut thinned = 0;
    for number in 1..=STEPS {
        let heads = ["any", "fracture", "ratio"].map(|head| (head.to_owned(), 0.5));
        let kind = EventKind::Step(StepRecord {
            step: number,
            total_steps: STEPS,
            losses: heads.into(),
            learning_rates: [("backbone".to_owned(), 1e-4)].into(),
            clipped_norm: Some(1.0),
            loss_scale: Some(65_536.0),
            samples: 48,
            images: 1536,
            seconds: 1.0,
            phases: [(event::Phase::DataWait, 0.1)].into(),
            host_memory: Some(1 << 30),
            device_memory: Some(1 << 30),
            ..StepRecord::default()
        });
        let event = RunEvent {
            kind,
            ..step("job", number as f64, number)
        };
        board.record(&event).unwrap();
        if number.is_multiple_of(STEPS / 100) {
            for name in ["inputs/0", "inputs/1", "boxes/held_out/0"] {
                let shown = board.record(&picture(number as f64, number, name));
                thinned += u32::from(matches!(shown, Err(Error::Thinned { .. })));
            }
        }
    }
    board.flush().unwrap();
    let job = run.path().join("tensorboard/job");
    let all = bytes(&job) + bytes(&job.join("by_samples"));
    assert_eq!(thinned, 1, "it is said once");
    assert!(
        all > 30_000_000,
        "{all}: every update is there, and pictures"
    );
    assert!(all < 100_000_000, "{all}");
}

#[test]
fn a_picture_is_no_pipe_no_link_and_of_a_job_only_the_first_that_fails_is_told() {
    let run = tempfile::tempdir().unwrap();
    let mut board = Board::new(run.path());
    let path = run.path().join("a.png");
    let told = |board: &mut Board| {
        let shown = board.record(&picture(1.0, 1, "inputs/0"));
        shown.err().map(|error| error.to_string())
    };
    // Nobody writes into it: a reader that waits would wait for ever.
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let error = told(&mut board).unwrap();
    assert!(error.contains("no regular file"), "{error}");
    assert_eq!(told(&mut board), None);

    fs::remove_file(&path).unwrap();
    let elsewhere = run.path().join("elsewhere.png");
    fs::write(&elsewhere, png(100)).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    let error = told(&mut Board::new(run.path())).unwrap();
    assert!(error.contains("a.png"), "{error}");

    fs::rename(&elsewhere, &path).unwrap();
    assert_eq!(told(&mut board), None);
    board.flush().unwrap();
    assert!(bytes(&run.path().join("tensorboard/job")) > 100);
}
