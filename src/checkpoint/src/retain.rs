//! Deletes the checkpoints that are no longer wanted.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::find::{State, list};
use crate::folder::{Temporary, lock};
use crate::manifest::verify;

/// Of the checkpoints of one plan, keeps the newest `keep_last` (at least one) and that of step
/// `keep_best`; deletes the older ones, and damaged ones among them, and returns the folders that
/// went. Those of another plan stay.
///
/// Nothing goes before one that is kept has been verified in full: the last good checkpoint is
/// never deleted in favour of a newer one that is broken. Damaged checkpoints newer than that stay,
/// for whoever looks into the matter.
pub fn retain(
    root: &Path,
    plan_hash: &str,
    keep_last: usize,
    keep_best: Option<u64>,
) -> Result<Vec<PathBuf>, Error> {
    let mut entries = list(root)?;
    entries.retain(|entry| match &entry.state {
        State::Complete(manifest) => manifest.plan_hash == plan_hash,
        State::Damaged(_) => true,
    });
    let keep_last = keep_last.max(1);
    if entries.len() <= keep_last {
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
        } else if kept > 0 && keep_best != Some(entry.step) {
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
