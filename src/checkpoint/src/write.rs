//! Writes a checkpoint so that it is either there whole or not there at all.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::find::bytes_in;
use crate::folder::{self, Temporary, free_bytes, step_name};
use crate::hashing::Hashing;
use crate::manifest::{
    FORMAT_VERSION, FileRecord, MANIFEST, MODEL, Manifest, OPTIMIZER, TRAINER, verify,
};
use crate::read::MAX_TRAINER;
use crate::tensor_file::TensorFile;
use crate::{Checkpoint, Error};

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
    let contents = Contents::new(checkpoint)?;
    let needed = contents.bytes();
    let failed = |path: &Path, source| Error::write(checkpoint.step, root, path, needed, source);

    make_folder(root).map_err(|error| failed(root, error))?;
    let Some(_lock) = folder::lock(root).map_err(|error| failed(root, error))? else {
        return Err(Error::Busy {
            root: root.to_owned(),
        });
    };
    folder::remove_stale(root).map_err(|error| failed(root, error))?;

    let path = root.join(step_name(checkpoint.step));
    if verify(&path).is_ok_and(|found| found.plan_hash == checkpoint.meta.plan_hash) {
        let bytes = bytes_in(&path);
        return Ok(Written {
            path,
            bytes,
            reused: true,
        });
    }
    // Asked beforehand: a disk filled to the last byte also stops the logs and the run's database.
    if free_bytes(root).is_some_and(|free| free < needed) {
        return Err(failed(root, io::Error::from_raw_os_error(libc::ENOSPC)));
    }

    let temporary = Temporary::at(root, "", checkpoint.step);
    let bytes = contents
        .write_into(temporary.path())
        .map_err(|(at, error)| failed(&at, error))?;
    rename_over(root, temporary.path(), &path, checkpoint.step)
        .and_then(|()| folder::sync(root))
        .map_err(|error| failed(&path, error))?;
    Ok(Written {
        path,
        bytes,
        reused: false,
    })
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

/// The files of a checkpoint before they are files.
struct Contents<'a> {
    checkpoint: &'a Checkpoint,
    model: TensorFile<'a>,
    optimizer: TensorFile<'a>,
    trainer: Vec<u8>,
}

impl<'a> Contents<'a> {
    fn new(checkpoint: &'a Checkpoint) -> Result<Self, Error> {
        let trainer = checkpoint.trainer.to_string().into_bytes();
        if trainer.len() as u64 > MAX_TRAINER {
            return Err(Error::TrainerTooLarge {
                bytes: trainer.len() as u64,
                limit: MAX_TRAINER,
            });
        }
        Ok(Contents {
            checkpoint,
            model: TensorFile::new(&checkpoint.model)?,
            optimizer: TensorFile::new(&checkpoint.optimizer)?,
            trainer,
        })
    }

    /// Bytes that the checkpoint will take, rounded up.
    fn bytes(&self) -> u64 {
        self.model.bytes() + self.optimizer.bytes() + self.trainer.len() as u64 + MANIFEST_ESTIMATE
    }

    /// Fills `folder` and syncs all of it; returns the bytes, or the path at which it failed.
    fn write_into(&self, folder: &Path) -> Result<u64, (PathBuf, io::Error)> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| (path, error)
        };
        fs::create_dir(folder).map_err(at(folder))?;

        let mut files = BTreeMap::new();
        let mut add = |name: &str, fill: &dyn Fn(&mut FileWriter) -> io::Result<()>| {
            let path = folder.join(name);
            let record = write_file(&path, fill).map_err(at(&path))?;
            files.insert(name.to_owned(), record);
            Ok(())
        };
        add(MODEL, &|writer| self.model.write_to(writer))?;
        add(OPTIMIZER, &|writer| self.optimizer.write_to(writer))?;
        add(TRAINER, &|writer| writer.write_all(&self.trainer))?;

        let path = folder.join(MANIFEST);
        let manifest = self
            .manifest(files)
            .map_err(io::Error::from)
            .map_err(at(&path))?;
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(io::Error::from)
            .map_err(at(&path))?;
        let record = write_file(&path, &|writer| writer.write_all(&text)).map_err(at(&path))?;
        folder::sync(folder).map_err(at(folder))?;
        Ok(manifest.bytes() + record.bytes)
    }

    fn manifest(&self, files: BTreeMap<String, FileRecord>) -> serde_json::Result<Manifest> {
        let Checkpoint { step, meta, .. } = self.checkpoint;
        Manifest {
            format_version: FORMAT_VERSION,
            step: *step,
            job: meta.job.clone(),
            plan_hash: meta.plan_hash.clone(),
            world_size: meta.world_size,
            files,
            manifest_sha256: String::new(),
        }
        .sealed()
    }
}

type FileWriter = BufWriter<Hashing<File>>;

/// Creates the file, fills it and syncs it.
fn write_file(
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
