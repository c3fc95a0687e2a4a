//! How a process ended, and what is said where it said nothing itself.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use event::FailureClass;

/// A rank stopped on request, with a checkpoint (DESIGN.md's exit codes).
pub(crate) const STOPPED: i32 = 75;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
}

impl Exit {
    /// Of a status as waitpid(2) gives it.
    pub fn of_status(status: i32) -> Self {
        let status = ExitStatus::from_raw(status);
        match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or(libc::SIGKILL)),
        }
    }

    /// Whether the process did what it was asked to do.
    pub fn is_regular(self) -> bool {
        matches!(self, Exit::Code(0 | STOPPED))
    }

    /// The class of a failure that nobody reported; [`FailureClass::exit_code`] the other way round.
    pub fn class(self) -> FailureClass {
        match self {
            Exit::Signal(_) => FailureClass::Killed,
            Exit::Code(4) => FailureClass::Data,
            Exit::Code(3) => FailureClass::Setup,
            Exit::Code(_) => FailureClass::Other,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit {code}"),
            Exit::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// What is said of a process that ended without a report, and what to do, where that is known.
pub(crate) fn words_of_death(
    exit: Exit,
    last_words: &str,
    killed_for_memory: bool,
) -> (String, Option<&'static str>) {
    let (what, advice) = match exit {
        _ if killed_for_memory => (
            "killed by the kernel, which had no memory left for its control group (signal 9)"
                .into(),
            Some(
                "lower micro_batch, data.prefetch_mb or data.memory_mb in the recipe, or give the job more memory",
            ),
        ),
        Exit::Signal(signal @ libc::SIGKILL) => (
            format!("killed from outside by signal {signal} without a word"),
            Some("somebody or a job manager killed it; its control group was not out of memory"),
        ),
        Exit::Signal(signal) => (format!("killed by signal {signal} without a word"), None),
        Exit::Code(code) => (format!("ended with exit code {code} without a word"), None),
    };
    match last_words {
        "" => (what, advice),
        words if killed_for_memory => (format!("{what}; its log ends: {words}"), advice),
        words => {
            let message = format!("ended ({exit}) without a report; its log ends: {words}");
            (message, advice)
        }
    }
}
