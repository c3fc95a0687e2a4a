//! Jobs side by side, with real ranks: they come to what they come to one by one, and a launcher that is killed again and again
//! runs each job to success once. `make test` deals a tenth of the blows that `make soak` deals.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use plan::JobState;
use rusqlite::Connection;
use serde_json::Value;
use spinectl_tests::soak::Soak;
use spinectl_tests::{
    Launch, assert_same, events, kill, launch_arguments, phantom, processes, spinectl,
};

/// The whole pipeline, each job on one of two ranks; a checkpoint after each update, so that whatever is killed has come further.
const RECIPE: [&str; 10] = [
    // Two jobs fit on any machine.
    "--set=data.memory_mb=64",
    "--set=data.prefetch_mb=16",
    "--set=stage1a.training.gpus=1",
    "--set=stage1b.training.gpus=1",
    "--set=stage2.training.gpus=1",
    "--set=stage2.training.seeds=[0, 1]",
    "--set=stage3.training.gpus=1",
    "--set=checkpoint.every=1",
    "--set=stall_timeout=60",
    "--set=retries=100",
];

/// A data set, and the run whose end all others must come to.
struct Stand {
    folder: tempfile::TempDir,
    data: PathBuf,
    /// What the recipe has besides.
    more: &'static [&'static str],
    undisturbed: PathBuf,
}

impl Stand {
    fn new(more: &'static [&'static str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = phantom(folder.path());
        let undisturbed = folder.path().join("undisturbed");
        let stand = Stand {
            folder,
            data,
            more,
            undisturbed,
        };
        let mut launch = stand.launch(&stand.undisturbed, &[]);
        assert_eq!(launch.finish(), Some(0), "{}", launch.log());
        assert_eq!(
            most_at_once(&stand.undisturbed),
            2,
            "jobs run side by side\n{}",
            launch.log()
        );
        stand
    }

    fn launch(&self, run: &Path, more: &[&str]) -> Launch {
        let more = [&RECIPE[..], self.more, more].concat();
        Launch::start(&launch_arguments(&self.data, run, 2, &more), run)
    }
}

/// The most trainings that were at work at once, as the events say.
fn most_at_once(run: &Path) -> usize {
    let mut at_work = BTreeSet::new();
    let mut most = 0;
    for event in events(run) {
        let job = event["job"].as_str().unwrap_or_default().to_owned();
        match event["event"].as_str() {
            // What another launch had at work was killed with it.
            Some("run_started") => at_work.clear(),
            Some("job_started") if job.starts_with("stage") => {
                at_work.insert(job);
            }
            Some("job_finished") => {
                at_work.remove(&job);
            }
            _ => {}
        }
        most = most.max(at_work.len());
    }
    most
}

/// Jobs that have succeeded as far as run.db says, with the attempt that did.
fn acknowledged(run: &Path) -> BTreeMap<String, u32> {
    // A launcher that was killed at once has left none.
    let jobs = launcher::status(run).map_or_else(|_| Vec::new(), |status| status.jobs);
    let done = jobs
        .into_iter()
        .filter(|job| job.state == JobState::Succeeded);
    done.map(|job| (job.id.to_string(), job.attempt)).collect()
}

/// The attempts of a run and how each ended, in the order of their starts.
fn attempts(run: &Path) -> Vec<(String, u32, Option<String>)> {
    let database = Connection::open(run.join("run.db")).unwrap();
    let query = "SELECT job, attempt, outcome FROM attempts ORDER BY rowid";
    let mut statement = database.prepare(query).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

/// Each job went into success once, in its last attempt, as run.db says; and the events say nothing else.
fn assert_once(run: &Path) {
    let database = Connection::open(run.join("run.db")).unwrap();
    let query = "SELECT id, attempt, state, (SELECT count(*) FROM transitions WHERE job = id AND \"to\" = 'succeeded') FROM jobs";
    let mut statement = database.prepare(query).unwrap();
    let rows = statement.query_map([], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    });
    let jobs: Vec<(String, u32, String, u32)> = rows.unwrap().map(Result::unwrap).collect();
    let attempts = attempts(run);
    for (job, last, state, successes) in &jobs {
        assert_eq!((state.as_str(), *successes), ("succeeded", 1), "{job}");
        let good = attempts.iter().filter(|(of, _, outcome)| {
            of == job && outcome.as_deref().is_none_or(|how| how == "succeeded")
        });
        let good: Vec<u32> = good.map(|(_, attempt, _)| *attempt).collect();
        assert_eq!(good, [*last], "{job}: {attempts:?}");
    }
    let mut finished = BTreeSet::new();
    for event in events(run) {
        let Some(job) = event["job"].as_str() else {
            continue;
        };
        let is_new = match event["event"].as_str() {
            Some("job_finished") => finished.insert(job.to_owned()),
            Some("job_started") => !finished.contains(job),
            _ => true,
        };
        assert!(is_new, "{job} was done: {event}");
    }
}

