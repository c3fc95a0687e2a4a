//! Writes a checkpoint so that it is either there whole or not there at all.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::find::bytes_in;
use crate::folder::{self, Temporary, free_bytes, step_name};
use crate::hashing::Hashing;
use crate::manifest::{FileRecord, MANIFEST, Manifest, TRAINER, Tensors, verify};
use crate::read::MAX_TRAINER;
use crate::tensor_file::TensorFile;
use crate::{Checkpoint, Error, Share};

/// Room for the manifest in the estimate of what a checkpoint needs.
const MANIFEST_ESTIMATE: u64 = 4096;
/// Parameters of normalisation layers are a few hundred bytes each: gathered, they cost few calls.
const BUFFER: usize = 1 << 18;

/// A checkpoint that is complete and durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub path: PathBuf,
    /// Bytes of its files, the manifest among them.
    pub bytes: u64,
    /// It was there already, valid and of the same plan, and was left as it is.
    pub reused: bool,
}

/// Writes `checkpoint` below `root` (a job's `checkpoints` folder, made if need be; the job's own must be there);
/// durable on return.
///
/// A valid checkpoint of the same plan and step is left as it is; a broken one, or one of another
/// plan, is replaced. On an error the others are untouched and nothing of this one stays on the disk,
/// unless it was the very last sync that failed: then it is there, and whole.
pub fn write(root: &Path, checkpoint: &Checkpoint) -> Result<Written, Error> {
    complete(root, checkpoint, None)
}

/// As [`write`](fn@write), where several processes write a part each: `checkpoint` has the tensors of this part alone, its
/// trainer's state counts in part 0. Part 0 returns when the whole is durable, the others when their part is.
///
/// # Errors
/// Also where another part is not written within the share's patience: that checkpoint is given up.
pub fn write_part(
    root: &Path,
    checkpoint: &Checkpoint,
    share: &Share,
) -> Result<Option<Written>, Error> {
    match share.part {
        0 if share.parts <= 1 => complete(root, checkpoint, None).map(Some),
        0 => complete(root, checkpoint, Some(share)).map(Some),
        _ => contribute(root, checkpoint, share).map(|()| None),
    }
}

fn complete(root: &Path, checkpoint: &Checkpoint, share: Option<&Share>) -> Result<Written, Error> {
    let contents = Contents::new(checkpoint, share)?;
    let needed = contents.bytes_of_all_parts();
    let step = checkpoint.step;
    let failed = |path: &Path, source| Error::write(step, root, path, needed, source);

    make_folder(root).map_err(|error| failed(root, error))?;
    let Some(_lock) = folder::lock(root).map_err(|error| failed(root, error))? else {
        return Err(Error::Busy {
            root: root.to_owned(),
        });
    };
    let in_use = |name: &str| share.is_some_and(|share| share.uses(name, step));
    folder::remove_stale(root, in_use).map_err(|error| failed(root, error))?;

    let temporary = match share {
        None => Temporary::at(root, "", step),
        Some(share) => Temporary::new(share.folder(root, step)),
    };
    let path = root.join(step_name(step));
    if is_there(&path, checkpoint) {
        let bytes = bytes_in(&path);
        return Ok(Written {
            path,
            bytes,
            reused: true,
        });
    }
    check_room(root, temporary.path(), needed).map_err(|error| failed(root, error))?;

    let mut files = contents
        .write_into(temporary.path())
        .map_err(|(at, error)| failed(&at, error))?;
    if let Some(share) = share {
        files.extend(share.gather(root, temporary.path(), step, failed)?);
    }
    let bytes = contents
        .seal(temporary.path(), files)
        .map_err(|(at, error)| failed(&at, error))?;
    rename_over(root, temporary.path(), &path, step)
        .and_then(|()| folder::sync(root))
        .map_err(|error| failed(&path, error))?;
    Ok(Written {
        path,
        bytes,
        reused: false,
    })
}

/// Writes a part that is not the first; part 0 waits for it, or for the end of its patience.
fn contribute(root: &Path, checkpoint: &Checkpoint, share: &Share) -> Result<(), Error> {
    let contents = Contents::new(checkpoint, Some(share))?;
    let needed = contents.bytes_of_all_parts();
    let step = checkpoint.step;
    let failed = |path: &Path, source| Error::write(step, root, path, needed, source);

    make_folder(root).map_err(|error| failed(root, error))?;
    // Part 0 sees it, too, and waits for nobody.
    if is_there(&root.join(step_name(step)), checkpoint) {
        return Ok(());
    }
    let folder = share.folder(root, step);
    check_room(root, &folder, needed).map_err(|error| failed(root, error))?;
    let written = contents.write_into(&folder).and_then(|files| {
        // After the note the folder may be gone any moment, under its final name.
        folder::sync(&folder)
            .and_then(|()| share.leave_note(&folder, files))
            .map_err(|error| (folder.clone(), error))
    });
    written.map_err(|(at, error)| {
        // What fills the disk goes at once. The folder is part 0's to remove.
        for tensors in [Tensors::Model, Tensors::Optimizer] {
            let _ = fs::remove_file(folder.join(tensors.file(share.part, share.parts)));
        }
        failed(&at, error)
    })
}

