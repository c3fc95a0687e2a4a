//! Where things are in a run directory.

use std::path::{Path, PathBuf};

/// A run directory.
#[derive(Clone, Debug)]
pub struct RunPlace {
    root: PathBuf,
}

impl RunPlace {
    pub fn new(root: &Path) -> Self {
        RunPlace {
            root: root.to_owned(),
        }
    }

    /// `tables/<name>.csv`: what one stage hands to the next.
    pub fn table(&self, name: &str) -> PathBuf {
        self.root.join("tables").join(format!("{name}.csv"))
    }

    pub fn job(&self, job: &str) -> PathBuf {
        self.root.join("jobs").join(job)
    }

    pub fn checkpoints(&self, job: &str) -> PathBuf {
        self.job(job).join("checkpoints")
    }

    /// `jobs/<job>/ledger.jsonl`: which samples each update was made of.
    pub fn ledger(&self, job: &str) -> PathBuf {
        self.job(job).join("ledger.jsonl")
    }

    /// `jobs/<job>/out_of_fold.csv`: what one model says of the studies that it did not see.
    pub fn out_of_fold(&self, job: &str) -> PathBuf {
        self.job(job).join("out_of_fold.csv")
    }

    /// `jobs/<job>/pictures`: what it lets people see; TensorBoard's files hold a copy.
    pub fn pictures(&self, job: &str) -> PathBuf {
        self.job(job).join("pictures")
    }

    pub fn metrics(&self, job: &str) -> PathBuf {
        self.job(job).join("metrics.json")
    }

    pub fn summary(&self) -> PathBuf {
        self.root.join("summary.json")
    }
}
