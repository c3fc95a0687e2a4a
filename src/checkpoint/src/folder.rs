//! The folder of a job's checkpoints: names in it, its lock, its durability, its free space.

use std::ffi::CString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// How often, and how long apart, a lock is tried again.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

const STEP: &str = "step-";
const TEMPORARY: &str = ".tmp-";

/// `step-<8 digits>` (more digits where a step needs them).
pub(crate) fn step_name(step: u64) -> String {
    format!("{STEP}{step:08}")
}

/// The step that a folder is named for; none where the name is not exactly one that [`step_name`]
/// makes.
pub(crate) fn parse_step(folder: &Path) -> Option<u64> {
    let name = folder.file_name()?.to_str()?;
    let step = name.strip_prefix(STEP)?.parse().ok()?;
    (step_name(step) == name).then_some(step)
}

/// The path of what is in the making and is called `name`.
pub(crate) fn temporary(root: &Path, name: &str) -> PathBuf {
    root.join(format!("{TEMPORARY}{name}"))
}

/// A folder, made by whoever asks for its name, that vanishes when this is dropped: nothing half
/// made stays behind.
pub(crate) struct Temporary {
    path: PathBuf,
}

impl Temporary {
    /// The name for `purpose` and `step`; nothing is made yet.
    pub(crate) fn at(root: &Path, purpose: &str, step: u64) -> Self {
        let whose = std::process::id();
        let name = format!("{purpose}{}-{whose}", step_name(step));
        Temporary::new(temporary(root, &name))
    }

    pub(crate) fn new(path: PathBuf) -> Self {
        Temporary { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What cannot be removed now is removed before the next write.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes what writers that were killed have left, but not what is `in_use`: it is asked for names as
/// [`temporary`] takes them. Only for the holder of the lock.
pub(crate) fn remove_stale(root: &Path, in_use: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name
            .strip_prefix(TEMPORARY)
            .is_some_and(|name| !in_use(name))
        {
            // What will not go is in nobody's way.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

/// The right to change the folder, held until dropped; none where another process has it.
///
/// The lock is on the folder itself, so it leaves no file and ends with its process. File systems
/// that cannot lock a folder (NFS) go without. A process that another thread of this program is just
/// starting holds a copy of every open file until it runs its own program: such a lock, just
/// released here, is waited for.
pub(crate) fn lock(root: &Path) -> io::Result<Option<File>> {
    let folder = File::open(root)?;
    let mut left = LOCK_TRIES;
    loop {
        match folder.try_lock() {
            Ok(()) | Err(TryLockError::Error(_)) => return Ok(Some(folder)),
            Err(TryLockError::WouldBlock) if left == 0 => return Ok(None),
            Err(TryLockError::WouldBlock) => {
                left -= 1;
                thread::sleep(LOCK_PAUSE);
            }
        }
    }
}

/// Makes the names in `folder` durable.
pub(crate) fn sync(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        // Some network file systems have no such call and need none.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        result => result,
    }
}

/// Bytes that an unprivileged user may still write to the disk that holds `path`; none where it
/// does not say.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: statvfs is plain integers, for which all zeros is a value.
    let mut disk: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends in a zero byte and `disk` is writable; both outlive the call.
    let status = unsafe { libc::statvfs(path.as_ptr(), &mut disk) };
    // A file system without blocks (some in user space) knows nothing of its size.
    (status == 0 && disk.f_blocks > 0).then(|| disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_read_only_from_the_name_it_is_given() {
        for step in [0, 200, 99_999_999, 123_456_789] {
            assert_eq!(
                parse_step(&Path::new("/run").join(step_name(step))),
                Some(step)
            );
        }
        for name in [
            "step-200",
            "step-000000200",
            "step-0000020x",
            "step-+0000200",
            ".tmp-step-00000200-7",
            "step-",
        ] {
            assert_eq!(parse_step(Path::new(name)), None, "{name}");
        }
    }
}
