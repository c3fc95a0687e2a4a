//! The launch that is at work in a run directory, as something to stop and to wait for.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::run_dir::RunDir;
use crate::{LaunchError, lock, pidfd};

/// A launcher that was killed leaves the lock to its guardian until its ranks are gone (5 s at most).
const WAIT_FOR_THE_DEAD: Duration = Duration::from_secs(6);
const PAUSE: Duration = Duration::from_millis(20);

/// A launch of this machine that holds a run directory.
#[derive(Debug)]
pub struct Running {
    dir: RunDir,
    pid: u32,
    /// Its process and no other, also when its number is given to another one.
    process: OwnedFd,
}

/// The launch that holds this run directory; none where nothing runs there.
///
/// # Errors
/// `CannotReach` where it runs on another machine or belongs to another user.
pub fn running(run_dir: &Path) -> Result<Option<Running>, LaunchError> {
    let dir = RunDir::with_a_run(run_dir)?;
    let begun = Instant::now();
    loop {
        if !lock::is_held(&dir) {
            return Ok(None);
        }
        match lock::holder(&dir) {
            Some(pid) => return Running::open(dir, pid).map(Some),
            None if begun.elapsed() < WAIT_FOR_THE_DEAD => thread::sleep(PAUSE),
            None => {
                return Err(LaunchError::CannotReach {
                    run_dir: run_dir.to_owned(),
                    reason: "it runs on another machine (or in another container): \
                             type the command there"
                        .to_owned(),
                });
            }
        }
    }
}

impl Running {
    fn open(dir: RunDir, pid: u32) -> Result<Self, LaunchError> {
        let refuse = |reason: String| LaunchError::CannotReach {
            run_dir: dir.root().to_owned(),
            reason,
        };
        let process =
            pidfd::open(pid).map_err(|error| refuse(format!("process {pid}: {error}")))?;
        // Looked at only now: what is found belongs to the process that the descriptor stands for, or to none.
        match has_open(pid, &dir.lock()) {
            Ok(true) => Ok(Running { dir, pid, process }),
            Ok(false) => Err(refuse(format!(
                "process {pid}, which the lock names, is another program; the launch has just ended, or runs in \
                 another container"
            ))),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(refuse(format!(
                "process {pid} belongs to another user: ask its owner"
            ))),
            Err(error) => Err(refuse(format!("process {pid}: {error}"))),
        }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Asks it to finish the step, save and stop. It has no effect on one that has ended.
    pub fn ask(&self) -> Result<(), LaunchError> {
        self.signal(libc::SIGTERM)
    }

    /// Asks once more: it ends at once. Another signal, so that the two never become one.
    pub fn insist(&self) -> Result<(), LaunchError> {
        self.signal(libc::SIGINT)
    }

    /// Whether it and all of its ranks are gone.
    pub fn has_ended(&self) -> bool {
        let mut poll = libc::pollfd {
            fd: self.process.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd, which lives across the call; it does not wait.
        let ended = unsafe { libc::poll(&raw mut poll, 1, 0) } == 1;
        // Its guardian keeps the lock until the last rank is gone; then another launch may take it.
        let is_another = |pid| pid != self.pid;
        ended && (!lock::is_held(&self.dir) || lock::holder(&self.dir).is_some_and(is_another))
    }

    fn signal(&self, signal: i32) -> Result<(), LaunchError> {
        // SAFETY: an open pidfd, and no siginfo.
        let sent = unsafe {
            let none = std::ptr::null::<libc::siginfo_t>();
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.process.as_raw_fd(),
                signal,
                none,
                0,
            )
        };
        let error = io::Error::last_os_error();
        match sent {
            0 => Ok(()),
            _ if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            _ => Err(LaunchError::CannotReach {
                run_dir: self.dir.root().to_owned(),
                reason: format!("process {} takes no signal: {error}", self.pid),
            }),
        }
    }
}

/// Whether the process has this file open: a number that was given to another process has not.
fn has_open(pid: u32, path: &Path) -> io::Result<bool> {
    let wanted = fs::metadata(path)?;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // Descriptors close while they are listed.
        let Ok(found) = entry.and_then(|entry| fs::metadata(entry.path())) else {
            continue;
        };
        if (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn run_dir() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in ["plan.json", "run.db"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        folder
    }

    #[test]
    fn nothing_runs_where_nobody_holds_the_lock() {
        let folder = run_dir();
        assert!(running(folder.path()).unwrap().is_none());
        fs::write(folder.path().join(".lock"), "1").unwrap();
        assert!(running(folder.path()).unwrap().is_none());
    }

    #[test]
    fn a_process_that_only_has_the_number_is_left_alone() {
        let folder = run_dir();
        let lock = fs::File::create(folder.path().join(".lock")).unwrap();
        lock.lock().unwrap();
        let mut other = Command::new("sleep")
            .arg("60")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        fs::write(folder.path().join(".lock"), other.id().to_string()).unwrap();
        let error = running(folder.path()).unwrap_err();
        assert!(error.to_string().contains("is another program"), "{error}");
        assert_eq!(error.exit_code(), 3);
        assert!(other.try_wait().unwrap().is_none(), "it was signalled");
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn the_holder_is_found_by_the_lock_that_it_has_open() {
        let folder = run_dir();
        let dir = RunDir::open(folder.path()).unwrap();
        let lock = lock::Lock::acquire(&dir).unwrap();
        let found = running(folder.path()).unwrap().unwrap();
        assert_eq!(found.pid(), std::process::id());
        assert!(!found.has_ended());
        drop(lock);
        assert!(running(folder.path()).unwrap().is_none());
    }
}
