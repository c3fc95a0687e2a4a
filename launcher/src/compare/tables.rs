//! What two runs hand on as text: tables, out-of-fold predictions, metrics, the summary.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Compared, Runs, What};
use crate::run_dir::RunDir;

const SUMMARY: &str = "summary.json";
/// Of a line that is quoted.
const LONGEST: usize = 80;

pub(super) fn compare(runs: &Runs) -> Compared {
    let mut found = Compared::new(What::Tables);
    let mut names = BTreeSet::new();
    for dir in [&runs.one, &runs.other] {
        if let Err(error) = collect(dir, &mut names) {
            let difference = format!("cannot list {}: {error}", dir.root().display());
            found.differences.push(difference);
        }
    }
    let [one, other] = runs.names();
    for name in &names {
        let read = |dir: &RunDir| match fs::read(dir.root().join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{}: {error}", dir.root().join(name).display())),
        };
        let file = name.display();
        match (read(&runs.one), read(&runs.other)) {
            (Ok(Some(a)), Ok(Some(b))) => {
                found.add(a.len() as u64);
                if let Some(line) = first_line(&a, &b) {
                    found.differences.push(format!("{file} {line}"));
                }
            }
            (Err(error), _) | (_, Err(error)) => found.differences.push(error),
            (Ok(a), Ok(_)) => {
                let missing = if a.is_none() { &one } else { &other };
                let difference = format!("{file} is not there in {missing}");
                found.differences.push(difference);
            }
        }
    }
    found
}

/// The files' paths below the run directory.
fn collect(dir: &RunDir, names: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    let mut folders = vec![dir.tables(), dir.root().join("jobs")];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if is_handed_on(&path) {
                names.extend(path.strip_prefix(dir.root()).map(Path::to_owned));
            }
        }
    }
    if dir.root().join(SUMMARY).exists() {
        names.insert(SUMMARY.into());
    }
    Ok(())
}

fn is_handed_on(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "csv")
        || path.file_name().is_some_and(|name| name == "metrics.json")
}

/// The first line that differs, with what either file has there.
fn first_line(one: &[u8], other: &[u8]) -> Option<String> {
    if one == other {
        return None;
    }
    let mut lines = one.split(|byte| *byte == b'\n');
    let mut others = other.split(|byte| *byte == b'\n');
    let mut number = 0;
    loop {
        number += 1;
        match (lines.next(), others.next()) {
            // Of two files that differ one line does.
            (None, None) => return Some("differs".to_owned()),
            (a, b) if a == b => {}
            (a, b) => return Some(format!("line {number}: {} and {}", quoted(a), quoted(b))),
        }
    }
}

fn quoted(line: Option<&[u8]>) -> String {
    match line {
        None => "no such line".to_owned(),
        Some(line) => {
            let text = String::from_utf8_lossy(line);
            format!(
                "`{}`",
                text.escape_debug().take(LONGEST).collect::<String>()
            )
        }
    }
}
