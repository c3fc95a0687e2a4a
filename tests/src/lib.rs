//! What the end-to-end tests share: the built programs, a small phantom, a small recipe, and a launch to watch.

pub mod otlp;
pub mod parity;
mod peers;
pub mod setup;
pub mod soak;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub use peers::{is_installed, python};

/// Longer than any small run takes on a loaded machine; a test that waits for more hangs.
const PATIENCE: Duration = Duration::from_secs(540);

/// The recipe of the demo, shrunk to seconds: a few updates of every stage at 32 pixels.
const SMALLER: [&str; 22] = [
    "checkpoint.every=3",
    "stage1a.training.image_size=32",
    "stage1a.training.epochs=2",
    "stage1a.training.batch=12",
    "stage1a.training.micro_batch=6",
    "stage1b.training.image_size=32",
    "stage1b.training.epochs=2",
    "stage1b.training.batch=2",
    "stage1b.training.micro_batch=1",
    "stage1b.sequence.images=4",
    "stage1b.sequence.grid=6",
    "stage2.training.image_size=32",
    "stage2.training.epochs=2",
    "stage2.training.batch=4",
    "stage2.training.micro_batch=2",
    "stage2.sequence.images=4",
    "stage2.sequence.grid=6",
    "stage3.training.image_size=32",
    "stage3.training.epochs=2",
    "stage3.training.batch=2",
    "stage3.training.micro_batch=1",
    "stage3.training.evaluate_every=1",
];

/// A program that `make build` built, beside this test's own binary.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("the test's own path");
    let path = own
        .ancestors()
        .nth(2)
        .expect("target/release/deps")
        .join(name);
    assert!(
        path.is_file(),
        "{} is not there: run `make build` first",
        path.display()
    );
    path
}

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the repository")
}

/// `spinectl` with these arguments, to its end.
pub fn spinectl<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    Command::new(program("spinectl"))
        .args(arguments)
        .output()
        .expect("spinectl starts")
}

/// A phantom of 12 small studies in `folder`/phantom.
pub fn phantom(folder: &Path) -> PathBuf {
    let out = folder.join("phantom");
    let text = out.to_str().expect("a path in UTF-8");
    let arguments = [
        "data",
        "synth",
        "--out",
        text,
        "--studies",
        "12",
        "--slices",
        "24",
        "--size",
        "48",
        "--seed",
        "3",
    ];
    let made = spinectl(arguments);
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    out
}

/// The cache of a small launch over `data`.
pub fn cache(data: &Path) -> PathBuf {
    data.with_file_name("cache")
}

/// The arguments of a small launch on CPU ranks.
pub fn launch_arguments(data: &Path, run_dir: &Path, ranks: usize, more: &[&str]) -> Vec<String> {
    let mut arguments = vec![
        "launch".to_owned(),
        root().join("configs/demo.yaml").display().to_string(),
        "--device=cpu".into(),
        format!("--ranks={ranks}"),
        format!("--run-dir={}", run_dir.display()),
        format!("--set=data.root={}", data.display()),
        // The recipe's own would be one for all tests, in the folder in which they run.
        format!("--set=data.cache.dir={}", cache(data).display()),
    ];
    arguments.extend(SMALLER.iter().map(|set| format!("--set={set}")));
    arguments.extend(more.iter().map(|text| (*text).to_owned()));
    arguments
}

/// A launch at work.
pub struct Launch {
    child: Child,
    run_dir: PathBuf,
    /// The launcher's greatest resident size so far, KiB.
    pub peak_rss: u64,
}

impl Launch {
    pub fn start(arguments: &[String], run_dir: &Path) -> Self {
        Self::start_with(arguments, run_dir, &[])
    }

    /// With these environment variables besides.
    pub fn start_with(arguments: &[String], run_dir: &Path, environment: &[(&str, &str)]) -> Self {
        let log = run_dir.with_extension("log");
        let file = fs::File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("a log file");
        let mut command = Command::new(program("spinectl"));
        // Telemetry is a test's own affair.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("OTEL_") {
                command.env_remove(name);
            }
        }
        let child = command
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("spinectl starts");
        Launch {
            child,
            run_dir: run_dir.to_owned(),
            peak_rss: 0,
        }
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    /// What it has printed, its earlier launches included.
    pub fn log(&self) -> String {
        fs::read_to_string(self.run_dir.with_extension("log")).unwrap_or_default()
    }

    /// Waits until an event line holds all of `parts`.
    pub fn wait_for(&mut self, parts: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        while !self
            .events()
            .lines()
            .any(|line| parts.iter().all(|part| line.contains(part)))
        {
            self.measure();
            let ended = self.child.try_wait().expect("the launcher's state");
            assert!(
                ended.is_none(),
                "the launch ended before {parts:?}:\n{}",
                self.log()
            );
            assert!(
                Instant::now() < deadline,
                "no event with {parts:?}:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for its end and returns the exit code (none: killed by a signal).
    pub fn finish(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.measure();
            if let Some(status) = self.child.try_wait().expect("the launcher's state") {
                return status.code();
            }
            assert!(
                Instant::now() < deadline,
                "the launch does not end:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn has_ended(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("the launcher's state")
            .is_some()
    }

    fn events(&self) -> String {
        fs::read_to_string(self.run_dir.join("events.jsonl")).unwrap_or_default()
    }

    fn measure(&mut self) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        self.peak_rss = self.peak_rss.max(kib.unwrap_or(0));
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        // A test that failed leaves nothing running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The events of a run; a line that is torn is none.
pub fn events(run_dir: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(run_dir.join("events.jsonl")).unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// Sends a signal.
pub fn kill(pid: i32, signal: i32) {
    assert!(try_kill(pid, signal), "kill {pid}");
}

/// Sends a signal; false where the process is gone.
pub fn try_kill(pid: i32, signal: i32) -> bool {
    // SAFETY: a plain system call on a number.
    unsafe { libc::kill(pid, signal) == 0 }
}

/// The pid of rank `rank` of the run in `run_dir`, if it lives.
pub fn rank_pid(run_dir: &Path, rank: usize) -> Option<i32> {
    ranks(run_dir).into_iter().find(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let wanted = format!("RANK={rank}");
        environment
            .split(|byte| *byte == 0)
            .any(|entry| entry == wanted.as_bytes())
    })
}

/// All living ranks of the run in `run_dir`.
pub fn ranks(run_dir: &Path) -> Vec<i32> {
    of_run(run_dir, "spinectl-rank\0job")
}

/// All living processes of the run in `run_dir`: the launcher and its guardian too.
pub fn processes(run_dir: &Path) -> Vec<i32> {
    of_run(run_dir, "spinectl")
}

/// Processes whose command line holds `name` and the run directory.
fn of_run(run_dir: &Path, name: &str) -> Vec<i32> {
    let place = run_dir.display().to_string();
    let entries = fs::read_dir("/proc").expect("/proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command);
        // Each argument to its end: run1 is not run10.
        command.contains(name) && command.split('\0').any(|part| part.ends_with(&place))
    })
    .collect()
}

/// The run came to the same end as an undisturbed one, to the bit: weights, optimizer state, tables, the numbers of every update.
pub fn assert_same(run: &Path, undisturbed: &Path) {
    let compared = launcher::compare(undisturbed, run).expect("two runs of one plan");
    for part in compared {
        assert!(part.differences.is_empty(), "{part:#?}");
        assert!(part.count > 0, "nothing was compared: {part:?}");
    }
}
