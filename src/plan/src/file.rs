//! `plan.json`: written by the launcher, read by ranks and by every command on a run directory.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use crate::Plan;

/// Writes the plan so that a reader sees the old file or the new one, never half of one.
pub fn write(path: &Path, plan: &Plan) -> io::Result<()> {
    let partial = path.with_extension("json.partial");
    let mut file = fs::File::create(&partial)?;
    file.write_all(&serde_json::to_vec_pretty(plan)?)?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

/// Reads a plan that [`write`] wrote.
pub fn read(path: &Path) -> io::Result<Plan> {
    let about = |e: &dyn std::fmt::Display| {
        format!(
            "cannot read the plan {}: {e}; is this a run directory?",
            path.display()
        )
    };
    let text = fs::read(path).map_err(|e| io::Error::new(e.kind(), about(&e)))?;
    serde_json::from_slice(&text).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, about(&e)))
}
