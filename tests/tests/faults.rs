//! Processes killed at random moments, over and over: nothing is left behind, nothing is lost, and the weights are those of a run
//! that nobody disturbed. `make test` deals a tenth of the blows that `make soak` deals.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use spinectl_tests::soak::{Soak, Times, now};
use spinectl_tests::{
    Launch, assert_same, events, kill, launch_arguments, phantom, processes, ranks, spinectl,
};

/// Longer than a machine that does anything at all needs; a process that is left over stays for ever.
const LIVENESS: Duration = Duration::from_secs(60);

/// Two small training jobs and their tables, a checkpoint after each update, of which each rank writes a part: a job that dies three times at the same update is ended
/// by the launcher, so each attempt must be able to save what it has done.
const RECIPE: [&str; 7] = [
    "--stages=1a",
    "--set=checkpoint.every=1",
    "--set=checkpoint.shards=on",
    "--set=stage1a.training.epochs=5",
    "--set=stage1a.training.micro_batch=3",
    "--set=stall_timeout=60",
    "--set=retries=100",
];

/// A data set, the arguments of launches over it, and the run whose end they must come to.
struct Stand {
    folder: tempfile::TempDir,
    data: PathBuf,
    undisturbed: PathBuf,
    runs: usize,
}

impl Stand {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = phantom(folder.path());
        let mut stand = Stand {
            folder,
            data,
            undisturbed: PathBuf::new(),
            runs: 0,
        };
        let run = stand.next_run();
        let mut launch = stand.launch(&run);
        assert_eq!(launch.finish(), Some(0), "{}", launch.log());
        stand.undisturbed = run;
        stand
    }

    fn next_run(&mut self) -> PathBuf {
        self.runs += 1;
        self.folder.path().join(format!("run{}", self.runs))
    }

    fn launch(&self, run: &Path) -> Launch {
        Launch::start(&launch_arguments(&self.data, run, 2, &RECIPE), run)
    }

    /// The run is done: its files are those of the undisturbed one, and the ledger says that each sample was used once.
    fn accept(&self, run: &Path, log: &str) {
        assert_same(run, &self.undisturbed);
        let audit = spinectl(["audit".as_ref(), run.as_os_str()]);
        let said = String::from_utf8_lossy(&audit.stdout);
        assert!(audit.status.success(), "{said}\n{log}");
        assert!(left(run).is_empty(), "left behind: {:?}", left(run));
        std::fs::remove_dir_all(run).unwrap();
    }
}

/// All processes of a run: launcher, guardian, ranks.
fn left(run: &Path) -> Vec<i32> {
    processes(run)
}

fn count(events: &[Value], kind: &str) -> usize {
    events.iter().filter(|event| event["event"] == kind).count()
}

