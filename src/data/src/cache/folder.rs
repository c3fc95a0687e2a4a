//! The cache's folder: who may change what in it, room for new entries, and what killed processes left.
//!
//! ```text
//! DIR/spinectl-cache.json      says that the folder is a cache
//! DIR/lock                     held while entries appear or go because of the limit
//! DIR/entries/<kind>-<hash>    the entries; .tmp-<kind>-<hash> while one is written
//! DIR/studies/study-<hash>     the hash of a study's contents, by the fingerprint of its files
//! DIR/locks/<name>             held by who makes the entry, or hashes the study, of this name
//! ```
//!
//! Locks are the kernel's (flock): they end with their process, however it ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::key::{FORMAT, Fingerprint, Key};
use crate::atomic_file;
use crate::error::{DataError, Result};

const MARKER: &str = "spinectl-cache.json";
const TEMPORARY: &str = ".tmp-";
/// Whoever waits longer for another process goes on without: that one is stopped, or its disk is.
const PATIENCE: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Serialize, Deserialize)]
struct Marker {
    format: u32,
}

#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
}

/// An entry's file as a listing shows it.
pub(super) struct Listed {
    pub key: Key,
    pub path: PathBuf,
    pub bytes: u64,
    used: SystemTime,
}

/// The right to make the entry of one name, until dropped.
pub(super) struct KeyLock {
    path: PathBuf,
    /// Holds the lock.
    _file: File,
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // While it is still held: see `lock_at`.
        let _ = fs::remove_file(&self.path);
    }
}

/// Room for a new entry; its file goes with it unless it is [`Folder::publish`]ed.
pub(super) struct Reserved {
    pub file: File,
    path: PathBuf,
    published: bool,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.published {
            // What can not be removed now is removed by the next who makes this entry.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Folder {
    /// Takes `root`, which is a cache, empty, or not there.
    pub fn open(root: &Path) -> Result<Self> {
        let folder = Folder {
            root: root.to_owned(),
        };
        fs::create_dir_all(root).map_err(DataError::io("create", root))?;
        if !folder.is_cache()? {
            folder.begin()?;
        }
        for path in [folder.entries(), folder.studies(), folder.locks()] {
            fs::create_dir_all(&path).map_err(DataError::io("create", &path))?;
        }
        Ok(folder)
    }

    /// Takes `root` only if it is a cache already.
    pub fn existing(root: &Path) -> Result<Self> {
        let folder = Folder {
            root: root.to_owned(),
        };
        match folder.is_cache()? {
            true => Ok(folder),
            false => Err(folder.fault(
                "it is no cache of spinectl",
                "name the folder of `data.cache.dir`",
            )),
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    fn fault(&self, problem: impl Into<String>, remedy: &'static str) -> DataError {
        DataError::Cache {
            path: self.root.clone(),
            problem: problem.into(),
            remedy,
        }
    }

    fn is_cache(&self) -> Result<bool> {
        let path = self.root.join(MARKER);
        let text = match fs::read(&path) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(false);
            }
            text => text.map_err(DataError::io("read", &path))?,
        };
        match serde_json::from_slice::<Marker>(&text) {
            Ok(marker) if marker.format == FORMAT => Ok(true),
            Ok(marker) => Err(self.fault(
                format!(
                    "it is of format {}, and this version writes {FORMAT}",
                    marker.format
                ),
                "choose another folder, or delete this one",
            )),
            Err(_) => Err(self.fault(
                format!("its {MARKER} cannot be read"),
                "choose another folder, or delete this one if it holds nothing else",
            )),
        }
    }

    /// Makes a cache of an empty folder. Several processes may do so at once.
    fn begin(&self) -> Result<()> {
        let root = &self.root;
        for entry in fs::read_dir(root).map_err(DataError::io("list", root))? {
            let name = entry.map_err(DataError::io("list", root))?.file_name();
            let name = name.to_string_lossy();
            if name == MARKER {
                break;
            }
            if !name.starts_with(&format!("{TEMPORARY}{MARKER}")) {
                return Err(self.fault(
                    "it holds other files and is no cache of spinectl",
                    "name a new or an empty folder in `data.cache.dir`",
                ));
            }
        }
        atomic_file::replace(&root.join(MARKER), |file| {
            Ok(serde_json::to_writer(file, &Marker { format: FORMAT })?)
        })
    }

    fn entries(&self) -> PathBuf {
        self.root.join("entries")
    }

    fn studies(&self) -> PathBuf {
        self.root.join("studies")
    }

    fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    pub fn entry(&self, key: &Key) -> PathBuf {
        self.entries().join(key.name())
    }

    pub fn study(&self, fingerprint: &Fingerprint) -> PathBuf {
        self.studies().join(fingerprint.name())
    }

    fn temporary(&self, key: &Key) -> PathBuf {
        self.entries().join(format!("{TEMPORARY}{}", key.name()))
    }

    /// The right to make what is called `name` ([`Key::name`], [`Fingerprint::name`]); waits for who has it.
    pub fn lock_name(&self, name: &str) -> io::Result<KeyLock> {
        let path = self.locks().join(name);
        let began = Instant::now();
        loop {
            if let Some(lock) = lock_at(&path, true)? {
                return Ok(lock);
            }
            wait(began)?;
        }
    }

    /// The right to let entries appear and go, until dropped.
    pub fn lock(&self) -> io::Result<File> {
        let path = self.root.join("lock");
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).open(path)?;
        let began = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => wait(began)?,
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// Room for `bytes` of the entry of `key`, whose lock the caller holds: the entries that were not used for longest
    /// go. None where that is more than `limit`.
    pub fn reserve(&self, key: &Key, bytes: u64, limit: u64) -> io::Result<Option<Reserved>> {
        if bytes > limit {
            return Ok(None);
        }
        let path = self.temporary(key);
        remove(&path)?;
        let _lock = self.lock()?;
        let mut entries = self.list()?;
        let mut total: u64 = entries.iter().map(|entry| entry.bytes).sum();
        total = total.saturating_add(self.being_written()?);
        entries.sort_by(|a, b| a.used.cmp(&b.used).then_with(|| a.path.cmp(&b.path)));
        for entry in entries {
            if total.saturating_add(bytes) <= limit {
                break;
            }
            remove(&entry.path)?;
            total -= entry.bytes;
        }
        if total.saturating_add(bytes) > limit {
            // The others are writing that much.
            return Ok(None);
        }
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).open(&path)?;
        let reserved = Reserved {
            file,
            path,
            published: false,
        };
        // Its length tells the others what is taken, before a byte is written.
        reserved.file.set_len(bytes)?;
        Ok(Some(reserved))
    }

