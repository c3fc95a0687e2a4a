//! Whole launches with real processes.

mod harness;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use event::EventKind;
use plan::JobState;

use harness::{Run, assert_gone, example, fake_rank, kill, number, plan, wait_until};

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
            format!("alone attempt 1 rank 0 of 1 resume never threads {cores} store handed over"),
            format!("first attempt 1 rank 0 of 2 resume never threads {threads} store handed over"),
            format!("first attempt 1 rank 1 of 2 resume never threads {threads} store "),
            format!(
                "second attempt 1 rank 0 of 2 resume never threads {threads} store handed over"
            ),
            format!("second attempt 1 rank 1 of 2 resume never threads {threads} store "),
            format!("third attempt 1 rank 0 of 1 resume never threads {cores} store handed over"),
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
        EventKind::JobFinished { metrics, .. } => Some((event.job.clone(), metrics.clone())),
        _ => None,
    });
    let (job, metrics) = finished.unwrap();
    assert_eq!((job.as_deref(), metrics["loss"]), (Some("first"), 0.5));
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
fn a_rank_that_is_killed_is_started_again_and_leaves_nobody_behind() {
    let run = Run::new(&plan(1));
    run.does("first-1", "train");
    let launcher = run.spawn("auto");
    let ranks = run.training();
    let children = run.children();
    kill(ranks[1], libc::SIGKILL);
    assert_eq!(launcher.end().code(), Some(0), "{}", run.stderr());
    assert_eq!(run.state("first"), (JobState::Succeeded, 2));
    assert_gone(ranks);
    assert_gone(children);

    let report = run.dir().join("jobs/first/attempt-1/failure-rank1.json");
    let report: event::FailureReport = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    assert_eq!(report.exit.as_deref(), Some("signal 9"));
    assert!(
        !run.dir()
            .join("jobs/first/attempt-1/failure-rank0.json")
            .exists()
    );
    let retried = run.events().into_iter().find_map(|event| match event.kind {
        EventKind::JobRetried { reason, .. } => Some(reason),
        _ => None,
    });
    let reason = retried.unwrap();
    assert!(
        reason.starts_with("rank 1, forward at step 5: "),
        "{reason}"
    );
    assert!(
        run.calls()
            .iter()
            .any(|call| call.contains("attempt 2") && call.contains("resume auto"))
    );
}

#[test]
fn bad_data_ends_its_branch_at_once_with_exit_code_4() {
    let run = Run::new(&plan(3));
    run.does(
        "first",
        r#"[ "$RANK" = 1 ] || train; fail data "1.2.3: slice 7 is torn" 4"#,
    );
    assert_eq!(run.launch("auto"), 4, "{}", run.stderr());
    assert_eq!(run.state("first"), (JobState::Failed, 1));
    assert_eq!(run.state("second"), (JobState::Pending, 0));
    assert_eq!(run.state("third"), (JobState::Pending, 0));
    assert_eq!(
        run.state("alone"),
        (JobState::Succeeded, 1),
        "it needs nobody"
    );
    assert_gone([number(&run.dir().join("child-0"))]);

    run.undo("first");
    assert_eq!(run.launch("auto"), 0, "a new launch tries again");
    assert_eq!(run.state("first"), (JobState::Succeeded, 2));
}

#[test]
fn a_death_without_a_report_is_told_with_the_end_of_its_log() {
    let run = Run::new(&plan(0));
    run.does("first", "echo 'terminate called: bad_alloc' >&2; exit 7");
    assert_eq!(run.launch("auto"), 1);
    let failed = run.events().into_iter().find_map(|event| match event.kind {
        EventKind::JobFailed { reason } => Some(reason),
        _ => None,
    });
    let reason = failed.unwrap();
    assert!(
        reason.contains("exit 7") && reason.contains("bad_alloc"),
        "{reason}"
    );
}

