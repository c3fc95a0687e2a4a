//! One launcher a run directory: a lock that is gone with its holder, and who holds it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::LaunchError;
use crate::run_dir::RunDir;

/// A launcher that was killed leaves the lock to its guardian until its ranks are gone (5 s at most).
const WAIT_FOR_THE_DEAD: Duration = Duration::from_secs(6);
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// Takes the lock, or says who holds it.
    pub fn acquire(dir: &RunDir) -> Result<Self, LaunchError> {
        let path = dir.lock();
        let io = |doing| LaunchError::io(doing, &path);
        let mut file = open(&path).map_err(io("open"))?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(io("lock")(error)),
                Err(TryLockError::WouldBlock) => {}
            }
            let holder = written(&mut file);
            if holder.is_some_and(is_alive) || begun.elapsed() > WAIT_FOR_THE_DEAD {
                return Err(LaunchError::Locked {
                    run_dir: dir.root().to_owned(),
                    holder: match holder {
                        Some(pid) if is_alive(pid) => format!("the launch with process id {pid}"),
                        _ => "a launch on another machine".to_owned(),
                    },
                });
            }
            thread::sleep(PAUSE);
        }
        let pid = std::process::id();
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| write!(file, "{pid}"))
            .map_err(io("write"))?;
        Ok(Lock(file))
    }

    pub fn file(&self) -> &File {
        &self.0
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Best effort: the lock itself goes with the file.
        let _ = self.0.set_len(0);
        let _ = self.0.unlock();
    }
}

/// The launcher at work in a run directory; none where there is none, or none of this machine.
pub(crate) fn holder(dir: &RunDir) -> Option<u32> {
    let mut file = OpenOptions::new().read(true).open(dir.lock()).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => written(&mut file).filter(|pid| is_alive(*pid)),
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}

/// Whether anything holds it: a launcher, here or elsewhere, or the guardian of one that died.
pub(crate) fn is_held(dir: &RunDir) -> bool {
    let file = OpenOptions::new().read(true).open(dir.lock());
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn open(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).read(true).write(true).truncate(false);
    options.open(path)
}

fn written(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn is_alive(pid: u32) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else {
        return false;
    };
    // SAFETY: signal 0 is only a question.
    let answer = unsafe { libc::kill(pid, 0) };
    pid > 0 && (answer == 0 || std::io::Error::last_os_error().raw_os_error() == Some(libc::EPERM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_and_told_who_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let dir = RunDir::open(folder.path()).unwrap();
        assert_eq!(holder(&dir), None);
        let lock = Lock::acquire(&dir).unwrap();
        let error = Lock::acquire(&dir).unwrap_err();
        let pid = std::process::id();
        assert!(
            error.to_string().contains(&format!("process id {pid}")),
            "{error}"
        );
        assert_eq!((error.exit_code(), holder(&dir)), (3, Some(pid)));
        drop(lock);
        assert_eq!(holder(&dir), None);
        Lock::acquire(&dir).unwrap();
    }
}
