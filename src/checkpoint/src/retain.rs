//! Deletes the checkpoints that are no longer wanted.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::find::{State, list};
use crate::folder::{Temporary, lock};
use crate::manifest::verify;

/// Which checkpoints of a plan stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// The newest so many; one at least, whatever is asked.
    pub keep_last: usize,
    /// Those whose step is a multiple of it, for good; none where it is 0.
    pub keep_every: u64,
    /// That of this step.
    pub keep_best: Option<u64>,
}

impl Retention {
    /// Whether the checkpoint of `step` stays however many newer ones there are.
    pub fn keeps(&self, step: u64) -> bool {
        self.keep_best == Some(step)
            || (self.keep_every > 0 && step.is_multiple_of(self.keep_every))
    }
}

/// Of the checkpoints of one plan, keeps those that `retention` says; deletes the other ones, and damaged ones among
/// them, and returns the folders that went. Those of another plan stay.
///
/// Nothing goes before one that is kept has been verified in full: the last good checkpoint is
/// never deleted in favour of a newer one that is broken. Damaged checkpoints newer than that stay,
/// for whoever looks into the matter.
pub fn retain(root: &Path, plan_hash: &str, retention: &Retention) -> Result<Vec<PathBuf>, Error> {
    let keep_last = retention.keep_last.max(1);
    let mut entries = list(root)?;
    entries.retain(|entry| match &entry.state {
        State::Complete(manifest) => manifest.plan_hash == plan_hash,
        State::Damaged(_) => true,
    });
    let may_go = entries.iter().filter(|e| !retention.keeps(e.step)).count();
    if entries.len() <= keep_last || may_go == 0 {
        return Ok(Vec::new());
    }
    let mut kept = 0;
    let mut unwanted = Vec::new();
    for entry in entries.into_iter().rev() {
        let sound = match kept {
            0 => verify(&entry.path).is_ok(),
            _ => matches!(entry.state, State::Complete(_)),
        };
        if sound && kept < keep_last {
            kept += 1;
        } else if kept > 0 && !retention.keeps(entry.step) {
            unwanted.push(entry);
        }
    }

    let Some(_lock) = lock(root).map_err(Error::io("lock", root))? else {
        return Err(Error::Busy {
            root: root.to_owned(),
        });
    };
    let mut removed = Vec::new();
    for entry in unwanted {
        // Renamed first: killed half-way, this leaves a temporary folder and not a broken
        // checkpoint.
        let temporary = Temporary::at(root, "removed-", entry.step);
        fs::rename(&entry.path, temporary.path()).map_err(Error::io("delete", &entry.path))?;
        fs::remove_dir_all(temporary.path()).map_err(Error::io("delete", temporary.path()))?;
        removed.push(entry.path);
    }
    Ok(removed)
}
