//! Ranks that fail or are killed, launchers that are killed, and signals.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use event::EventKind;
use plan::JobState;

use crate::harness::{Run, assert_gone, is_gone, kill, number, plan, wait_until};

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
        r#"[ "$RANK" = 1 ] || train
           until [ -e "$run_dir/pid-0" ]; do sleep 0.01; done
           fail data "1.2.3: slice 7 is torn" 4"#,
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
fn what_moved_to_a_session_of_its_own_ends_with_its_launcher_and_with_no_other() {
    let [run, other] = [(); 2].map(|()| Run::new(&plan(0)));
    for run in [&run, &other] {
        run.does("first", "stray; train");
    }
    let (launcher, bystander) = (run.spawn("auto"), other.spawn("auto"));
    let (ranks, strays) = (run.training(), run.strays());
    let (other_ranks, other_strays) = (other.training(), other.strays());
    launcher.signal(libc::SIGKILL);
    launcher.end();
    assert_gone(ranks);
    assert_gone(strays);
    for pid in other_ranks.into_iter().chain(other_strays) {
        assert!(!is_gone(pid), "of another launch: {pid}");
    }
    bystander.signal(libc::SIGTERM);
    assert_eq!(bystander.end().code(), Some(75), "{}", other.stderr());
    for pid in other_ranks.into_iter().chain(other_strays) {
        assert!(is_gone(pid), "outlives a launcher that ends well: {pid}");
    }
}

#[test]
fn what_a_killed_rank_left_in_another_session_is_gone_before_the_next_attempt() {
    let run = Run::new(&plan(1));
    run.does("first-1", "stray; train");
    run.does(
        "first-2",
        r#"for stray in "$run_dir"/stray-?; do lives "$(cat "$stray")" && echo "$stray" >>"$run_dir/alive"; done"#,
    );
    let launcher = run.spawn("auto");
    let ranks = run.training();
    let strays = run.strays();
    kill(ranks[1], libc::SIGKILL);
    assert_eq!(launcher.end().code(), Some(0), "{}", run.stderr());
    assert_eq!(run.state("first"), (JobState::Succeeded, 2));
    assert_gone(strays);
    assert!(
        !run.dir().join("alive").exists(),
        "beside the second attempt"
    );
}

#[test]
fn a_launch_inside_another_bears_the_marks_of_both() {
    let run = Run::new(&plan(0));
    run.does("first", "train");
    let outer = "0123456789abcdef0123456789abcdef";
    let launcher = run.spawn_with("auto", &[("SPINECTL_LAUNCH", outer)]);
    let marks = run.training().map(|rank| {
        let environment = fs::read_to_string(format!("/proc/{rank}/environ")).unwrap();
        let mut all = environment.split('\0');
        let found = all.find_map(|entry| entry.strip_prefix("SPINECTL_LAUNCH="));
        found
            .unwrap()
            .split(',')
            .map(str::to_owned)
            .collect::<Vec<_>>()
    });
    assert_eq!(marks[0], marks[1], "of one attempt");
    assert_eq!((marks[0].len(), marks[0][0].as_str()), (3, outer));
    assert!(marks[0][1] != marks[0][2]);
    launcher.signal(libc::SIGTERM);
    assert_eq!(launcher.end().code(), Some(75), "{}", run.stderr());
}

#[test]
fn ranks_die_with_the_launcher_even_when_its_guardian_is_gone() {
    let mut plan = plan(0);
    // Its rank would be a child, too.
    plan.jobs.retain(|job| job.id.as_str() != "alone");
    let run = Run::new(&plan);
    run.does("first", "train");
    let launcher = run.spawn("auto");
    let ranks = run.training();
    let pid = launcher.0.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
    let guardian: Vec<i32> = children.filter(|pid| !ranks.contains(pid)).collect();
    assert_eq!(guardian.len(), 1);
    kill(guardian[0], libc::SIGKILL);
    launcher.signal(libc::SIGKILL);
    launcher.end();
    assert_gone(ranks);
    for child in run.children() {
        kill(child, libc::SIGKILL);
    }
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
            run.state("second"),
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
fn a_smaller_micro_batch_is_kept_by_the_next_launch() {
    let mut plan = plan(1);
    if let plan::JobKind::Train { training, .. } = &mut plan.jobs[0].kind {
        (training.batch, training.micro_batch) = (16, 8);
    }
    let run = Run::new(&plan);
    let note = r#"echo "$micro_batch" >"$run_dir/micro-$attempt-$RANK""#;
    run.does("first", note);
    run.does(
        "first-1",
        &format!(r#"{note}; [ "$RANK" = 1 ] || train; fail device_memory "CUDA out of memory" 1"#),
    );
    run.does("first-2", &format!("{note}; train"));
    let launcher = run.spawn("auto");
    wait_until("both ranks train with less", || {
        [0, 1].iter().all(|rank| {
            run.dir().join(format!("micro-2-{rank}")).exists()
                && run.dir().join(format!("pid-{rank}")).exists()
        })
    });
    wait_until("they train in their second attempt", || {
        let second = |event: &event::RunEvent| {
            event.attempt == Some(2) && matches!(event.kind, EventKind::Heartbeat { .. })
        };
        run.events().iter().filter(|event| second(event)).count() == 2
    });
    launcher.signal(libc::SIGTERM);
    assert_eq!(launcher.end().code(), Some(75), "{}", run.stderr());
    assert_eq!(run.launch("auto"), 0, "{}", run.stderr());
    let taken = |attempt: u32| {
        let file = run.dir().join(format!("micro-{attempt}-1"));
        fs::read_to_string(file).unwrap().trim().to_owned()
    };
    assert_eq!([1, 2, 3].map(taken), ["none", "4", "4"]);
}

#[test]
fn a_frozen_rank_is_told_from_outside_where_it_cannot_answer() {
    let mut plan = plan(1);
    plan.stall_timeout = 5.0;
    let run = Run::new(&plan);
    // Rank 0 shows that it lives; rank 1 is stopped.
    run.does(
        "first-1",
        r#"[ "$RANK" = 0 ] && { sleep 1000 & echo $! >"$run_dir/child-0"; while :; do
            say pulse ',"phase":"all_reduce","step":5,"sequence":10,"waits":true,"progress":1,"idle_seconds":1.0'
            read -t 0.2 <> <(:) || :; done; }
        say heartbeat ',"phase":"forward","step":5,"sequence":9'; kill -STOP $$"#,
    );
    assert_eq!(run.launch("auto"), 0, "{}", run.stderr());
    let report = run.dir().join("jobs/first/attempt-1/failure-rank1.json");
    let report: event::FailureReport = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    assert_eq!(report.class, event::FailureClass::Stalled);
    assert!(report.message.contains("is stopped"), "{}", report.message);
    assert!(
        report.message.contains("rank 0 waits in all-reduce"),
        "{}",
        report.message
    );
    assert!(report.state.unwrap().starts_with("T (stopped"));
    assert_gone([number(&run.dir().join("child-0"))]);
}
