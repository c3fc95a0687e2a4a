//! Jobs side by side on parts of the ranks, and a launcher that is killed while they run.

use std::thread::sleep;
use std::time::Duration;

use plan::{Elastic, Gpus, JobId, JobKind, JobSpec, JobState, Plan};

use crate::harness::{Run, plan as two_ranks};

/// Trainings of one rank each that need nothing, and the tables that need them all.
fn plan(trainings: usize) -> Plan {
    let plan = two_ranks(0);
    let mut kind = plan.jobs[0].kind.clone();
    if let JobKind::Train { training, .. } = &mut kind {
        training.gpus = Gpus::Count(1);
    }
    let job = |id: String, needs: Vec<JobId>, kind: &JobKind| JobSpec {
        hash: format!("hash of {id}"),
        id: JobId::new(&id).unwrap(),
        needs,
        kind: kind.clone(),
    };
    let mut jobs: Vec<JobSpec> = (0..trainings)
        .map(|fold| job(format!("fold{fold}"), Vec::new(), &kind))
        .collect();
    let needs = jobs.iter().map(|job| job.id.clone()).collect();
    jobs.push(job("tables".into(), needs, &JobKind::Labels));
    Plan {
        jobs,
        ..plan.clone()
    }
}

/// How often each job went into its last state.
fn successes(run: &Run) -> Vec<(String, u32)> {
    let database = rusqlite::Connection::open(run.dir().join("run.db")).unwrap();
    let mut statement = database
        .prepare("SELECT job, count(*) FROM transitions WHERE \"to\" = 'succeeded' GROUP BY job ORDER BY job")
        .unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

#[test]
fn two_jobs_of_one_rank_run_side_by_side() {
    let run = Run::new(&plan(2));
    for (job, other) in [("fold0", "fold1"), ("fold1", "fold0")] {
        // Neither ends before the other has begun.
        let script = format!(
            r#"touch "$run_dir/here-{job}"; until [ -e "$run_dir/here-{other}" ]; do sleep 0.02; done"#
        );
        run.does(job, &script);
    }
    assert_eq!(run.launch("auto"), 0, "{}", run.stderr());
    assert_eq!(
        run.attempts(),
        [
            "fold0 attempt 1 rank 0 of 1",
            "fold1 attempt 1 rank 0 of 1",
            "tables attempt 1 rank 0 of 1"
        ]
    );
    let cores = std::thread::available_parallelism().unwrap().get();
    let share = format!("threads {} ", (cores / 2).max(1));
    let calls = run.calls();
    assert!(calls[0].contains(&share), "the cores are shared: {calls:?}");
}

#[test]
fn a_rank_that_falls_idle_joins_the_job_that_still_trains() {
    let mut plan = plan(2);
    plan.elastic = Some(Elastic { min: 1, max: 2 });
    for job in &mut plan.jobs {
        if let JobKind::Train { training, .. } = &mut job.kind {
            training.gpus = Gpus::Auto;
        }
    }
    let run = Run::new(&plan);
    // It would go on for days; its second attempt ends at once.
    let script = r#"
        trap 'say checkpoint_written ",\"step\":$step,\"bytes\":1,\"seconds\":0.1"; exit 75' TERM
        for ((step = 1; ; step++)); do
            rest='"epoch":0,"loss":0.25,"learning_rate":0.1,"gradient_norm":1.0,"samples":4,"images":4,"seconds":0.05'
            say step ",\"step\":$step,\"total_steps\":10000000,$rest"
            touch "$run_dir/trains"
            sleep 0.05
        done"#;
    run.does("fold0-1", script);
    run.does(
        "fold1",
        r#"until [ -e "$run_dir/trains" ]; do sleep 0.02; done"#,
    );
    assert_eq!(run.launch("auto"), 0, "{}", run.stderr());
    assert_eq!(
        run.attempts(),
        [
            "fold0 attempt 1 rank 0 of 1",
            "fold0 attempt 2 rank 0 of 2",
            "fold0 attempt 2 rank 1 of 2",
            "fold1 attempt 1 rank 0 of 1",
            "tables attempt 1 rank 0 of 1"
        ]
    );
}

#[test]
fn a_failed_job_stops_what_needs_it_and_the_others_go_on() {
    let run = Run::new(&plan(3));
    run.does("fold0", "fail data 'study 1.2.3 has no slices' 4");
    run.does("fold1", "sleep 0.3");
    assert_eq!(run.launch("auto"), 4, "{}", run.stderr());
    assert_eq!(run.state("fold0"), (JobState::Failed, 1));
    assert_eq!(run.state("fold1"), (JobState::Succeeded, 1));
    assert_eq!(run.state("fold2"), (JobState::Succeeded, 1));
    assert_eq!(run.state("tables"), (JobState::Pending, 0));
}

#[test]
fn a_stop_reaches_every_job_that_runs() {
    let run = Run::new(&plan(2));
    for job in ["fold0-1", "fold1-1"] {
        // Files of its own: both are rank 0.
        let script = r#"run_dir="$run_dir/$job"; mkdir "$run_dir"; train"#;
        run.does(job, script);
    }
    let launcher = run.spawn("auto");
    run.appears(&["fold0/pid-0", "fold1/pid-0"]);
    launcher.signal(libc::SIGTERM);
    assert_eq!(launcher.end().code(), Some(75), "{}", run.stderr());
    for job in ["fold0", "fold1"] {
        assert_eq!(run.state(job), (JobState::Stopped, 1));
    }
    assert_eq!(run.launch("auto"), 0, "{}", run.stderr());
}

#[test]
fn each_job_succeeds_once_however_often_the_launcher_is_killed() {
    let run = Run::new(&plan(6));
    for fold in 0..6 {
        run.does(&format!("fold{fold}"), "sleep 0.1");
    }
    for round in 0..12 {
        let launcher = run.spawn("auto");
        sleep(Duration::from_millis(round * 53 % 240));
        launcher.signal(libc::SIGKILL);
        launcher.end();
    }
    assert_eq!(run.launch("auto"), 0, "{}", run.stderr());
    let once = |job: &str| (job.to_owned(), 1);
    let jobs = [
        "fold0", "fold1", "fold2", "fold3", "fold4", "fold5", "tables",
    ];
    assert_eq!(successes(&run), jobs.map(once));
    let calls = run.calls();
    assert_eq!(run.launch("auto"), 0);
    assert_eq!(run.calls(), calls, "nothing runs twice");
}