/// Waits until it holds; false where the launch has ended before.
fn until(launch: &mut Launch, what: &str, mut holds: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while !holds() {
        if launch.has_ended() {
            return false;
        }
        assert!(began.elapsed() < LIVENESS, "no {what}:\n{}", launch.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Seconds until none of the processes is left.
fn gone(pids: &[i32]) -> f64 {
    let began = Instant::now();
    let alive = |pid: &i32| {
        // A zombie is gone but for its name.
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = status
            .rsplit_once(") ")
            .map(|(_, rest)| rest.starts_with('Z'));
        state == Some(false)
    };
    while pids.iter().any(alive) {
        assert!(began.elapsed() < LIVENESS, "still there: {pids:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    began.elapsed().as_secs_f64()
}

#[test]
fn a_rank_killed_at_any_moment_costs_an_attempt_and_nothing_else() {
    let mut soak = Soak::new("rank killed");
    let mut stand = Stand::new();
    let mut all_gone = Times::default();
    let mut to_verdict = Times::default();
    let mut to_step = Times::default();
    let mut left_to_do = soak.count(200);
    while left_to_do > 0 {
        let run = stand.next_run();
        let mut launch = stand.launch(&run);
        let mut early = true;
        while left_to_do > 0 {
            let before = events(&run);
            let starts = count(&before, "job_started");
            let saved = count(&before, "checkpoint_written");
            // Now and then while it starts up, never twice in a row, and two checkpoints further otherwise: three deaths at the same
            // update are the end of a job.
            early = !early && soak.one_in(4);
            let ready = until(&mut launch, "next attempt", || {
                let now = events(&run);
                match early {
                    true => count(&now, "job_started") >= starts.max(1),
                    false => count(&now, "checkpoint_written") >= saved + 2,
                }
            });
            soak.pause(0..600);
            let alive = ranks(&run);
            let Some(&victim) = soak.choose(&alive).filter(|_| ready) else {
                if launch.has_ended() {
                    break;
                }
                continue;
            };
            let failures = count(&events(&run), "rank_failed");
            let struck = now();
            if !spinectl_tests::try_kill(victim, libc::SIGKILL) {
                continue;
            }
            all_gone.add(gone(&alive));
            left_to_do -= 1;
            // The last job may end well although the victim was on its way out.
            let heard = until(&mut launch, "verdict", || {
                count(&events(&run), "rank_failed") > failures
                    || count(&events(&run), "job_finished") > count(&before, "job_finished")
            });
            if heard {
                measure(&run, struck, &mut to_verdict, &mut to_step, &mut launch);
            }
        }
        assert_eq!(launch.finish(), Some(0), "{}", launch.log());
        stand.accept(&run, &launch.log());
    }
    println!("rank killed: from the kill until all ranks are gone: {all_gone}");
    println!("rank killed: from the kill to the verdict: {to_verdict}");
    println!("rank killed: from the kill to the next good update: {to_step}");
}

/// How long after the blow the verdict stood and the next update was done.
fn measure(
    run: &Path,
    struck: f64,
    to_verdict: &mut Times,
    to_step: &mut Times,
    launch: &mut Launch,
) {
    let after = |kind: &str| {
        let times = events(run)
            .into_iter()
            .filter(|event| event["event"] == kind);
        let mut times = times.filter_map(|event| event["time"].as_f64());
        times.find(|time| *time > struck)
    };
    if let Some(time) = after("rank_failed") {
        to_verdict.add(time - struck);
        if until(launch, "update after the verdict", || {
            after("step").is_some()
        }) {
            to_step.add(after("step").unwrap_or(f64::NAN) - struck);
        }
    }
}

#[test]
fn a_launcher_killed_at_any_moment_leaves_no_process_and_the_next_launch_goes_on() {
    let mut soak = Soak::new("launcher killed");
    let mut stand = Stand::new();
    let mut all_gone = Times::default();
    let mut left_to_do = soak.count(200);
    while left_to_do > 0 {
        let run = stand.next_run();
        let mut log = String::new();
        let mut ended = false;
        while left_to_do > 0 && !ended {
            let mut launch = stand.launch(&run);
            soak.pause(0..3500);
            ended = launch.has_ended();
            if !ended {
                let alive = left(&run);
                kill(launch.pid(), libc::SIGKILL);
                assert_eq!(launch.finish(), None);
                all_gone.add(gone(&alive));
                left_to_do -= 1;
            }
            log = launch.log();
        }
        let mut launch = stand.launch(&run);
        assert_eq!(launch.finish(), Some(0), "{log}");
        stand.accept(&run, &launch.log());
    }
    println!("launcher killed: from the kill until every process is gone: {all_gone}");
}

#[test]
fn a_stop_at_any_moment_ends_with_75_and_a_checkpoint_of_the_last_update() {
    let mut soak = Soak::new("stopped");
    let mut stand = Stand::new();
    let mut to_end = Times::default();
    let mut left_to_do = soak.count(200);
    while left_to_do > 0 {
        let run = stand.next_run();
        let mut ended = false;
        while left_to_do > 0 && !ended {
            let mut launch = stand.launch(&run);
            let starts = count(&events(&run), "run_started");
            // Before that the signal ends it as it ends any program.
            until(&mut launch, "start", || {
                count(&events(&run), "run_started") > starts
            });
            soak.pause(0..3000);
            ended = launch.has_ended();
            if !ended {
                let began = Instant::now();
                kill(launch.pid(), libc::SIGTERM);
                let code = launch.finish();
                to_end.add(began.elapsed().as_secs_f64());
                ended = code == Some(0);
                assert!(ended || code == Some(75), "{code:?}: {}", launch.log());
                assert_saved(&run);
                left_to_do -= 1;
            }
        }
        let mut launch = stand.launch(&run);
        assert_eq!(launch.finish(), Some(0), "{}", launch.log());
        stand.accept(&run, &launch.log());
    }
    println!("stopped: from SIGTERM to the launcher's end: {to_end}");
}

/// Every job that is under way has a valid checkpoint of its last update.
fn assert_saved(run: &Path) {
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    for event in events(run) {
        if let (Some(job), "step", Some(step)) = (
            event["job"].as_str(),
            event["event"].as_str().unwrap_or_default(),
            event["step"].as_u64(),
        ) {
            last.insert(job.to_owned(), step);
        }
    }
    for (job, step) in last {
        let root = run.join("jobs").join(&job).join("checkpoints");
        let found = checkpoint::newest_valid(&root).unwrap();
        let found = found.unwrap_or_else(|| panic!("{job}: no checkpoint at step {step}"));
        assert!(found.skipped.is_empty(), "{job}: {found}");
        assert!(
            found.step >= step,
            "{job}: {found}, and step {step} was told of"
        );
    }
}

#[test]
fn a_loaded_machine_raises_no_false_alarm() {
    let minutes = Soak::new("loaded machine").count(30) as u64;
    let folder = tempfile::tempdir().unwrap();
    let data = phantom(folder.path());
    let run = folder.path().join("run");
    let sets = [
        "--stages=1a",
        "--set=checkpoint.every=20",
        // More than any machine does in the time.
        "--set=stage1a.training.epochs=10000",
        "--set=stage1a.training.evaluate_every=5",
        // The least that a recipe may say.
        "--set=stall_timeout=5",
    ];
    let over = AtomicBool::new(false);
    let mut launch = Launch::start(&launch_arguments(&data, &run, 2, &sets), &run);
    // Nothing in here may panic before `over` is set: the scope waits for its threads.
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        for _ in 0..2 * cores {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let end = Instant::now() + Duration::from_secs(60 * minutes);
        while Instant::now() < end && !launch.has_ended() {
            std::thread::sleep(Duration::from_millis(200));
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(!launch.has_ended(), "{}", launch.log());
    kill(launch.pid(), libc::SIGTERM);
    assert_eq!(launch.finish(), Some(75), "{}", launch.log());
    let events = events(&run);
    for kind in ["rank_failed", "job_retried", "job_failed"] {
        assert_eq!(count(&events, kind), 0, "{kind} in {minutes} minutes");
    }
    let updates = count(&events, "step");
    assert!(updates > 0, "{}", launch.log());
    println!("loaded machine: {updates} updates in {minutes} minutes, no verdict");
}
