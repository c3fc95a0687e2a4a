//! The batch script as bash sees it: its syntax, and what it does with signals and exit codes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cluster::ClusterError;
use cluster::slurm::{SlurmOptions, render};
use plan::Plan;
use tempfile::TempDir;

fn plan() -> Plan {
    let source = recipe::Source {
        name: "r.yaml".into(),
        text: "data: {root: d, folds: 2}\nstage1a: {}\n".into(),
    };
    plan::compile(&recipe::parse(&source, &[]).unwrap()).unwrap()
}

fn options(command: &[&str]) -> SlurmOptions {
    SlurmOptions {
        job_name: "rsna2022".into(),
        nodes: 1,
        gpus: 4,
        time: Some("1-06:00".into()),
        partition: Some("gpu,big".into()),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
    }
}

#[test]
fn the_script_asks_for_the_machine_and_is_valid_bash() {
    let script = render(
        &plan(),
        &options(&["spinectl", "launch", "--set", "name='it''s'; exit 1"]),
    )
    .unwrap();
    for line in [
        "#!/bin/bash",
        "#SBATCH --job-name=rsna2022",
        "#SBATCH --nodes=1",
        "#SBATCH --gpus-per-node=4",
        "#SBATCH --time=1-06:00",
        "#SBATCH --partition=gpu,big",
        "#SBATCH --requeue",
        "#SBATCH --signal=B:USR1@120",
    ] {
        assert!(
            script.lines().any(|found| found == line),
            "no `{line}` in\n{script}"
        );
    }
    // Slurm stops reading directives at the first command.
    let (head, _) = script.split_once("\n\n").unwrap();
    let (_, rest) = script.split_once("set -u").unwrap();
    assert!(
        head.lines()
            .all(|line| line.starts_with('#') || line == "set -u")
    );
    assert!(!rest.contains("#SBATCH"));

    let mut bash = Command::new("bash")
        .arg("-n")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    bash.stdin
        .take()
        .unwrap()
        .write_all(script.as_bytes())
        .unwrap();
    assert!(bash.wait().unwrap().success(), "{script}");
}

#[test]
fn what_cannot_be_written_safely_is_refused() {
    let good = options(&["spinectl", "launch"]);
    let cases = [
        SlurmOptions {
            job_name: "a\n#SBATCH --uid=0".into(),
            ..good.clone()
        },
        SlurmOptions {
            time: Some("1:00 --uid=0".into()),
            ..good.clone()
        },
        SlurmOptions {
            partition: Some(String::new()),
            ..good.clone()
        },
    ];
    for case in cases {
        let error = render(&plan(), &case).unwrap_err();
        assert!(matches!(error, ClusterError::Option { .. }), "{error}");
    }
    let two = SlurmOptions { nodes: 2, ..good };
    assert_eq!(render(&plan(), &two), Err(ClusterError::Nodes(2)));
}

/// A script running in a folder where `scontrol` writes down how it was called.
struct Running {
    folder: TempDir,
    bash: Child,
}

impl Running {
    /// Runs the script around a program of its own; `body` is bash.
    fn start(body: &str) -> Self {
        let folder = TempDir::new().unwrap();
        executable(
            &folder.path().join("scontrol"),
            "echo \"$@\" >>\"${0%/*}/requeued\"",
        );
        let program = folder.path().join("program");
        executable(&program, body);
        let script = render(&plan(), &options(&[program.to_str().unwrap()])).unwrap();
        let file = folder.path().join("job.sh");
        fs::write(&file, script).unwrap();
        let bash = Command::new("bash")
            .arg(&file)
            .env(
                "PATH",
                format!(
                    "{}:{}",
                    folder.path().display(),
                    std::env::var("PATH").unwrap()
                ),
            )
            .env("SLURM_JOB_ID", "42")
            .spawn()
            .unwrap();
        Running { folder, bash }
    }

    fn wait_for(&self, file: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.folder.path().join(file).exists() {
            assert!(Instant::now() < deadline, "the program made no `{file}`");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.bash.id().to_string()])
            .status();
        assert!(status.unwrap().success());
    }

    /// The exit code, and how `scontrol` was called.
    fn end(mut self) -> (Option<i32>, String) {
        let code = self.bash.wait().unwrap().code();
        let calls = fs::read_to_string(self.folder.path().join("requeued")).unwrap_or_default();
        (code, calls)
    }
}

fn executable(path: &Path, body: &str) {
    fs::write(path, format!("#!/bin/bash\n{body}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Waits for SIGUSR1, takes a moment (a checkpoint), exits 75; on `finish` it is done.
const PROGRAM: &str = r#"
here=${0%/*}
trap 'sleep 0.3; exit 75' USR1
touch "$here/ready"
while [ ! -e "$here/finish" ]; do sleep 0.02; done
exit 75
"#;

#[test]
fn the_warning_is_handed_on_and_a_stopped_run_is_requeued() {
    let running = Running::start(PROGRAM);
    running.wait_for("ready");
    running.signal("USR1");
    assert_eq!(running.end(), (Some(75), "requeue 42\n".into()));
}

#[test]
fn a_cancelled_job_does_not_come_back() {
    let running = Running::start(PROGRAM);
    running.wait_for("ready");
    running.signal("TERM");
    fs::write(running.folder.path().join("finish"), "").unwrap();
    assert_eq!(running.end(), (Some(75), String::new()));
}

#[test]
fn other_ends_are_passed_on_without_a_requeue() {
    for code in [0, 1, 4, 127] {
        let running = Running::start(&format!("exit {code}"));
        assert_eq!(running.end(), (Some(code), String::new()));
    }
}
