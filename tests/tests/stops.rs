//! A stop in the midst of work that has no steps: acted on within a study, by all ranks together, and nothing is lost or torn.

use std::path::Path;

use spinectl_tests::{Launch, assert_same, kill, launch_arguments, phantom};

/// Where a rank is held until it is asked to stop: job, rank, phase, number of the study in that phase.
const HELD: [(&str, usize, &str, u64); 5] = [
    ("labels", 0, "tables", 1),
    // Rank 0 is through with its share and waits for the other.
    ("stage1a-resnest14d-fold0-seed0", 1, "inference", 2),
    ("stage2-resnest14d-fold0-seed0", 0, "evaluate", 1),
    // The features that stage 3 trains on.
    ("stage3-resnest14d-fold0-seed0", 1, "start_up", 2),
    ("stage3-resnest14d-fold1-seed0", 0, "inference", 1),
];

#[test]
fn a_stop_outside_of_updates_ends_all_ranks_and_the_run_goes_on_to_the_same_tables() {
    let folder = tempfile::tempdir().unwrap();
    let data = phantom(folder.path());
    let more = ["--resume=auto", "--set=stage2.training.evaluate_every=1"];
    let arguments = |run: &Path| launch_arguments(&data, run, 2, &more);
    let undisturbed = folder.path().join("undisturbed");
    let mut launch = Launch::start(&arguments(&undisturbed), &undisturbed);
    assert_eq!(launch.finish(), Some(0), "{}", launch.log());

    let run = folder.path().join("stopped");
    for (job, rank, phase, study) in HELD {
        let of_job = format!("\"job\":\"{job}\"");
        let of_rank = format!("\"rank\":{rank},");
        let in_phase = format!("\"phase\":\"{phase}\"");
        let fault = format!("hold:{rank}:{phase}@{study}:{job}");
        let faults = [("SPINECTL_FAULT", fault.as_str())];
        let mut launch = Launch::start_with(&arguments(&run), &run, &faults);
        // It has a study in hand, and does not come past the one that it is held at.
        let pulse = ["\"event\":\"pulse\"", &of_job, &of_rank, &in_phase];
        launch.wait_for(&[&pulse[..], &["\"samples\":"]].concat());
        kill(launch.pid(), libc::SIGTERM);
        assert_eq!(launch.finish(), Some(75), "{job}: {}", launch.log());
        assert!(is_stopped(&run, &of_job), "{job}: {}", launch.log());
        let metrics = run.join("jobs").join(job).join("metrics.json");
        assert!(!metrics.exists(), "{job} has ended");
    }
    let mut launch = Launch::start(&arguments(&run), &run);
    assert_eq!(launch.finish(), Some(0), "{}", launch.log());
    assert_same(&run, &undisturbed);
    // What was trained is kept: inference alone was done anew.
    for job in [HELD[1].0, HELD[4].0] {
        let of_job = format!("\"job\":\"{job}\"");
        let again = [of_job.as_str(), "\"attempt\":2,", "\"event\":\"step\""];
        assert!(!has_event(&run, &again), "{job} was trained again");
    }
}

/// Whether the newest attempt of the job was stopped on request, and by no verdict.
fn is_stopped(run: &Path, of_job: &str) -> bool {
    has_event(run, &[of_job, "\"event\":\"job_stopped\""])
        && !has_event(run, &[of_job, "\"event\":\"rank_failed\""])
}

fn has_event(run: &Path, parts: &[&str]) -> bool {
    let events = std::fs::read_to_string(run.join("events.jsonl")).unwrap();
    events
        .lines()
        .any(|line| parts.iter().all(|part| line.contains(part)))
}