    /// Gives the finished file its name.
    pub fn publish(&self, mut reserved: Reserved, key: &Key) -> io::Result<()> {
        let _lock = self.lock()?;
        fs::rename(&reserved.path, self.entry(key))?;
        reserved.published = true;
        Ok(())
    }

    /// Bytes that other processes have reserved. Files whose process is gone are removed.
    fn being_written(&self) -> io::Result<u64> {
        let mut bytes = 0;
        for name in names(&self.entries())? {
            let Some(key) = name.strip_prefix(TEMPORARY).and_then(Key::parse) else {
                continue;
            };
            if !self.remove_orphan(&key)? {
                let status = fs::metadata(self.temporary(&key));
                bytes += status.map_or(0, |status| status.len());
            }
        }
        Ok(bytes)
    }

    /// Removes the unfinished file of `key` unless its process lives.
    fn remove_orphan(&self, key: &Key) -> io::Result<bool> {
        match lock_at(&self.locks().join(key.name()), true)? {
            None => Ok(false),
            Some(_lock) => remove(&self.temporary(key)).map(|()| true),
        }
    }

    /// All entries, in the order of their names.
    pub fn list(&self) -> io::Result<Vec<Listed>> {
        let mut entries = Vec::new();
        for name in names(&self.entries())? {
            let Some(key) = Key::parse(&name) else {
                continue;
            };
            let path = self.entry(&key);
            // Another process may have removed it since.
            let Ok(status) = fs::symlink_metadata(&path) else {
                continue;
            };
            if status.is_dir() {
                continue;
            }
            entries.push(Listed {
                key,
                path,
                bytes: status.len(),
                used: status.modified()?,
            });
        }
        Ok(entries)
    }

    /// Removes what killed processes left: unfinished files and locks.
    pub fn remove_leftovers(&self) -> io::Result<()> {
        self.being_written()?;
        for name in names(&self.locks())? {
            if Key::parse(&name).is_some() || Fingerprint::is_name(&name) {
                // Dropping a lock removes its file.
                drop(lock_at(&self.locks().join(&name), false)?);
            }
        }
        for name in names(&self.studies())? {
            let fingerprint = name.strip_prefix(TEMPORARY).unwrap_or_default();
            if Fingerprint::is_name(fingerprint)
                && let Some(_lock) = lock_at(&self.locks().join(fingerprint), true)?
            {
                remove(&self.studies().join(&name))?;
            }
        }
        Ok(())
    }

    /// Notes what a study's files hold. The caller has the lock of the fingerprint's name.
    pub fn write_study(&self, fingerprint: &Fingerprint, line: &str) -> io::Result<()> {
        let beside = self
            .studies()
            .join(format!("{TEMPORARY}{}", fingerprint.name()));
        // Not made durable: a line that is lost or cut costs one more reading.
        let written =
            fs::write(&beside, line).and_then(|()| fs::rename(&beside, self.study(fingerprint)));
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written
    }

    /// Removes every entry and note; what else lies in the folder stays.
    pub fn clear(&self) -> io::Result<()> {
        let _lock = self.lock()?;
        for entry in self.list()? {
            remove(&entry.path)?;
        }
        for name in names(&self.studies())? {
            if Fingerprint::is_name(&name) {
                remove(&self.studies().join(&name))?;
            }
        }
        self.remove_leftovers()
    }
}

/// Tries for the lock of the file at `path`, made where it is missing if `create`.
///
/// Who has the lock removes the file before letting go. So a lock counts only while its file still has its name:
/// otherwise another process may hold a new one.
fn lock_at(path: &Path, create: bool) -> io::Result<Option<KeyLock>> {
    let mut options = OpenOptions::new();
    let file = match options.create(create).append(true).open(path) {
        Err(error) if !create && error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let held = file.metadata()?;
    let same = fs::symlink_metadata(path)
        .is_ok_and(|named| (named.dev(), named.ino()) == (held.dev(), held.ino()));
    Ok(same.then(|| KeyLock {
        path: path.to_owned(),
        _file: file,
    }))
}

fn wait(began: Instant) -> io::Result<()> {
    if began.elapsed() > PATIENCE {
        let problem = format!(
            "another process has held its lock for {} s",
            PATIENCE.as_secs()
        );
        return Err(io::Error::new(io::ErrorKind::TimedOut, problem));
    }
    thread::sleep(PAUSE);
    Ok(())
}

/// Removes a file that may be gone already.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The names in a folder, sorted; names that are not UTF-8 are nobody's here.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}
