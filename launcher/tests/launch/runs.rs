//! Runs that go well: their records, what a second launch does, resuming, prediction.

use std::fs;
use std::process::Command;

use event::EventKind;
use plan::JobState;

use crate::harness::{Run, example, fake_rank, plan};

#[test]
fn a_graph_of_jobs_runs_to_its_end_and_leaves_its_records() {
    let run = Run::new(&plan(0));
    run.does(
        "first",
        r#"say evaluated ',"step":9,"set":"held-out","metrics":{"loss":0.5}'"#,
    );
    run.does("second", r#"say step ',"step":3,"total_steps":9,"epoch":0,"loss":0.25,"learning_rate":0,"gradient_norm":0,"samples":0,"images":0,"seconds":0'"#);
    assert_eq!(run.launch("never"), 0, "{}", run.stderr());

    let cores = std::thread::available_parallelism().unwrap().get();
    let threads = (cores / 2).max(1);
    assert_eq!(
        run.calls(),
        [
            format!("alone attempt 1 rank 0 of 1 resume never threads {cores} store file"),
            format!("first attempt 1 rank 0 of 2 resume never threads {threads} store file"),
            format!("first attempt 1 rank 1 of 2 resume never threads {threads} store file"),
            format!("second attempt 1 rank 0 of 2 resume never threads {threads} store file"),
            format!("second attempt 1 rank 1 of 2 resume never threads {threads} store file"),
            format!("third attempt 1 rank 0 of 1 resume never threads {cores} store file"),
        ]
    );
    let events = run.events();
    assert!(matches!(
        events[0].kind,
        EventKind::RunStarted {
            jobs: 4,
            done: 0,
            ranks: 2,
            ..
        }
    ));
    let last = &events.last().unwrap().kind;
    assert!(matches!(last, EventKind::RunFinished { state, .. } if state == "done"));
    let finished = events.iter().find_map(|event| match &event.kind {
        EventKind::JobFinished { metrics, .. } if event.job.as_deref() == Some("first") => {
            Some(metrics.clone())
        }
        _ => None,
    });
    assert_eq!(finished.unwrap()["loss"], 0.5);
    let evaluated = events
        .iter()
        .find(|event| matches!(event.kind, EventKind::Evaluated { .. }))
        .unwrap();
    assert_eq!(
        evaluated.job.as_deref(),
        Some("first"),
        "ranks do not say who they are"
    );
    assert!(evaluated.rank.is_some());

    let log = run.dir().join("jobs/first/attempt-1/rank1.log");
    assert_eq!(fs::read_to_string(log).unwrap(), "log of rank 1\n");
    for file in [
        "recipe.yaml",
        "provenance.json",
        "plan.json",
        "run.db",
        "tables",
    ] {
        assert!(run.dir().join(file).exists(), "{file}");
    }
    let status = launcher::status(&run.dir()).unwrap();
    assert_eq!(status.launcher_pid, None);
    let second = &status.jobs[1];
    assert_eq!(second.state, JobState::Succeeded);
    assert_eq!(
        (second.step, second.total_steps, second.loss),
        (Some(3), Some(9), Some(0.25))
    );
}

#[test]
fn a_finished_run_is_not_done_again_but_what_a_new_plan_changes_is() {
    let mut plan = plan(0);
    let run = Run::new(&plan);
    assert_eq!(run.launch("auto"), 0, "{}", run.stderr());
    let calls = run.calls();
    assert_eq!(run.launch("auto"), 0);
    assert_eq!(run.calls(), calls, "nothing runs twice");

    plan.jobs[1].hash = "another".into();
    plan.jobs[2].hash = "another, too".into();
    run.set_plan(&plan);
    assert_eq!(run.launch("auto"), 0);
    let attempts = run.attempts();
    let again: Vec<_> = attempts
        .iter()
        .filter(|call| call.contains("attempt 2"))
        .collect();
    assert_eq!(
        again,
        [
            "second attempt 2 rank 0 of 2",
            "second attempt 2 rank 1 of 2",
            "third attempt 2 rank 0 of 1"
        ]
    );
    let events = run.events();
    let warned = events.iter().any(|event| {
        matches!(&event.kind, EventKind::Warning { message } if message.contains("second, third"))
    });
    assert!(warned, "a lost checkpoint is said");
    let starts = events
        .iter()
        .filter(|event| matches!(event.kind, EventKind::RunStarted { .. }));
    assert_eq!(starts.count(), 3, "all launches are in one file");
}

#[test]
fn two_launches_do_not_share_a_directory() {
    let run = Run::new(&plan(0));
    run.does("first-1", "train");
    let launcher = run.spawn("auto");
    run.training();
    let status = launcher::status(&run.dir()).unwrap();
    assert_eq!(status.launcher_pid, Some(launcher.0.id()));
    assert_eq!(status.jobs[0].state, JobState::Running);
    assert_eq!(run.launch("auto"), 3);
    let said = run.stderr();
    assert!(
        said.contains(&format!("process id {}", launcher.0.id())),
        "{said}"
    );
    launcher.signal(libc::SIGTERM);
    assert_eq!(
        launcher.end().code(),
        Some(75),
        "the first one was not disturbed"
    );
}

#[test]
fn a_directory_that_holds_a_run_is_not_begun_anew() {
    let run = Run::new(&plan(0));
    assert_eq!(run.launch("never"), 0, "{}", run.stderr());
    assert_eq!(run.launch("never"), 2);
    assert!(run.stderr().contains("--resume auto"), "{}", run.stderr());
}

#[test]
fn what_is_no_checkpoint_of_the_run_is_not_resumed_from() {
    let run = Run::new(&plan(0));
    let elsewhere = run.folder.path().to_str().unwrap();
    assert_eq!(run.launch(elsewhere), 2);
    assert!(run.stderr().contains("checkpoint ls"), "{}", run.stderr());
    assert!(run.calls().is_empty());
}

#[test]
fn the_users_checkpoint_goes_to_the_job_that_owns_it_and_only_once() {
    let run = Run::new(&plan(1));
    run.does("second-1", "train");
    let launcher = run.spawn("auto");
    run.training();
    launcher.signal(libc::SIGTERM);
    assert_eq!(launcher.end().code(), Some(75));
    let checkpoints = run
        .dir()
        .canonicalize()
        .unwrap()
        .join("jobs/second/checkpoints");
    let tensor = checkpoint::TensorData {
        name: "w".into(),
        dtype: checkpoint::Dtype::F32,
        shape: vec![1],
        bytes: vec![0; 4],
    };
    let state = checkpoint::Checkpoint {
        step: 5,
        model: vec![tensor],
        optimizer: Vec::new(),
        trainer: serde_json::json!({}),
        meta: checkpoint::Meta {
            plan_hash: "hash".into(),
            job: "second".into(),
            world_size: 2,
        },
    };
    let path = checkpoint::write(&checkpoints, &state).unwrap().path;
    run.does("second-2", "exit 1");
    assert_eq!(run.launch(path.to_str().unwrap()), 0, "{}", run.stderr());
    let calls = run.calls();
    let resumed = |attempt: &str, from: &str| {
        let from = format!("resume {from} ");
        let of_attempt = calls.iter().filter(|call| call.starts_with(attempt));
        of_attempt.clone().count() > 0 && of_attempt.clone().all(|call| call.contains(&from))
    };
    assert!(
        resumed("second attempt 2", path.to_str().unwrap()),
        "{calls:?}"
    );
    assert!(resumed("second attempt 3", "auto"), "{calls:?}");
    assert!(resumed("third attempt 1", "auto"), "{calls:?}");
    let status = launcher::status(&run.dir()).unwrap();
    assert_eq!(status.jobs[1].checkpoint, Some(5));

    assert_eq!(run.launch(path.to_str().unwrap()), 2, "it has succeeded");
}

#[test]
fn a_prediction_is_supervised_as_a_rank_is() {
    let run = Run::new(&plan(0));
    let predict = || {
        let status = Command::new(example("predict"))
            .arg(run.dir())
            .args(["images", "out.csv"])
            .env("SPINECTL_RANK", fake_rank())
            .status();
        status.unwrap().code()
    };
    assert_eq!(predict(), Some(2), "there is no run yet");
    assert_eq!(run.launch("auto"), 0, "{}", run.stderr());
    assert_eq!(predict(), Some(0));
    let log = fs::read_to_string(run.dir().join("predict.log")).unwrap();
    assert_eq!(log, "log of rank 0\n");
    run.does("predict", r#"fail data "1.2.3: no slices" 4"#);
    assert_eq!(predict(), Some(4));
    run.does("predict", "kill -TERM $PPID; train");
    assert_eq!(predict(), Some(143));
}
