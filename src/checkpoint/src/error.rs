//! What can go wrong with a checkpoint, and what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::find::Skipped;
use crate::fit_report::FitReport;
use crate::folder::free_bytes;
use crate::keys::counted;

/// Why a checkpoint was not written, found, read or deleted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot write the checkpoint of step {step}: {}: {source}; it needs {}, {} free there. {remedy} \
         The checkpoints already there are untouched",
        path.display(), Bytes(*needed), Free(*free)
    )]
    Write {
        step: u64,
        /// The file or folder at which it failed.
        path: PathBuf,
        /// Bytes of the whole checkpoint.
        needed: u64,
        /// Bytes that this user may still write there, where the system says so.
        free: Option<u64>,
        remedy: &'static str,
        source: io::Error,
    },
    #[error(
        "another process is writing checkpoints in {}: wait for it or stop it, then try again",
        root.display()
    )]
    Busy { root: PathBuf },
    #[error(
        "the checkpoint of step {step} in {} is given up: {} on disk within {:.1} s after rank 0's own. Ranks on machines \
         that do not share this folder cannot write parts of a checkpoint: write checkpoint.shards: off. Where they do, \
         its disk is slow: write that too, or raise stall_timeout. The checkpoints already there are untouched",
        root.display(), parts_of(missing), waited.as_secs_f64()
    )]
    PartsMissing {
        step: u64,
        root: PathBuf,
        /// The ranks whose parts they are.
        missing: Vec<usize>,
        waited: Duration,
    },
    #[error(
        "tensor `{name}` cannot be saved: {reason}; this is a fault of the program that made it"
    )]
    InvalidTensor { name: String, reason: String },
    #[error(
        "trainer.json would be {}, more than the {} that are read back: keep less state in it",
        Bytes(*bytes), Bytes(*limit)
    )]
    TrainerTooLarge { bytes: u64, limit: u64 },
    #[error(
        "checkpoint {} is not valid: {fault}. Restore this folder or resume from an older checkpoint",
        path.display()
    )]
    Damaged { path: PathBuf, fault: Fault },
    #[error("{}", NoneValid { root, skipped })]
    NoneValid {
        root: PathBuf,
        skipped: Vec<Skipped>,
    },
    #[error(
        "checkpoint {} belongs to plan {found}, and this run has plan {expected}: the recipe or the data has \
         changed since. Launch with the recipe that the run directory keeps, or begin anew in another run directory",
        path.display()
    )]
    PlanMismatch {
        path: PathBuf,
        found: String,
        expected: String,
    },
    #[error("{} is not a safetensors file that can be read: {reason}; make or fetch it again", path.display())]
    TensorFile { path: PathBuf, reason: String },
    #[error("{}", PyTorchFile(path))]
    PyTorchFile { path: PathBuf },
    #[error("{}", Misfit { path, report, architecture: *architecture })]
    Misfit {
        path: PathBuf,
        report: Box<FitReport>,
        /// What the file's weights look like, where that is not what the model looks like.
        architecture: Option<&'static str>,
    },
    #[error(
        "{} has {} that {} NaN or infinite, in {}, first in `{name}`: these weights are spoilt; take others, or allow \
         it where there is --allow-non-finite",
        path.display(), counted(*values, "value"), if *values == 1 { "is" } else { "are" }, counted(*tensors, "tensor")
    )]
    NotFinite {
        path: PathBuf,
        /// Of the first such tensor, as the file has it.
        name: String,
        values: usize,
        tensors: usize,
    },
    #[error("cannot {doing} {}: {source}; check that it exists and that this user may do so", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl Error {
    /// A failure at `path` while the checkpoint of `step`, of `needed` bytes, was being written
    /// below `root`.
    pub(crate) fn write(
        step: u64,
        root: &Path,
        path: &Path,
        needed: u64,
        source: io::Error,
    ) -> Self {
        Error::Write {
            step,
            path: path.to_owned(),
            needed,
            free: free_bytes(root),
            remedy: remedy(&source),
            source,
        }
    }

    pub(crate) fn io<'a>(
        doing: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Error::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}

