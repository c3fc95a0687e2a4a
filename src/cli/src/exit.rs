//! Exit codes (DESIGN.md, "Commands"), and which error ends the program with which.

use std::fmt;

use crate::output;

pub const DONE: u8 = 0;
pub const FAILED: u8 = 1;
pub const WRONG_USE: u8 = 2;
pub const MACHINE: u8 = 3;
pub const BAD_DATA: u8 = 4;

/// An error that this program itself has found, with its exit code.
#[derive(Debug)]
pub struct Fault {
    code: u8,
    message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

pub fn wrong_use(message: impl Into<String>) -> anyhow::Error {
    fault(WRONG_USE, message)
}

pub fn fault(code: u8, message: impl Into<String>) -> anyhow::Error {
    let message = message.into();
    Fault { code, message }.into()
}

/// Says the error on stderr and returns its exit code. A reader that went away (`| head`) is none.
pub fn told(error: &anyhow::Error) -> u8 {
    if error.is::<output::Closed>() {
        return DONE;
    }
    // The libraries' messages name their causes themselves.
    output::say(&format!("error: {error}"));
    code(error)
}

fn code(error: &anyhow::Error) -> u8 {
    if let Some(fault) = error.downcast_ref::<Fault>() {
        fault.code
    } else if let Some(error) = error.downcast_ref::<launcher::LaunchError>() {
        of(error.exit_code())
    } else if let Some(error) = error.downcast_ref::<data::DataError>() {
        match error {
            data::DataError::PhantomOption { .. } | data::DataError::PhantomFolder { .. } => {
                WRONG_USE
            }
            // What is not there is missing from the data; what cannot be read or written is the machine's.
            data::DataError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                BAD_DATA
            }
            data::DataError::Io { .. } => MACHINE,
            _ => BAD_DATA,
        }
    } else if error.is::<recipe::RecipeError>()
        || error.is::<plan::PlanError>()
        || error.is::<cluster::ClusterError>()
    {
        WRONG_USE
    } else {
        // What is left is the operating system's: files and pipes.
        MACHINE
    }
}

/// An exit code as the launcher gives it; what is no code counts as a failure.
pub fn of(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(FAILED)
}
