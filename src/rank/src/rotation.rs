//! Keeps this rank's log from growing without end: beyond its limit it is renamed, and a new one takes its place.
//!
//! The launcher opens the log as this process's stdout and stderr. Nothing stands between the two, so what was printed is
//! in the file whenever this process is killed; a rotation puts a new file where the old one was by `dup2`, which leaves no
//! moment without one.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// Between two looks at the size; what is printed meanwhile exceeds the limit.
const PAUSE: Duration = Duration::from_secs(1);

/// Watches `log` from a thread of its own, where stdout and stderr are that file: a log that goes elsewhere is another's to
/// keep small. `max_bytes` is where a file ends, `keep` the number of ended ones that stay: `rank0.log.1` is the newest.
pub fn watch(log: PathBuf, max_bytes: u64, keep: u64) {
    thread::spawn(move || {
        loop {
            thread::sleep(PAUSE);
            match rotate(&log, max_bytes, keep, [1, 2]) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    eprintln!(
                        "spinectl-rank: {} is not rotated any more: {error}",
                        log.display()
                    );
                    return;
                }
            }
        }
    });
}

/// Renames the log where it is too large, and puts a new one onto the descriptors. False where they are not the log.
fn rotate(log: &Path, max_bytes: u64, keep: u64, onto: [i32; 2]) -> io::Result<bool> {
    let there = match fs::metadata(log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        there => there?,
    };
    for fd in onto {
        // SAFETY: the descriptor is only asked, and not closed.
        let open = ManuallyDrop::new(unsafe { File::from_raw_fd(fd) }).metadata()?;
        if id(&open) != id(&there) {
            return Ok(false);
        }
    }
    if there.len() <= max_bytes {
        return Ok(true);
    }
    for number in (1..keep).rev() {
        match fs::rename(numbered(log, number), numbered(log, number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(log, numbered(log, 1))?;
    let opened = OpenOptions::new().create_new(true).append(true).open(log);
    let new = opened.inspect_err(|_| {
        // It goes on in the old one, under its own name.
        let _ = fs::rename(numbered(log, 1), log);
    })?;
    for fd in onto {
        // SAFETY: both descriptors are open; what is printed at this moment goes to the old file or the new one.
        if unsafe { libc::dup2(new.as_raw_fd(), fd) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(true)
}

fn numbered(log: &Path, number: u64) -> PathBuf {
    let mut name = OsString::from(log);
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

fn id(about: &Metadata) -> (u64, u64) {
    (about.dev(), about.ino())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn nothing_that_is_printed_is_lost_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("rank0.log");
        let open = || {
            let mut options = OpenOptions::new();
            options.create(true).append(true).open(&log).unwrap()
        };
        let (mut out, mut err) = (open(), open());
        let fds = [out.as_raw_fd(), err.as_raw_fd()];
        for round in 0..4 {
            writeln!(out, "out {round}").unwrap();
            assert!(rotate(&log, 1000, 2, fds).unwrap(), "small ones stay");
            writeln!(err, "err {round}").unwrap();
            assert!(rotate(&log, 8, 2, fds).unwrap());
        }
        writeln!(out, "out 4").unwrap();
        let text = |path: PathBuf| fs::read_to_string(path).unwrap();
        assert_eq!(text(log.clone()), "out 4\n");
        assert_eq!(text(numbered(&log, 1)), "out 3\nerr 3\n");
        assert_eq!(text(numbered(&log, 2)), "out 2\nerr 2\n");
        assert!(!numbered(&log, 3).exists());
    }

    #[test]
    fn a_log_that_goes_elsewhere_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("rank0.log");
        fs::write(&log, "x".repeat(100)).unwrap();
        let out = File::create(folder.path().join("other")).unwrap();
        let err = File::open(&log).unwrap();
        let fds = [out.as_raw_fd(), err.as_raw_fd()];
        assert!(!rotate(&log, 10, 2, fds).unwrap());
        assert_eq!(fs::read(&log).unwrap().len(), 100);
        fs::remove_file(&log).unwrap();
        assert!(!rotate(&log, 10, 2, fds).unwrap());
    }
}
