//! `spinectl tensorboard`: starts the user's TensorBoard on a run.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use serde::Serialize;

use crate::exit::{self, fault, wrong_use};
use crate::{output, run_command};

/// Interpreters that may have TensorBoard among their packages.
const PYTHONS: [&str; 2] = ["python3", "python"];

/// Start TensorBoard on a run: losses, metrics, what the model sees and says
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  spinectl tensorboard runs/rsna2022
  spinectl tensorboard runs/rsna2022 --port 6007
  eval \"$(spinectl tensorboard runs/rsna2022 --dry-run) --reload_interval 5\"

It is the `tensorboard` of your PATH, else that of a python3 there, and takes this program's place: Ctrl-C ends it.
It listens on this machine alone; from elsewhere, `ssh -L 6006:localhost:6006 MACHINE` leads there.

Exit codes:
  0  shown with --dry-run or --json
  2  there is no run in that directory
  3  there is no TensorBoard; it says how to get it
Once TensorBoard has started, its own exit code.")]
pub struct Arguments {
    /// The --run-dir of a launch
    run_dir: PathBuf,

    /// Where it listens
    #[arg(long, default_value_t = 6006)]
    port: u16,

    /// Print the command, and start nothing
    #[arg(long)]
    dry_run: bool,

    /// Print the command as JSON, and start nothing
    #[arg(long)]
    json: bool,
}

/// What would be started.
#[derive(Serialize)]
struct Shown<'a> {
    command: &'a [String],
    url: String,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let run_dir = &arguments.run_dir;
    if !run_dir.join("plan.json").is_file() {
        return Err(wrong_use(format!(
            "there is no run in {}: name the --run-dir of a launch",
            run_dir.display()
        )));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut words = found(&path).ok_or_else(|| {
        fault(
            exit::MACHINE,
            "there is no TensorBoard in PATH, nor in a python3 there: get it with `pip install tensorboard` (or \
             `pipx install tensorboard`), and try again",
        )
    })?;
    words.extend([
        "--logdir".to_owned(),
        run_dir.join("tensorboard").display().to_string(),
        "--host".to_owned(),
        "127.0.0.1".to_owned(),
        "--port".to_owned(),
        arguments.port.to_string(),
        // Its fast loader does not forget what a resume takes back.
        "--load_fast".to_owned(),
        "false".to_owned(),
    ]);
    let url = format!("http://127.0.0.1:{}/", arguments.port);
    if arguments.json {
        output::print_json(&Shown {
            command: &words,
            url,
        })?;
        return Ok(exit::DONE);
    }
    if arguments.dry_run {
        output::print(&run_command::command(&words))?;
        return Ok(exit::DONE);
    }
    output::say(&format!("TensorBoard at {url} (Ctrl-C ends it)"));
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    // It comes back only where it fails.
    let error = command.exec();
    Err(fault(
        exit::MACHINE,
        format!("cannot start {}: {error}", words[0]),
    ))
}

/// The first words of the command: a program of this `PATH`, or a module of an interpreter there.
fn found(path: &OsStr) -> Option<Vec<String>> {
    if let Some(program) = program(path, "tensorboard") {
        return Some(vec![program.display().to_string()]);
    }
    let pythons = PYTHONS.iter().filter_map(|name| program(path, name));
    let mut with_it = pythons.filter(|python| {
        // Without loading it, which takes seconds. A folder of this name, such as a run has, is found too, and has no origin.
        let look = "import importlib.util as u, sys; sys.exit(getattr(u.find_spec('tensorboard'), 'origin', None) is None)";
        let looked = Command::new(python)
            .args(["-c", look])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        looked.is_ok_and(|status| status.success())
    });
    let python = with_it.next()?.display().to_string();
    Some(vec![python, "-m".to_owned(), "tensorboard.main".to_owned()])
}

/// The first file of that name in `path` that may be run.
fn program(path: &OsStr, name: &str) -> Option<PathBuf> {
    let may_run = |file: &Path| {
        let about = file.metadata();
        about.is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|file| may_run(file))
}