#[test]
fn jobs_side_by_side_come_to_the_tables_of_jobs_one_by_one() {
    let stand = Stand::new(&[]);
    let alone = stand.folder.path().join("alone");
    let mut launch = stand.launch(&alone, &["--jobs=1"]);
    assert_eq!(launch.finish(), Some(0), "{}", launch.log());
    assert_eq!(most_at_once(&alone), 1);
    assert_same(&stand.undisturbed, &alone);
    for run in [&stand.undisturbed, &alone] {
        assert_once(run);
    }
}

#[test]
fn a_job_that_is_paused_and_resumed_comes_to_the_same_end() {
    let stand = Stand::new(&["--stages=1a", "--set=stage1a.training.epochs=6"]);
    let run = stand.folder.path().join("paused");
    let job = "stage1a-resnest14d-fold0-seed0";
    let ask = |word: &str| -> Value {
        let asked = spinectl([word, run.to_str().unwrap(), job, "--json"]);
        let said = String::from_utf8_lossy(&asked.stderr);
        assert!(asked.status.success(), "{word}: {said}");
        serde_json::from_slice(&asked.stdout).unwrap()
    };
    let mut launch = stand.launch(&run, &[]);
    launch.wait_for(&["\"event\":\"step\"", job]);
    let paused = &ask("pause")["jobs"][0];
    assert_eq!(paused["state"], "stopped", "{}", launch.log());
    assert!(paused["checkpoint"].as_u64() > Some(0), "{paused}");
    ask("resume");
    assert_eq!(launch.finish(), Some(0), "{}", launch.log());
    let of_job = |(of, ..): &(String, u32, Option<String>)| of == job;
    assert_eq!(attempts(&run).into_iter().filter(of_job).count(), 2);
    assert_once(&run);
    assert_same(&run, &stand.undisturbed);
}

#[test]
fn a_scheduler_killed_at_any_moment_runs_each_job_to_success_once() {
    let mut soak = Soak::new("scheduler killed");
    let stand = Stand::new(&[]);
    let mut left_to_do = soak.count(100);
    let (mut runs, mut side_by_side) = (0, 0);
    while left_to_do > 0 {
        runs += 1;
        let run = stand.folder.path().join(format!("run{runs}"));
        let mut done = BTreeMap::new();
        let mut ended = false;
        while left_to_do > 0 && !ended {
            let mut launch = stand.launch(&run, &[]);
            soak.pause(0..5000);
            ended = launch.has_ended();
            if !ended {
                kill(launch.pid(), libc::SIGKILL);
                ended = launch.finish().is_some();
                left_to_do -= usize::from(!ended);
            }
            let now = acknowledged(&run);
            for (job, attempt) in &done {
                assert_eq!(now.get(job), Some(attempt), "{job} was done");
            }
            done = now;
        }
        let mut launch = stand.launch(&run, &[]);
        assert_eq!(launch.finish(), Some(0), "{}", launch.log());
        side_by_side = side_by_side.max(most_at_once(&run));
        assert_once(&run);
        assert_same(&run, &stand.undisturbed);
        let before = attempts(&run);
        for (job, attempt) in &done {
            let of_job = before.iter().filter(|(of, ..)| of == job);
            assert_eq!(of_job.count() as u32, *attempt, "{job} was done");
        }
        let mut launch = stand.launch(&run, &[]);
        assert_eq!(launch.finish(), Some(0), "{}", launch.log());
        assert_eq!(attempts(&run), before, "nothing is left to run");
        assert!(processes(&run).is_empty(), "left behind");
        std::fs::remove_dir_all(&run).unwrap();
    }
    assert_eq!(side_by_side, 2, "no two jobs ran side by side");
    println!("scheduler killed: {runs} runs came to the undisturbed run's end");
}
