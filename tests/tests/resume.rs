//! Whatever is killed, and when: the next launch ends with the same bytes as a run that nobody disturbed.

use std::path::Path;

use spinectl_tests::{
    Launch, assert_same, kill, launch_arguments, phantom, rank_pid, ranks, spinectl,
};

const STAGE2: &str = "\"job\":\"stage2-resnest14d-fold0-seed0\"";

#[test]
fn a_disturbed_run_ends_with_the_tables_of_an_undisturbed_one() {
    let folder = tempfile::tempdir().unwrap();
    let data = phantom(folder.path());
    let arguments = |run: &Path| launch_arguments(&data, run, 2, &["--resume=auto"]);

    let undisturbed = folder.path().join("undisturbed");
    let run = undisturbed.clone();
    let mut launch = Launch::start(&arguments(&run), &run);
    assert_eq!(launch.finish(), Some(0), "{}", launch.log());
    // Measured on every launch anew; the bound is the project's promise for the demo.
    assert!(
        launch.peak_rss > 0 && launch.peak_rss < 25 * 1024,
        "launcher: {} KiB",
        launch.peak_rss
    );
    for name in [
        "summary.json",
        "tables/study_boxes.csv",
        "tables/slice_labels.csv",
        "tables/predictions.csv",
    ] {
        assert!(run.join(name).is_file(), "{name} is missing");
    }
    let jobs = std::fs::read_dir(run.join("tensorboard")).unwrap().count();
    assert!(
        jobs >= 8,
        "a TensorBoard run for each trained model, found {jobs}"
    );

    // A rank dies: the launcher starts the job anew from its newest checkpoint, by itself.
    let run = folder.path().join("rank-killed");
    let mut launch = Launch::start(&arguments(&run), &run);
    // Its newest checkpoint is the one that it last said to be durable, which may be a step or two later than it was begun.
    launch.wait_for(&["\"event\":\"checkpoint_written\"", STAGE2, "\"step\":3,"]);
    launch.wait_for(&["\"event\":\"step\"", STAGE2, "\"step\":5,"]);
    kill(rank_pid(&run, 1).expect("rank 1 is at work"), libc::SIGKILL);
    assert_eq!(launch.finish(), Some(0), "{}", launch.log());
    launch.wait_for(&[
        "\"event\":\"job_resumed\"",
        STAGE2,
        "\"attempt\":2",
        "\"step\":3,",
    ]);
    // To the last digit, over both attempts and all stages.
    assert_same(&run, &undisturbed);

    // The launcher dies: its ranks go with it, and the next launch redoes no finished job.
    let run = folder.path().join("launcher-killed");
    let mut launch = Launch::start(&arguments(&run), &run);
    launch.wait_for(&["\"event\":\"step\"", STAGE2, "\"step\":4,"]);
    kill(launch.pid(), libc::SIGKILL);
    assert_eq!(launch.finish(), None);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !ranks(&run).is_empty() {
        assert!(
            std::time::Instant::now() < deadline,
            "ranks outlive their launcher"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let mut launch = Launch::start(&arguments(&run), &run);
    assert_eq!(launch.finish(), Some(0), "{}", launch.log());
    let events = std::fs::read_to_string(run.join("events.jsonl")).unwrap();
    let starts = events.lines().filter(|l| {
        l.contains("\"job_started\"") && l.contains("\"job\":\"stage1a-resnest14d-fold0")
    });
    assert_eq!(starts.count(), 1, "a finished job ran again");
    assert_same(&run, &undisturbed);

    // A polite stop: exit 75 with a checkpoint, and on from there.
    let run = folder.path().join("stopped");
    let mut launch = Launch::start(&arguments(&run), &run);
    launch.wait_for(&["\"event\":\"step\"", STAGE2, "\"step\":4,"]);
    kill(launch.pid(), libc::SIGTERM);
    assert_eq!(launch.finish(), Some(75), "{}", launch.log());
    let mut launch = Launch::start(&arguments(&run), &run);
    assert_eq!(launch.finish(), Some(0), "{}", launch.log());
    // One checkpoint more or less is the stop's; what the run hands on is the same.
    assert_same(&run, &undisturbed);

    // The models go through prediction, also on studies without labels.
    let images = data.join("train_images");
    let submission = folder.path().join("submission.csv");
    let predicted = spinectl([
        "predict".as_ref(),
        run.as_os_str(),
        "--images".as_ref(),
        images.as_os_str(),
        "--out".as_ref(),
        submission.as_os_str(),
    ]);
    assert!(
        predicted.status.success(),
        "{}",
        String::from_utf8_lossy(&predicted.stderr)
    );
    let rows = std::fs::read_to_string(&submission).unwrap();
    assert_eq!(rows.lines().count(), 1 + 12 * 8);
    assert!(rows.starts_with("row_id,fractured\n"), "{rows:.60}");
}
