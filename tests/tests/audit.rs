//! The sample ledger of a run that was killed, stopped and resumed on other numbers of ranks: it is proved, and no line of
//! it can be changed unseen.

use std::path::Path;

use spinectl_tests::{Launch, kill, launch_arguments, phantom, rank_pid, spinectl};

const JOB: &str = "stage1a-resnest14d-fold0-seed0";
const OF_JOB: &str = "\"job\":\"stage1a-resnest14d-fold0-seed0\"";

/// The exit code of an audit and what it printed.
fn audit(run: &Path, more: &[&str]) -> (Option<i32>, String) {
    let run = run.to_str().expect("a path in UTF-8");
    let audited = spinectl(["audit", run].iter().chain(more));
    let said = [audited.stdout, audited.stderr].concat();
    (
        audited.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// All checkpoints of the run verify, and the newest has this file: each rank wrote a part of it.
fn checkpoints_are_whole(run: &Path, file: &str) {
    let path = run.to_str().expect("a path in UTF-8");
    let verified = spinectl(["checkpoint", "verify", path, "--json"]);
    let said = String::from_utf8_lossy(&verified.stdout);
    assert_eq!(verified.status.code(), Some(0), "{said}");
    let rows: Vec<serde_json::Value> = serde_json::from_str(&said).unwrap();
    let newest = rows
        .iter()
        .filter(|row| row["job"] == JOB)
        .max_by_key(|row| row["step"].as_u64());
    let folder = newest.expect("a checkpoint")["path"].as_str();
    let part = Path::new(folder.expect("its folder")).join(file);
    assert!(part.is_file(), "{} is missing: {said}", part.display());
}

#[test]
fn what_was_killed_and_resumed_on_two_one_and_three_ranks_is_proved() {
    let folder = tempfile::tempdir().unwrap();
    let data = phantom(folder.path());
    let run = folder.path().join("run");
    let launch = |ranks| {
        let more = [
            "--resume=auto",
            "--stages=1a",
            "--set=stage1a.training.epochs=8",
            "--set=stage1a.training.micro_batch=2",
            "--set=replica_check=2",
            "--set=checkpoint.shards=on",
        ];
        Launch::start(&launch_arguments(&data, &run, ranks, &more), &run)
    };

    // A rank of two dies between checkpoints, which come at every third update; then the whole run is asked to stop.
    let mut at_work = launch(2);
    at_work.wait_for(&["\"event\":\"step\"", OF_JOB, "\"step\":5,"]);
    kill(rank_pid(&run, 1).expect("rank 1 is at work"), libc::SIGKILL);
    at_work.wait_for(&["\"event\":\"step\"", OF_JOB, "\"attempt\":2", "\"step\":7,"]);
    kill(at_work.pid(), libc::SIGTERM);
    assert_eq!(at_work.finish(), Some(75), "{}", at_work.log());
    let (code, said) = audit(&run, &[JOB]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("proved so far"), "{said}");
    checkpoints_are_whole(&run, "model-00002-of-00002.safetensors");

    // On one rank, and on three to the end.
    let mut at_work = launch(1);
    at_work.wait_for(&["\"event\":\"step\"", OF_JOB, "\"attempt\":3"]);
    kill(at_work.pid(), libc::SIGTERM);
    assert_eq!(at_work.finish(), Some(75), "{}", at_work.log());
    let mut at_work = launch(3);
    assert_eq!(at_work.finish(), Some(0), "{}", at_work.log());
    checkpoints_are_whole(&run, "model-00003-of-00003.safetensors");

    let (code, said) = audit(&run, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("proved: all"), "{said}");
    let (_, json) = audit(&run, &[JOB, "--json"]);
    let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
    let found = &rows[0]["audit"];
    assert_eq!(found["world_sizes"], serde_json::json!([2, 2, 1, 3]));
    assert_eq!(found["proved"], found["total"]);
    assert!(found["voided"].as_u64().unwrap() > 0, "{json}");

    // One sample of one update becomes another.
    let ledger = run.join("jobs").join(JOB).join("ledger.jsonl");
    let text = std::fs::read_to_string(&ledger).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let number = lines
        .iter()
        .rposition(|line| line.contains("\"step\":24,"))
        .expect("the last update");
    let loaded = lines[number].find("[[").unwrap() + 2;
    let end = loaded + lines[number][loaded..].find(',').unwrap();
    let other = match &lines[number][loaded..end] {
        "1" => "2",
        _ => "1",
    };
    lines[number].replace_range(loaded..end, other);
    std::fs::write(&ledger, lines.join("\n") + "\n").unwrap();
    let (code, said) = audit(&run, &[]);
    assert_eq!(code, Some(1), "{said}");
    let line = format!("line {} is not what was written", number + 1);
    for part in [
        line.as_str(),
        "update 24 (epoch",
        "rank 0 of 3",
        "NOT proved",
        JOB,
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }

    // Without its ledger nothing of a job is proved.
    std::fs::remove_file(&ledger).unwrap();
    let (code, said) = audit(&run, &[JOB]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("ledger.jsonl"), "{said}");
}