#[test]
fn nobody_outlives_a_launcher_that_is_killed_and_the_next_launch_goes_on() {
    let run = Run::new(&plan(0));
    run.does("second-1", "train");
    let launcher = run.spawn("auto");
    let ranks = run.training();
    let children = run.children();
    launcher.signal(libc::SIGKILL);
    assert_eq!(launcher.end().signal(), Some(libc::SIGKILL));
    assert_gone(ranks);
    assert_gone(children);

    assert_eq!(run.state("second"), (JobState::Running, 1));
    let status = launcher::status(&run.dir()).unwrap();
    assert_eq!(status.launcher_pid, None);
    assert!(
        status.jobs[1]
            .why
            .as_deref()
            .unwrap()
            .contains("launch again")
    );
    assert_eq!(run.launch("auto"), 0, "{}", run.stderr());
    assert_eq!(run.state("first"), (JobState::Succeeded, 1));
    assert_eq!(run.state("second"), (JobState::Succeeded, 2));
}

#[test]
fn a_stop_saves_and_the_next_launch_goes_on() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1, libc::SIGHUP] {
        let run = Run::new(&plan(3));
        run.does("first-1", "train");
        let launcher = run.spawn("auto");
        let ranks = run.training();
        let children = run.children();
        launcher.signal(signal);
        assert_eq!(launcher.end().code(), Some(75), "{}", run.stderr());
        assert_eq!(run.state("first"), (JobState::Stopped, 1));
        assert_eq!(
            run.state("alone"),
            (JobState::Pending, 0),
            "nothing new is started"
        );
        assert_gone(ranks);
        assert_gone(children);
        let stopped = run
            .events()
            .into_iter()
            .any(|event| matches!(event.kind, EventKind::JobStopped { step: Some(5) }));
        assert!(stopped);
        assert_eq!(run.launch("auto"), 0, "{}", run.stderr());
        assert_eq!(run.state("first"), (JobState::Succeeded, 2));
    }
}

#[test]
fn a_second_signal_ends_ranks_that_do_not_stop() {
    let run = Run::new(&plan(3));
    run.does(
        "first-1",
        "train() { :; }; trap 'echo >\"$run_dir/asked-$RANK\"' TERM; \
        sleep 1000 & echo $$ >\"$run_dir/pid-$RANK\"; while :; do wait; done",
    );
    let launcher = run.spawn("auto");
    let ranks = run.training();
    launcher.signal(libc::SIGTERM);
    wait_until("the ranks are asked", || {
        [0, 1]
            .iter()
            .all(|rank| run.dir().join(format!("asked-{rank}")).exists())
    });
    launcher.signal(libc::SIGINT);
    assert_eq!(launcher.end().code(), Some(130));
    assert_gone(ranks);
    assert_eq!(run.state("first"), (JobState::Stopped, 1));
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
fn a_program_that_cannot_be_started_fails_its_job_and_not_the_launcher() {
    let run = Run::new(&plan(3));
    let test = std::env::current_exe().unwrap();
    let launch = test
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples/launch");
    let status = Command::new(launch)
        .arg(run.dir())
        .arg(run.folder.path().join("given.json"))
        .args(["/nowhere/spinectl-rank", "2", "auto"])
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(3));
    assert_eq!(run.state("first"), (JobState::Failed, 1), "not retried");
}

#[test]
fn all_that_a_rank_said_before_its_death_is_kept_in_order() {
    let run = Run::new(&plan(0));
    run.does(
        "alone",
        r#"for done in {1..2000}; do say progress ",\"what\":\"w\",\"done\":$done,\"total\":9"; done; kill -9 $$"#,
    );
    assert_eq!(run.launch("auto"), 1, "{}", run.stderr());
    let said = run
        .events()
        .into_iter()
        .filter_map(|event| match event.kind {
            EventKind::Progress { done, .. } => Some(done),
            EventKind::RankFailed(_) => Some(0),
            _ => None,
        });
    let expected: Vec<u64> = (1..=2000).chain([0]).collect();
    assert_eq!(said.collect::<Vec<_>>(), expected);
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
