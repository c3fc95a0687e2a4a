//! Why a run could not be launched or supervised; a job that fails is an [`Outcome`](crate::Outcome) instead.

use std::io;
use std::path::{Path, PathBuf};

/// Why there is no outcome: wrong use (exit code 2) or a machine that is not able (3).
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("a run needs at least one rank: write `--ranks 1` or more")]
    NoRanks,
    #[error("job {job}: {source}")]
    Batch {
        job: String,
        #[source]
        source: plan::BatchError,
    },
    #[error("the plan cannot be scheduled: {0}")]
    Schedule(#[from] plan::schedule::ScheduleError),
    #[error(
        "{} holds a run already: go on with it by `--resume auto`, or take another --run-dir",
        run_dir.display()
    )]
    HoldsRun { run_dir: PathBuf },
    #[error(
        "{} is no run directory ({missing} is not there): give the --run-dir of a launch",
        run_dir.display()
    )]
    NotARun {
        run_dir: PathBuf,
        missing: &'static str,
    },
    #[error(
        "{} and {} are runs of different plans: there is nothing to compare",
        one.display(), other.display()
    )]
    OtherPlan { one: PathBuf, other: PathBuf },
    #[error("{0}")]
    NoLog(String),
    #[error(
        "job {job} takes {needed} {what} at least, and {there} are there: take fewer ranks or another machine, or free some"
    )]
    NoRoom {
        job: String,
        needed: String,
        there: String,
        what: &'static str,
    },
    #[error("the run has no job `{job}`: {advice}")]
    NoJob { job: String, advice: String },
    #[error("{0}")]
    Held(String),
    #[error("cannot resume from {}: {reason}", path.display())]
    Resume { path: PathBuf, reason: String },
    #[error(
        "{} is in use by {holder}: wait for it, end it with `spinectl stop` (it saves first), or take another --run-dir",
        run_dir.display()
    )]
    Locked { run_dir: PathBuf, holder: String },
    #[error("cannot reach the launch in {}: {reason}", run_dir.display())]
    CannotReach { run_dir: PathBuf, reason: String },
    #[error("{0}")]
    Gpus(String),
    #[error("{0}")]
    RankProgram(String),
    #[error("cannot {doing} {}: {source}{}", path.display(), advice(source))]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot {doing} in {}: {source}{}", path.display(), database_advice(source))]
    Database {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error(
        "{} was written by another version of spinectl (schema {found}, this one writes {expected}): \
         use that version, or take another --run-dir",
        path.display()
    )]
    Schema {
        path: PathBuf,
        found: i64,
        expected: i64,
    },
    #[error("job {job} cannot go from {from} to {to}: the run's records disagree with its course")]
    Transition {
        job: String,
        from: String,
        to: String,
    },
}

impl LaunchError {
    /// 2 where the user asked for what cannot be, 3 where the machine is not able.
    pub fn exit_code(&self) -> i32 {
        match self {
            LaunchError::NoRanks
            | LaunchError::Batch { .. }
            | LaunchError::Schedule(_)
            | LaunchError::HoldsRun { .. }
            | LaunchError::NotARun { .. }
            | LaunchError::OtherPlan { .. }
            | LaunchError::NoLog(_)
            | LaunchError::NoJob { .. }
            | LaunchError::Held(_)
            | LaunchError::Resume { .. } => 2,
            LaunchError::Locked { .. }
            | LaunchError::NoRoom { .. }
            | LaunchError::CannotReach { .. }
            | LaunchError::Gpus(_)
            | LaunchError::RankProgram(_)
            | LaunchError::Io { .. }
            | LaunchError::Database { .. }
            | LaunchError::Schema { .. }
            | LaunchError::Transition { .. } => 3,
        }
    }

    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| LaunchError::Io {
            doing,
            path,
            source,
        }
    }
}

const FREE: &str = ": free some space, then launch again";
const FILES: &str = ": raise the limit of open files (`ulimit -n 1024`), then launch again";

/// What to do about it, to be appended; empty where the error says all that is known.
pub(crate) fn advice(error: &io::Error) -> &'static str {
    if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
        return FILES;
    }
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FREE,
        io::ErrorKind::PermissionDenied => ": check who owns the folder",
        io::ErrorKind::ReadOnlyFilesystem => ": take a --run-dir that can be written",
        _ => "",
    }
}

fn database_advice(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => FREE,
        // Its shared memory beside the file could not grow: mostly a full disk, else a broken one.
        Some(rusqlite::ErrorCode::SystemIoFailure) => {
            ": the disk is full or broken (`df -h`): free some space, then launch again"
        }
        Some(rusqlite::ErrorCode::ReadOnly) => ": take a --run-dir that can be written",
        // SQLite says the same of a file that may not be opened and of one too many.
        Some(rusqlite::ErrorCode::CannotOpen) => {
            ": check who owns the folder, that it is still there, and the limit of open files (`ulimit -n`)"
        }
        _ => "",
    }
}
