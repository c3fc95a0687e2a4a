//! A run in a folder of its own: its ranks are `fake_rank.sh`, its launcher is `examples/launch.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use event::RunEvent;
use plan::{JobId, JobKind, JobSpec, JobState, Plan};
use recipe::Source;

/// Generous: only a hang takes this long.
const DEADLINE: Duration = Duration::from_secs(60);

/// `first -> second -> third`, two ranks for the first two; and `alone`.
pub fn plan(retries: u64) -> Plan {
    let source = Source {
        name: "test.yaml".into(),
        text: format!(
            "data: {{root: data, memory_mb: 16, prefetch_mb: 1}}\nretries: {retries}\n\
             stage1a: {{training: {{batch: 4, micro_batch: 1}}}}"
        ),
    };
    let plan = plan::compile(&recipe::parse(&source, &[]).unwrap()).unwrap();
    let training = plan.jobs.iter().find(|job| job.kind.is_training()).unwrap();
    let job = |id: &str, needs: &[&str], kind: &JobKind| JobSpec {
        id: JobId::new(id).unwrap(),
        hash: format!("hash of {id}"),
        needs: needs.iter().map(|id| JobId::new(id).unwrap()).collect(),
        kind: kind.clone(),
    };
    Plan {
        jobs: vec![
            job("first", &[], &training.kind),
            job("second", &["first"], &training.kind),
            job("third", &["second"], &JobKind::Labels),
            job("alone", &[], &JobKind::Labels),
        ],
        ..plan.clone()
    }
}

pub struct Run {
    pub folder: tempfile::TempDir,
}

impl Run {
    pub fn new(plan: &Plan) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("run")).unwrap();
        let run = Run { folder };
        run.set_plan(plan);
        run
    }

    pub fn set_plan(&self, plan: &Plan) {
        plan::write(&self.folder.path().join("given.json"), plan).unwrap();
    }

    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// What the ranks of a job (or of one attempt: `job-2`) do, in bash.
    pub fn does(&self, job: &str, script: &str) {
        fs::write(self.dir().join(format!("does-{job}")), script).unwrap();
    }

    pub fn undo(&self, job: &str) {
        fs::remove_file(self.dir().join(format!("does-{job}"))).unwrap();
    }

    pub fn spawn(&self, resume: &str) -> Launcher {
        self.spawn_with(resume, &[])
    }

    /// With these environment variables besides.
    pub fn spawn_with(&self, resume: &str, environment: &[(&str, &str)]) -> Launcher {
        let child = Command::new(example("launch"))
            .arg(self.dir())
            .arg(self.folder.path().join("given.json"))
            .arg(fake_rank())
            .args(["2", resume])
            .env_remove("OMP_NUM_THREADS")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.folder.path().join("stderr")).unwrap())
            .spawn()
            .unwrap();
        Launcher(child)
    }

    pub fn launch(&self, resume: &str) -> i32 {
        self.spawn(resume).end().code().unwrap()
    }

    pub fn stderr(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap()
    }

    pub fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.dir().join("calls")).unwrap_or_default();
        let mut calls: Vec<String> = calls.lines().map(str::to_owned).collect();
        calls.sort();
        calls
    }

    /// The calls without what depends on the machine.
    pub fn attempts(&self) -> Vec<String> {
        let calls = self.calls();
        let short = calls
            .iter()
            .map(|call| call.split(" resume").next().unwrap().to_owned());
        short.collect()
    }

    pub fn events(&self) -> Vec<RunEvent> {
        let text = fs::read_to_string(self.dir().join("events.jsonl")).unwrap();
        // While a launcher writes, the last line may be there in part.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .map(|line| event::parse_line(line).unwrap())
            .collect()
    }

    pub fn states(&self) -> Vec<(String, JobState, u32)> {
        let status = launcher::status(&self.dir()).unwrap();
        let jobs = status.jobs.into_iter();
        jobs.map(|job| (job.id.to_string(), job.state, job.attempt))
            .collect()
    }

    pub fn state(&self, job: &str) -> (JobState, u32) {
        let states = self.states();
        let (_, state, attempt) = states.into_iter().find(|(id, ..)| id == job).unwrap();
        (state, attempt)
    }

    /// Waits until these files are in the run directory.
    pub fn appears(&self, names: &[&str]) {
        wait_until("the ranks are at work", || {
            names.iter().all(|name| self.dir().join(name).exists())
        });
    }

    /// Waits until both ranks train; returns their process ids.
    pub fn training(&self) -> [i32; 2] {
        let files = [0, 1].map(|rank| self.dir().join(format!("pid-{rank}")));
        wait_until("both ranks train", || {
            files.iter().all(|file| file.exists())
        });
        files.map(|file| {
            let pid = number(&file);
            fs::remove_file(file).unwrap();
            pid
        })
    }

    /// What the ranks have started in sessions of their own, once it is at work.
    pub fn strays(&self) -> [i32; 2] {
        let files = [0, 1].map(|rank| self.dir().join(format!("stray-{rank}")));
        wait_until("both ranks have started a stray", || {
            files.iter().all(|file| file.exists())
        });
        files.map(|file| number(&file))
    }

    /// The children of the ranks.
    pub fn children(&self) -> [i32; 2] {
        [0, 1].map(|rank| number(&self.dir().join(format!("child-{rank}"))))
    }
}

/// The launcher's process, killed should the test fail.
pub struct Launcher(pub Child);

impl Launcher {
    pub fn signal(&self, signal: i32) {
        kill(i32::try_from(self.0.id()).unwrap(), signal);
    }

    pub fn end(mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the launcher ends", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// target/<profile>/deps/launch-* -> target/<profile>/examples/<name>
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    profile.join("examples").join(name)
}

pub fn fake_rank() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/launch/fake_rank.sh")
}

pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < DEADLINE, "hangs: {what}");
        sleep(Duration::from_millis(5));
    }
}

pub fn number(file: &Path) -> i32 {
    fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

pub fn kill(pid: i32, signal: i32) {
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "kill {pid} {signal}");
}

/// Gone, or dead and only waiting for its parent to notice.
pub fn is_gone(pid: i32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Err(_) => true,
        Ok(stat) => stat
            .rsplit(')')
            .next()
            .unwrap()
            .trim_start()
            .starts_with('Z'),
    }
}

pub fn assert_gone(pids: impl IntoIterator<Item = i32>) {
    for pid in pids {
        wait_until(&format!("process {pid} is gone"), || is_gone(pid));
    }
}
