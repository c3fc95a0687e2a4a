//! Real ranks that freeze, spin, run out of memory or die: named for what they are, and the run goes on by itself.

use std::path::{Path, PathBuf};

use event::{EventKind, FailureClass, FailureReport, RunEvent};
use spinectl_tests::{Launch, kill, launch_arguments, phantom, rank_pid};

const JOB: &str = "stage1a-resnest14d-fold0-seed0";

/// A launch of stage 1a on two ranks, with the shortest timeout that a recipe may have.
struct Trial {
    folder: tempfile::TempDir,
    data: PathBuf,
}

impl Trial {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = phantom(folder.path());
        Trial { folder, data }
    }

    fn run(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    fn launch(&self, fault: Option<&str>) -> Launch {
        let more = ["--stages=1a", "--set=stall_timeout=5", "--set=retries=1"];
        let arguments = launch_arguments(&self.data, &self.run(), 2, &more);
        let fault = fault.map(|fault| ("SPINECTL_FAULT", fault));
        Launch::start_with(&arguments, &self.run(), fault.as_slice())
    }

    fn events(&self) -> Vec<RunEvent> {
        let text = std::fs::read_to_string(self.run().join("events.jsonl")).unwrap();
        let events = text.lines().map(|line| event::parse_line(line).unwrap());
        events.collect()
    }

    /// The samples of an update that a rank loaded, by the ledger's last word on it.
    fn samples(&self, step: u64, rank: usize) -> Vec<String> {
        let ledger = self.run().join("jobs").join(JOB).join("ledger.jsonl");
        let text = std::fs::read_to_string(ledger).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let lines: Vec<serde_json::Value> = lines.collect();
        let names = lines
            .iter()
            .rev()
            .find_map(|line| line["segment"].get("samples"));
        let of_step = |line: &&serde_json::Value| line["update"]["step"] == step;
        let update = lines.iter().rev().find(of_step).expect("the update");
        let numbers = update["update"]["ranks"][rank].as_array().unwrap();
        let name = |number: &serde_json::Value| {
            let number = number.as_u64().unwrap() as usize;
            names.unwrap()[number].as_str().unwrap().to_owned()
        };
        numbers.iter().map(name).collect()
    }

    /// What the first attempt left of a rank.
    fn report(&self, rank: usize) -> FailureReport {
        let folder = self.run().join("jobs").join(JOB).join("attempt-1");
        read(&folder.join(format!("failure-rank{rank}.json")))
    }
}

fn read(path: &Path) -> FailureReport {
    let text = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn a_stopped_rank_is_named_and_the_job_goes_on() {
    let trial = Trial::new();
    let mut launch = trial.launch(None);
    launch.wait_for(&["\"event\":\"step\"", JOB, "\"step\":3,"]);
    kill(
        rank_pid(&trial.run(), 1).expect("rank 1 is at work"),
        libc::SIGSTOP,
    );
    assert_eq!(launch.finish(), Some(0), "{}", launch.log());
    let report = trial.report(1);
    assert_eq!(report.class, FailureClass::Stalled);
    assert!(report.message.contains("is stopped"), "{}", report.message);
    assert!(report.state.unwrap().starts_with('T'));
    assert_eq!(report.device.as_deref(), Some("cpu"));
    let retried = trial
        .events()
        .into_iter()
        .find_map(|event| match event.kind {
            EventKind::JobRetried {
                reason,
                delay_seconds,
            } => Some((reason, delay_seconds)),
            _ => None,
        });
    let (reason, delay) = retried.expect("a retry");
    assert!(reason.starts_with("rank 1, "), "{reason}");
    assert_eq!(delay, 0.0, "it had come further");
}

#[test]
fn a_rank_that_spins_sleeps_or_is_stopped_is_named_with_its_samples_and_stack() {
    for (fault, freeze, word) in [
        ("spin", false, "spins"),
        ("sleep", false, "sleeps"),
        ("sleep", true, "is stopped"),
    ] {
        let trial = Trial::new();
        let mut launch = trial.launch(Some(&format!("{fault}:1:3:{JOB}")));
        if freeze {
            let there = ["\"event\":\"pulse\"", JOB, "\"rank\":1", "\"step\":3,"];
            launch.wait_for(&there);
            let pid = rank_pid(&trial.run(), 1).expect("rank 1 is at work");
            kill(pid, libc::SIGSTOP);
        }
        assert_eq!(launch.finish(), Some(0), "{}", launch.log());
        let report = trial.report(1);
        assert!(report.message.contains(word), "{}", report.message);
        let phase = report.phase.map(|phase| phase.to_string());
        assert_eq!(
            (phase.as_deref(), report.step),
            (Some("data wait"), Some(3))
        );
        // The second attempt trained on what the first one waited for.
        let samples = trial.samples(3, 1);
        assert_eq!(report.samples.ids, samples);
        assert_eq!(report.samples.count, 6);
        let told = trial.events().into_iter().any(|event| {
            matches!(event.kind, EventKind::JobRetried { reason, .. } if reason.contains(&samples.join(", ")))
        });
        assert!(
            told && launch.log().contains(&samples[0]),
            "{}",
            launch.log()
        );
        if freeze {
            continue;
        }
        let is_ours = |frame: &String| frame.contains("spinectl_rank::reporter");
        assert!(report.stack.iter().any(is_ours), "{:#?}", report.stack);
        assert!(
            report.stack.iter().any(|frame| frame.contains("main")),
            "down to the outermost frame: {:#?}",
            report.stack
        );
    }
}

#[test]
fn too_little_memory_halves_the_micro_batch_and_the_run_ends_well() {
    let trial = Trial::new();
    let mut launch = trial.launch(Some(&format!("oom:1:2:{JOB}")));
    assert_eq!(launch.finish(), Some(0), "{}", launch.log());
    assert_eq!(trial.report(1).class, FailureClass::DeviceMemory);
    let said = trial.events().into_iter().any(|event| {
        matches!(event.kind, EventKind::Warning { message } if message.contains("takes 3 samples at once and adds 2"))
    });
    assert!(said, "{}", launch.log());
}

#[test]
fn a_rank_that_ends_without_a_word_is_named() {
    let trial = Trial::new();
    let mut launch = trial.launch(Some(&format!("exit:1:2:{JOB}")));
    assert_eq!(launch.finish(), Some(0), "{}", launch.log());
    let report = trial.report(1);
    assert_eq!(report.exit.as_deref(), Some("exit 7"));
}
