//! The file systems of the run directory and of the cache: room, and whether they do what a run relies on.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::check::Check;
use crate::units;

/// Of `statfs`: file systems of other machines on which SQLite's write-ahead log cannot be shared.
const NFS: i64 = 0x6969;
const CIFS: i64 = 0xff53_4d42;
const SMB2: i64 = 0xfe53_4d42;
/// A clock that is further off than this is not the same one.
const SKEW: Duration = Duration::from_secs(10);

/// What a file system has left.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    /// For a user who is not root.
    pub free_bytes: u64,
    pub free_files: u64,
    kind: i64,
}

/// Of the file system that holds the path, which must be there.
pub fn space(path: &Path) -> Option<Space> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: an all-zero statfs is a valid value; path and output live across the call.
    let about = unsafe {
        let mut about: libc::statfs = std::mem::zeroed();
        (libc::statfs(path.as_ptr(), &raw mut about) == 0).then_some(about)?
    };
    Some(Space {
        free_bytes: about.f_bavail.saturating_mul(about.f_bsize as u64),
        free_files: match about.f_files {
            // It counts none: they are made as they are needed.
            0 => u64::MAX,
            _ => about.f_ffree,
        },
        kind: about.f_type as i64,
    })
}

/// Of the folder, or of the one in which it would be made.
pub fn checks(names: [&'static str; 2], folder: &Path, needed: Option<u64>) -> Vec<Check> {
    let [room, use_of] = names;
    let there = match nearest(folder) {
        Ok(there) => there,
        Err(error) => {
            return vec![Check::fail(
                use_of,
                format!("{}: {error}", folder.display()),
                "take another folder",
            )];
        }
    };
    vec![
        has_room(room, folder, &there, needed),
        works(use_of, &there),
    ]
}

/// The folder, or the nearest one above it that is there.
fn nearest(folder: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(folder)?;
    for ancestor in absolute.ancestors() {
        match fs::metadata(ancestor) {
            Ok(about) if about.is_dir() => return Ok(ancestor.to_owned()),
            Ok(_) => {
                return Err(io::Error::other(format!(
                    "{} is no folder",
                    ancestor.display()
                )));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

fn has_room(name: &'static str, folder: &Path, there: &Path, needed: Option<u64>) -> Check {
    let Some(space) = space(there) else {
        let error = io::Error::last_os_error();
        return Check::warn(
            name,
            format!("{}: {error}", there.display()),
            "its free space is not to be known",
        );
    };
    let mut found = format!(
        "{} free for {}",
        units::bytes(space.free_bytes),
        folder.display()
    );
    if let Some(needed) = needed {
        found.push_str(&format!(
            ", of which it takes about {}",
            units::bytes(needed)
        ));
    }
    if space.free_files < 10_000 {
        return Check::warn(
            name,
            format!("{found}; {} files can still be made", space.free_files),
            "delete what is not needed there (`df -i` shows it)",
        );
    }
    match needed.is_some_and(|needed| space.free_bytes < needed) {
        true => Check::fail(
            name,
            found,
            "free some space, lower `checkpoint.keep_last` or `data.cache.limit_gb`, or take another folder",
        ),
        false => Check::ok(name, found),
    }
}

/// Does there what a run does: write, lock, rename over a file.
fn works(name: &'static str, there: &Path) -> Check {
    let folder = there.join(format!(".spinectl-doctor-{}", std::process::id()));
    let tried = try_in(&folder);
    // Best effort: it holds two files of some bytes.
    let _ = fs::remove_dir_all(&folder);
    let skew = match tried {
        Ok(skew) => skew,
        Err((doing, error)) => {
            return Check::fail(
                name,
                format!("cannot {doing} in {}: {error}", there.display()),
                "take a folder on a disk that can be written and locked, of which you are the owner",
            );
        }
    };
    let kind = space(there).map_or(0, |space| space.kind);
    if [NFS, CIFS, SMB2].contains(&kind) {
        return Check::warn(
            name,
            format!("{} is on another machine (NFS or SMB)", there.display()),
            "keep run directories on a disk of this machine or on a parallel file system: SQLite's log is not safe there \
             when commands on several machines read it",
        );
    }
    if skew > SKEW {
        return Check::warn(
            name,
            format!(
                "the clock of {} is {} off this machine's",
                there.display(),
                units::duration(skew.as_secs_f64())
            ),
            "set both clocks: ages of files are not to be trusted",
        );
    }
    Check::ok(
        name,
        format!("{} is written, locked and renamed in", there.display()),
    )
}

/// How far the file system's clock is off, or what it does not do.
fn try_in(folder: &Path) -> Result<Duration, (&'static str, io::Error)> {
    let failed = |doing| move |error| (doing, error);
    fs::create_dir(folder).map_err(failed("make a folder"))?;
    let (old, new) = (folder.join("old"), folder.join("new"));
    fs::write(&old, "old").map_err(failed("write"))?;
    let mut file = File::create(&new).map_err(failed("write"))?;
    file.write_all(b"new")
        .and_then(|()| file.sync_all())
        .map_err(failed("write"))?;
    let written = file.metadata().and_then(|about| about.modified());
    let written = written.map_err(failed("read the time of a file"))?;
    let now = SystemTime::now();
    let skew = now
        .duration_since(written)
        .unwrap_or_else(|ahead| ahead.duration());

    file.try_lock().map_err(|error| match error {
        TryLockError::Error(error) => ("lock a file", error),
        TryLockError::WouldBlock => ("lock a file", io::ErrorKind::WouldBlock.into()),
    })?;
    let second = OpenOptions::new().read(true).write(true).open(&new);
    match second.map_err(failed("open a file"))?.try_lock() {
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(("lock a file", error)),
        Ok(()) => {
            let error = io::Error::other("two hold it at once");
            return Err(("lock a file", error));
        }
    }
    fs::rename(&new, &old).map_err(failed("rename a file over another"))?;
    match fs::read(&old).map_err(failed("read a file"))?.as_slice() {
        b"new" => Ok(skew),
        _ => {
            let error = io::Error::other("the old one is still there");
            Err(("rename a file over another", error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::*;

    #[test]
    fn a_folder_that_will_be_made_is_judged_by_the_one_above_it() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("runs/a/b");
        let states = |needed| {
            let checks = checks(["room", "use"], &run, needed);
            checks.iter().map(|check| check.state).collect::<Vec<_>>()
        };
        assert_eq!(states(Some(1)), [State::Ok, State::Ok]);
        assert_eq!(states(Some(u64::MAX)), [State::Fail, State::Ok]);
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            0,
            "all is as it was"
        );
        fs::write(folder.path().join("runs"), "").unwrap();
        assert_eq!(states(None), [State::Fail]);
    }

    #[test]
    fn what_cannot_be_written_fails() {
        let check = works("use", Path::new("/proc"));
        assert_eq!(check.state, State::Fail, "{check:?}");
    }
}
