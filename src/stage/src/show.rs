//! What a training lets people see: pictures, and the scores behind its metrics.
//!
//! Rank 0 makes them. A picture is a file of the job's folder, and an event names it; events are lines, and hold none.

mod canvas;
mod curves;
mod sheet;
mod slices;

use std::cell::Cell;
use std::fs;
use std::io::Write;
use std::path::Path;

use event::{EventKind, Picture, Scores};
use metrics::ScoreCounts;
use train::{TrainError, progress};

use crate::Result;
use crate::context::Context;

pub(crate) use canvas::Canvas;
pub(crate) use sheet::{Tile, sheet, tiles};
pub(crate) use slices::{Studies, Study};

/// Images of a sheet, at most.
pub(crate) const SHEET_IMAGES: usize = 32;

/// At most `count` of `all` places, evenly from the first on.
pub(crate) fn spread(all: usize, count: usize) -> impl Iterator<Item = usize> {
    let count = count.min(all);
    (0..count).map(move |number| number * all / count)
}

/// Pictures of one name that are left: whoever shows them may not be done with the ones before the newest.
const KEPT: usize = 3;

/// What a picture shows, in words; of the patient no more than the StudyInstanceUID.
pub(crate) struct Shows {
    /// The study.
    pub of: String,
    pub what: String,
}

/// How much one job shows.
#[derive(Debug)]
pub struct Album {
    job: String,
    /// Studies or samples, each time.
    pictures: usize,
    /// A picture could not be made, and that has been said.
    failed: Cell<bool>,
}

impl Album {
    pub fn new(job: &str, pictures: u64) -> Self {
        Album {
            job: job.to_owned(),
            pictures: pictures as usize,
            failed: Cell::new(false),
        }
    }
}

impl Context<'_> {
    /// How many pictures of a kind this rank makes.
    pub(crate) fn pictures(&self) -> usize {
        match self.group.rank() {
            0 => self.album.pictures,
            _ => 0,
        }
    }

    /// Shows a picture under `name`. A training is worth more than its pictures: what goes wrong is said once and stops
    /// nothing, and where a stop is asked for there are no more.
    pub(crate) fn picture(
        &self,
        step: u64,
        name: &str,
        shows: Shows,
        draw: impl FnOnce() -> Result<Canvas>,
    ) {
        if self.stop.is_requested() {
            return;
        }
        let stem = name.replace('/', "-");
        let made = draw().and_then(|canvas| self.keep(&stem, step, &canvas));
        progress::went_on();
        let Shows { of, what } = shows;
        let kind = match made {
            Ok(()) => EventKind::Picture(Picture {
                step,
                name: name.to_owned(),
                path: format!(
                    "jobs/{}/pictures/{}",
                    self.album.job,
                    file_name(&stem, step)
                ),
                caption: format!("{of}: {what}"),
            }),
            Err(_) if self.album.failed.replace(true) => return,
            Err(error) => EventKind::Warning {
                message: format!(
                    "pictures are missing, the training goes on: `{name}` of {of}: {error}; of others nothing is said"
                ),
            },
        };
        self.report.report(kind);
    }

    /// Writes a picture in place of older ones of its name.
    fn keep(&self, stem: &str, step: u64, canvas: &Canvas) -> Result<()> {
        let folder = self.place.pictures(&self.album.job);
        // Not the job's folder: in a run directory that is gone nothing is begun anew.
        if !folder.is_dir() {
            fs::create_dir(&folder).map_err(|source| TrainError::Write {
                path: folder.display().to_string(),
                source,
            })?;
        }
        let path = folder.join(file_name(stem, step));
        data::atomic_file::replace(&path, |out| out.write_all(&canvas.png()?))?;
        remove_older(&folder, stem, step);
        Ok(())
    }

    /// Shows how the scores of a set tell positives from negatives, where it has both.
    pub(crate) fn scores(&self, step: u64, set: &str, name: &str, counts: ScoreCounts) {
        let both = [&counts.positives, &counts.negatives];
        let both = both.iter().all(|bins| bins.iter().any(|count| *count > 0));
        if self.group.rank() == 0 && both {
            self.report.report(EventKind::Scores(Scores {
                step,
                set: set.to_owned(),
                name: name.to_owned(),
                positives: counts.positives,
                negatives: counts.negatives,
            }));
        }
    }
}

fn file_name(stem: &str, step: u64) -> String {
    format!("{stem}-{step:08}.png")
}

/// Of the pictures of one name, leaves that of `step` and the newest before it: later ones are of an attempt that failed. What
/// cannot be removed is left too.
fn remove_older(folder: &Path, stem: &str, step: u64) {
    let step_of = |name: &str| {
        let number = name.strip_prefix(stem)?.strip_prefix('-')?;
        number.strip_suffix(".png")?.parse::<u64>().ok()
    };
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    let steps = names.filter_map(|entry| step_of(entry.file_name().to_str()?));
    let others = steps.filter(|other| *other != step);
    let (mut earlier, later): (Vec<u64>, Vec<u64>) = others.partition(|other| *other < step);
    earlier.sort_unstable();
    earlier.truncate(earlier.len().saturating_sub(KEPT - 1));
    for old in earlier.into_iter().chain(later) {
        let _ = fs::remove_file(folder.join(file_name(stem, old)));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_newest_pictures_of_a_name_are_left_and_those_of_others() {
        let folder = tempfile::tempdir().unwrap();
        let there = || -> BTreeSet<String> {
            let names = fs::read_dir(folder.path()).unwrap();
            names
                .map(|name| name.unwrap().file_name().into_string().unwrap())
                .collect()
        };
        let write = |name: &str| fs::write(folder.path().join(name), "").unwrap();
        for step in [1, 4, 8, 12, 16] {
            write(&file_name("inputs-1", step));
        }
        let others = [
            file_name("inputs-11", 1),
            file_name("inputs", 1),
            "inputs-1-a.png".to_owned(),
        ];
        others.iter().for_each(|name| write(name));
        // As after a resume from step 8, in a folder where the steps to 16 were done before.
        remove_older(folder.path(), "inputs-1", 12);
        let mut left: BTreeSet<String> = others.into_iter().collect();
        left.extend([4, 8, 12].map(|step| file_name("inputs-1", step)));
        assert_eq!(there(), left);
    }
}
