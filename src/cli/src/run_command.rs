//! The commands that are suggested to the user, quoted so that they can be pasted.

use std::path::Path;

/// How this program was called, as the first word of a suggestion.
pub fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "spinectl".into())
}

/// The command that goes on with a run, from the recipe that its directory keeps.
pub fn go_on(run_dir: &Path) -> String {
    command(&[
        program(),
        "launch".into(),
        run_dir.join("recipe.yaml").display().to_string(),
        "--run-dir".into(),
        run_dir.display().to_string(),
    ])
}

/// The command that lets jobs go on that are paused or cancelled.
pub fn resume(run_dir: &Path, jobs: &[&str]) -> String {
    let mut words = vec![program(), "resume".into(), run_dir.display().to_string()];
    words.extend(jobs.iter().map(|job| (*job).to_owned()));
    command(&words)
}

/// The command that shows a run's curves.
pub fn tensorboard(run_dir: &Path) -> String {
    of_run("tensorboard", run_dir)
}

/// The command that shows where a run is.
pub fn status(run_dir: &Path) -> String {
    of_run("status", run_dir)
}

fn of_run(name: &str, run_dir: &Path) -> String {
    command(&[program(), name.into(), run_dir.display().to_string()])
}

/// A command as one line.
pub fn command(words: &[String]) -> String {
    // No argument of a running program holds a zero byte, the one thing that cannot be quoted.
    cluster::shell::quote_command(words).unwrap_or_else(|_| words.join(" "))
}
