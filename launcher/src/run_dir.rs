//! The layout of a run directory, and the files that say what is run in it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use plan::{JobId, Plan};
use serde::Serialize;

use crate::LaunchError;

/// A run directory, by its absolute path: ranks need not start where the user stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunDir(PathBuf);

impl RunDir {
    /// Makes it where it is not there.
    pub fn create(path: &Path) -> Result<Self, LaunchError> {
        fs::create_dir_all(path).map_err(LaunchError::io("make the run directory", path))?;
        Self::open(path)
    }

    /// As [`RunDir::create`], for nobody but its owner; one that is there is made so. What this process and those that it
    /// starts write from then on is for its owner alone as well, wherever it is.
    pub fn create_private(path: &Path) -> Result<Self, LaunchError> {
        // SAFETY: the call takes a number and cannot fail.
        unsafe { libc::umask(0o077) };
        let dir = Self::create(path)?;
        // Through a descriptor: the folder that is looked at is the one that is changed.
        let only_owner = || {
            let folder = File::open(dir.root())?;
            folder.set_permissions(fs::Permissions::from_mode(0o700))
        };
        only_owner().map_err(LaunchError::io("make private", path))?;
        Ok(dir)
    }

    /// One that a launch has filled.
    pub fn with_a_run(path: &Path) -> Result<Self, LaunchError> {
        for missing in ["plan.json", "run.db"] {
            if !path.join(missing).is_file() {
                return Err(LaunchError::NotARun {
                    run_dir: path.to_owned(),
                    missing,
                });
            }
        }
        Self::open(path)
    }

    /// One that is there.
    pub fn open(path: &Path) -> Result<Self, LaunchError> {
        let found = fs::canonicalize(path);
        found
            .map(RunDir)
            .map_err(LaunchError::io("open the run directory", path))
    }

    pub fn root(&self) -> &Path {
        &self.0
    }

    pub fn lock(&self) -> PathBuf {
        self.0.join(".lock")
    }

    pub fn recipe(&self) -> PathBuf {
        self.0.join("recipe.yaml")
    }

    pub fn provenance(&self) -> PathBuf {
        self.0.join("provenance.json")
    }

    pub fn plan(&self) -> PathBuf {
        self.0.join("plan.json")
    }

    pub fn database(&self) -> PathBuf {
        self.0.join("run.db")
    }

    pub fn events(&self) -> PathBuf {
        self.0.join("events.jsonl")
    }

    pub fn tables(&self) -> PathBuf {
        self.0.join("tables")
    }

    pub fn predict_log(&self) -> PathBuf {
        self.0.join("predict.log")
    }

    pub fn checkpoints(&self, job: &JobId) -> PathBuf {
        self.job(job).join("checkpoints")
    }

    pub fn attempt(&self, job: &JobId, attempt: u32) -> PathBuf {
        self.job(job).join(format!("attempt-{attempt}"))
    }

    pub fn log(&self, job: &JobId, attempt: u32, rank: usize) -> PathBuf {
        self.attempt(job, attempt).join(format!("rank{rank}.log"))
    }

    pub fn failure(&self, job: &JobId, attempt: u32, rank: usize) -> PathBuf {
        let name = format!("failure-rank{rank}.json");
        self.attempt(job, attempt).join(name)
    }

    fn job(&self, job: &JobId) -> PathBuf {
        self.0.join("jobs").join(job.as_str())
    }

    /// Writes what is run, and makes the folders that ranks expect.
    pub fn write_plan(
        &self,
        plan: &Plan,
        recipe_yaml: &str,
        provenance: &Provenance,
    ) -> Result<(), LaunchError> {
        let tables = self.tables();
        fs::create_dir_all(&tables).map_err(LaunchError::io("make", &tables))?;
        let path = self.recipe();
        replace(&path, recipe_yaml.as_bytes()).map_err(LaunchError::io("write", &path))?;
        let path = self.provenance();
        serde_json::to_vec_pretty(provenance)
            .map_err(io::Error::from)
            .and_then(|text| replace(&path, &text))
            .map_err(LaunchError::io("write", &path))?;
        let path = self.plan();
        plan::write(&path, plan).map_err(LaunchError::io("write", &path))
    }
}

/// With what the newest launch was made. Nothing in it names the machine or its user.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Provenance {
    /// Of spinectl.
    pub version: &'static str,
    /// Seconds since the Unix epoch.
    pub launched: f64,
    pub plan_hash: String,
    pub device: recipe::Device,
    pub ranks: usize,
    /// Models of the GPUs that the driver names.
    pub gpus: Vec<String>,
}

/// Replaces a file so that a reader sees the old text or the new one, also after a crash.
pub(crate) fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = path.with_file_name(name);
    let mut file = File::create(&partial)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&partial, path)
}