/// In what way a folder is not the checkpoint that was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("{file} is missing")]
    Missing { file: String },
    #[error("{file} has {found} bytes, the manifest says {expected}")]
    Size {
        file: String,
        expected: u64,
        found: u64,
    },
    #[error(
        "{file} has changed since it was written: its SHA-256 is {found}, the manifest says {expected}"
    )]
    Hash {
        file: String,
        expected: String,
        found: String,
    },
    #[error("{file} cannot be read: {reason}")]
    Unreadable { file: String, reason: String },
    #[error("manifest.json is of format {found}, this program reads formats up to {supported}")]
    Version { found: u64, supported: u32 },
    #[error("the folder is named for step {folder}, its manifest is of step {manifest}")]
    Step { folder: u64, manifest: u64 },
}

/// `the part of rank 3 is not`
fn parts_of(ranks: &[usize]) -> String {
    let numbers: Vec<String> = ranks.iter().map(usize::to_string).collect();
    match ranks {
        [rank] => format!("the part of rank {rank} is not"),
        _ => format!("the parts of ranks {} are not", numbers.join(", ")),
    }
}

/// What helps against an I/O error in writing.
fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOSPC) => {
            "Free space (or inodes: `df -i`) on that disk or keep fewer checkpoints, then launch again to go on."
        }
        Some(libc::EDQUOT) => {
            "Your quota is used up: delete what you can or have it raised, then launch again to go on."
        }
        Some(libc::EFBIG) => {
            "A limit on the size of files is in force (`ulimit -f`): raise it, then launch again to go on."
        }
        Some(libc::EIO) => {
            "The storage itself reports a fault: check it (`dmesg`) before launching again."
        }
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => {
            "Make that folder writable for this user, then launch again to go on."
        }
        _ => "Mend the cause, then launch again to go on.",
    }
}

/// A number of bytes for people: `3 B`, `1.5 MB`.
pub(crate) struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        for unit in ["B", "kB", "MB", "GB"] {
            if value < 1000.0 {
                let decimals = usize::from(unit != "B");
                return write!(f, "{value:.decimals$} {unit}");
            }
            value /= 1000.0;
        }
        write!(f, "{value:.1} TB")
    }
}

struct Free(Option<u64>);

impl fmt::Display for Free {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => write!(f, "{} are", Bytes(bytes)),
            None => f.write_str("an unknown amount is"),
        }
    }
}

struct NoneValid<'a> {
    root: &'a Path,
    skipped: &'a [Skipped],
}

impl fmt::Display for NoneValid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "none of the checkpoints in {} is valid:",
            self.root.display()
        )?;
        for skipped in self.skipped {
            write!(f, " {skipped};")?;
        }
        f.write_str(" restore one of them, or launch with `--resume never` to begin at step 0")
    }
}

/// A file of torch.save, which only PyTorch should read: unpickling runs what the file says.
struct PyTorchFile<'a>(&'a Path);

impl fmt::Display for PyTorchFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let into = self.0.with_extension("safetensors");
        let into = match into == self.0 {
            true => self.0.with_extension("converted.safetensors"),
            false => into,
        };
        write!(
            f,
            "{} is a file of PyTorch's pickle format, and weights are read from safetensors only. Convert it with\n  \
             python -c \"import sys, torch, safetensors.torch as s; w = torch.load(sys.argv[1], weights_only=True, \
             map_location='cpu'); w = next((w[k] for k in ('state_dict', 'model') if k in w), w); \
             s.save_file({{k: v.clone().contiguous() for k, v in w.items() if torch.is_tensor(v)}}, sys.argv[2])\" {} {}",
            self.0.display(),
            quoted(self.0),
            quoted(&into)
        )
    }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%".contains(c);
    match text.chars().all(plain) && !text.starts_with('-') {
        true => text,
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

struct Misfit<'a> {
    path: &'a Path,
    report: &'a FitReport,
    architecture: Option<&'static str>,
}

impl fmt::Display for Misfit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report;
        let FitReport {
            loaded,
            expected,
            keys,
            ..
        } = report;
        write!(
            f,
            "the weights in {} do not fit this model: {loaded} of its {expected} tensors are there as they should be; \
             {keys}. ",
            self.path.display()
        )?;
        match self.architecture {
            Some(name) => write!(
                f,
                "The file looks like weights of {name}: take that architecture, or other weights"
            ),
            None if report.lacks_heads_only() => {
                f.write_str("The file holds a CNN alone: take weights of a whole model")
            }
            None => f.write_str("Take weights of the model's own architecture and settings"),
        }
    }
}