/// Whether this very checkpoint is there already, and whole.
fn is_there(path: &Path, checkpoint: &Checkpoint) -> bool {
    verify(path).is_ok_and(|found| found.plan_hash == checkpoint.meta.plan_hash)
}

/// Asked beforehand: a disk filled to the last byte also stops the logs and the run's database. What the parts have written to
/// `folder` by now has its room.
fn check_room(root: &Path, folder: &Path, needed: u64) -> io::Result<()> {
    let left = needed.saturating_sub(bytes_in(folder));
    match free_bytes(root) {
        Some(free) if free < left => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
        _ => Ok(()),
    }
}

/// Makes `root` and its name durable; not what is above it: a run directory that was deleted is not begun anew.
fn make_folder(root: &Path) -> io::Result<()> {
    if root.is_dir() {
        return Ok(());
    }
    fs::create_dir(root)?;
    root.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .map_or(Ok(()), folder::sync)
}

/// Renames `new` to `path`. What is there is not valid for this run: it goes, but not before `new`
/// is complete.
fn rename_over(root: &Path, new: &Path, path: &Path, step: u64) -> io::Result<()> {
    let replaced = Temporary::at(root, "replaced-", step);
    match fs::rename(path, replaced.path()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::rename(new, path).inspect_err(|_| {
            let _ = fs::rename(replaced.path(), path);
        }),
    }
}

/// The files of a checkpoint, or of a part of it, before they are files.
struct Contents<'a> {
    checkpoint: &'a Checkpoint,
    part: usize,
    parts: usize,
    model: TensorFile<'a>,
    optimizer: TensorFile<'a>,
    trainer: Vec<u8>,
}

impl<'a> Contents<'a> {
    fn new(checkpoint: &'a Checkpoint, share: Option<&Share>) -> Result<Self, Error> {
        let trainer = checkpoint.trainer.to_string().into_bytes();
        if trainer.len() as u64 > MAX_TRAINER {
            return Err(Error::TrainerTooLarge {
                bytes: trainer.len() as u64,
                limit: MAX_TRAINER,
            });
        }
        Ok(Contents {
            checkpoint,
            part: share.map_or(0, |share| share.part),
            parts: share.map_or(1, |share| share.parts),
            model: TensorFile::new(&checkpoint.model)?,
            optimizer: TensorFile::new(&checkpoint.optimizer)?,
            trainer,
        })
    }

    /// Bytes that the checkpoint will take, rounded up; the parts are about the same.
    fn bytes_of_all_parts(&self) -> u64 {
        let tensors = self.model.bytes() + self.optimizer.bytes();
        tensors.saturating_mul(self.parts as u64) + self.trainer.len() as u64 + MANIFEST_ESTIMATE
    }

    /// Fills `folder` with this part's files, syncs them, and returns what they are, or the path at which it failed.
    fn write_into(&self, folder: &Path) -> Result<BTreeMap<String, FileRecord>, At> {
        match fs::create_dir(folder) {
            // Another part was first.
            Err(error) if self.parts > 1 && error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(at(folder))?,
        }
        let mut files = BTreeMap::new();
        let mut add = |name: String, fill: &dyn Fn(&mut FileWriter) -> io::Result<()>| {
            let path = folder.join(&name);
            let record = write_file(&path, fill).map_err(at(&path))?;
            files.insert(name, record);
            Ok(())
        };
        let name = |tensors: Tensors| tensors.file(self.part, self.parts);
        add(name(Tensors::Model), &|writer| self.model.write_to(writer))?;
        add(name(Tensors::Optimizer), &|writer| {
            self.optimizer.write_to(writer)
        })?;
        if self.part == 0 {
            add(TRAINER.to_owned(), &|writer| {
                writer.write_all(&self.trainer)
            })?;
        }
        Ok(files)
    }

    /// Writes the manifest of all parts' `files` and syncs the folder; returns the bytes of the whole, or the path at which it
    /// failed.
    fn seal(&self, folder: &Path, files: BTreeMap<String, FileRecord>) -> Result<u64, At> {
        let Checkpoint { step, meta, .. } = self.checkpoint;
        let path = folder.join(MANIFEST);
        let manifest = Manifest::of(*step, meta, self.parts, files);
        let manifest = manifest.map_err(io::Error::from).map_err(at(&path))?;
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(io::Error::from)
            .map_err(at(&path))?;
        let record = write_file(&path, &|writer| writer.write_all(&text)).map_err(at(&path))?;
        folder::sync(folder).map_err(at(folder))?;
        Ok(manifest.bytes() + record.bytes)
    }
}

/// A failure, and at which path.
type At = (PathBuf, io::Error);

fn at(path: &Path) -> impl FnOnce(io::Error) -> At + use<> {
    let path = path.to_owned();
    move |error| (path, error)
}

pub(crate) type FileWriter = BufWriter<Hashing<File>>;

/// Creates the file, fills it and syncs it.
pub(crate) fn write_file(
    path: &Path,
    fill: &dyn Fn(&mut FileWriter) -> io::Result<()>,
) -> io::Result<FileRecord> {
    let file = File::create_new(path)?;
    let mut writer = BufWriter::with_capacity(BUFFER, Hashing::new(file));
    fill(&mut writer)?;
    let (file, bytes, sha256) = writer.into_inner()?.finish();
    file.sync_all()?;
    Ok(FileRecord { bytes, sha256 })
}
