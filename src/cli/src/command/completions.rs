//! `spinectl completions`: the script by which a shell completes this program's arguments.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{exit, output};

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  spinectl completions bash >~/.local/share/bash-completion/completions/spinectl")]
pub struct Arguments {
    shell: Shell,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let mut script = Vec::new();
    let mut command = crate::Arguments::command();
    clap_complete::generate(arguments.shell, &mut command, "spinectl", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(exit::DONE)
}
