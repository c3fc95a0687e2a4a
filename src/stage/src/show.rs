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

use event::{EventKind, Picture, Scores};
use metrics::ScoreCounts;
use train::TrainError;

use crate::Result;
use crate::context::Context;

pub(crate) use canvas::Canvas;
pub(crate) use sheet::{Tile, sheet, tiles};
pub(crate) use slices::Studies;

/// Images of a sheet, at most.
pub(crate) const SHEET_IMAGES: usize = 32;

/// At most `count` of `all` places, evenly from the first on.
pub(crate) fn spread(all: usize, count: usize) -> impl Iterator<Item = usize> {
    let count = count.min(all);
    (0..count).map(move |number| number * all / count)
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

    /// Shows a picture under `name`; `caption` says what is seen, and of the patient no more than the StudyInstanceUID. A
    /// training is worth more than its pictures: what goes wrong is said once and stops nothing.
    pub(crate) fn picture(
        &self,
        step: u64,
        name: &str,
        caption: String,
        draw: impl FnOnce() -> Result<Canvas>,
    ) {
        let file = format!("{}-{step:08}.png", name.replace('/', "-"));
        let folder = self.place.pictures(&self.album.job);
        let made = draw().and_then(|canvas| {
            // Not the job's folder: in a run directory that is gone nothing is begun anew.
            if !folder.is_dir() {
                fs::create_dir(&folder).map_err(|source| TrainError::Write {
                    path: folder.display().to_string(),
                    source,
                })?;
            }
            data::atomic_file::replace(&folder.join(&file), |out| out.write_all(&canvas.png()?))?;
            Ok(())
        });
        let kind = match made {
            Ok(()) => EventKind::Picture(Picture {
                step,
                name: name.to_owned(),
                path: format!("jobs/{}/pictures/{file}", self.album.job),
                caption,
            }),
            Err(_) if self.album.failed.replace(true) => return,
            Err(error) => EventKind::Warning {
                message: format!("pictures are missing, the training goes on: {error}"),
            },
        };
        self.report.report(kind);
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
