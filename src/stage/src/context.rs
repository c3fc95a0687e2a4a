//! What every stage works with: the data set, its split, this rank's group, where to report.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use data::cache::{Cache, CacheOptions};
use data::csv_table::read_table;
use data::data_set::DataSet;
use data::fingerprint::labels_digest;
use data::image::{Window, WindowMode};
use data::leakage::{OutOfFold, read_out_of_fold};
use data::stack::{Appearance, Stack, Stacks};
use data::stage_tables::{LeftOut, SliceTargets};
use data::tables::{StudyBox, StudyFold, StudyLabels};
use data::{DataError, StudyUid};
use event::EventKind;
use nn::BackboneConfig;
use recipe::{Fold, Training};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::Device;
use tch::nn::VarStore;
use train::{
    Execution, Names, ProcessGroup, Report, StopFlag, TrainError, gather_rows, go_on_together,
    share,
};

use crate::Result;
use crate::place::RunPlace;
use crate::show::Album;

/// One rank's surroundings.
pub struct Context<'a> {
    pub data: &'a recipe::Data,
    /// [`labels_digest`] of train.csv when the run was launched; none where nobody has looked.
    pub labels: Option<&'a str>,
    pub place: &'a RunPlace,
    pub group: &'a Rc<ProcessGroup>,
    pub device: Device,
    pub report: &'a dyn Report,
    /// Heeded between two studies, and at every step of a training.
    pub stop: &'a StopFlag,
    /// What this job lets people see.
    pub album: &'a Album,
}

/// One model in the making.
#[derive(Clone, Copy)]
pub struct Fit<'a> {
    /// Takes its variables.
    pub store: &'a VarStore,
    pub training: &'a Training,
    pub execution: &'a Execution,
    /// The studies of this fold are held out, where it is one.
    pub fold: Fold,
    pub seed: u64,
}

/// The CNN that a recipe describes.
pub(crate) fn backbone(training: &Training) -> BackboneConfig {
    BackboneConfig {
        drop_path: training.drop_path,
        drop_rate: training.drop_rate,
        ..BackboneConfig::of(&training.arch)
    }
}

/// The labelled studies and the fold in which each is held out.
#[derive(Clone, Debug)]
pub struct Cohort {
    pub labels: BTreeMap<StudyUid, StudyLabels>,
    pub folds: BTreeMap<StudyUid, u32>,
}

impl Cohort {
    /// Studies that models of this fold do not see.
    pub fn held_out(&self, fold: Fold) -> Vec<StudyUid> {
        self.select(|of| fold.holds_out(of))
    }

    /// Studies that models of this fold learn from.
    pub fn training(&self, fold: Fold) -> Vec<StudyUid> {
        self.select(|of| !fold.holds_out(of))
    }

    fn select(&self, wanted: impl Fn(u32) -> bool) -> Vec<StudyUid> {
        let chosen = self.folds.iter().filter(|(_, fold)| wanted(**fold));
        chosen.map(|(study, _)| study.clone()).collect()
    }
}

impl Context<'_> {
    pub fn data_set(&self) -> DataSet {
        DataSet::new(&self.data.root)
    }

    /// train.csv without the studies that the recipe excludes. The jobs of a run know one and the same: what changes while they
    /// run is for the next launch to see, which does again what depends on it.
    pub fn train_csv(&self) -> Result<BTreeMap<StudyUid, StudyLabels>> {
        let path = self.data_set().labels();
        let rows = read_table::<StudyLabels>(&path)?;
        let excluded = self.data.exclude.iter().map(|uid| StudyUid::new(uid));
        let excluded = excluded.collect::<std::result::Result<Vec<_>, DataError>>()?;
        let kept = rows
            .into_iter()
            .filter(|row| !excluded.contains(&row.study));
        let labels: BTreeMap<_, _> = kept.map(|row| (row.study.clone(), row)).collect();
        match self.labels {
            Some(known) if labels_digest(labels.values()) != known => {
                Err(TrainError::Tables(format!(
                    "{} has changed since the run was launched: launch again, and the jobs that depend on it are done again",
                    path.display()
                )))
            }
            _ => Ok(labels),
        }
    }

    /// train.csv without the excluded studies and those in tables/left_out.csv, and tables/folds.csv.
    pub fn cohort(&self) -> Result<Cohort> {
        let mut labels = self.train_csv()?;
        for row in read_table::<LeftOut>(&self.place.table("left_out"))? {
            labels.remove(&row.study);
        }
        let path = self.place.table("folds");
        let folds: BTreeMap<StudyUid, u32> = read_table::<StudyFold>(&path)?
            .into_iter()
            .map(|row| (row.study, row.fold))
            .collect();
        match labels.keys().find(|study| !folds.contains_key(*study)) {
            Some(study) => Err(TrainError::Tables(format!(
                "{} has no fold for study {study}, which train.csv lists: the data set has changed since the labels \
                 were made; launch into another run directory",
                path.display()
            ))),
            None => Ok(Cohort { labels, folds }),
        }
    }

    /// What a job's model says of the studies that it did not see; refused where it has seen one. One rank alone reads
    /// them, for a table: it stops here where it is asked to.
    pub fn out_of_fold<R: OutOfFold>(&self, cohort: &Cohort, job: &str) -> Result<Vec<R>> {
        self.go_on()?;
        Ok(read_out_of_fold(
            &self.place.out_of_fold(job),
            None,
            &cohort.folds,
        )?)
    }

    /// tables/slice_targets.csv by study, slices head first.
    pub fn slice_targets(&self) -> Result<BTreeMap<StudyUid, Vec<SliceTargets>>> {
        let mut by_study: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for row in read_table::<SliceTargets>(&self.place.table("slice_targets"))? {
            by_study.entry(row.study.clone()).or_default().push(row);
        }
        Ok(by_study)
    }

    /// tables/study_boxes.csv by study.
    pub fn study_boxes(&self) -> Result<BTreeMap<StudyUid, StudyBox>> {
        let rows = read_table::<StudyBox>(&self.place.table("study_boxes"))?;
        Ok(rows
            .into_iter()
            .map(|row| (row.study.clone(), row))
            .collect())
    }

    /// Studies as 8-bit stacks of this side; cropped to their boxes where boxes are given. A cache that the operating
    /// system refuses is a warning; a folder that is none is an error.
    pub fn stacks(
        &self,
        side: u64,
        boxes: Option<&BTreeMap<StudyUid, StudyBox>>,
    ) -> Result<Stacks> {
        let crops = boxes.into_iter().flatten();
        let crops = crops
            .map(|(study, row)| (study.clone(), row.bounds()))
            .collect();
        let limit = (self.data.memory_mb as usize).saturating_mul(1 << 20);
        let stacks = Stacks::new(
            self.data_set().images(),
            appearance(self.data, side),
            crops,
            limit,
        );
        let cache = &self.data.cache;
        let Some(dir) = &cache.dir else {
            return Ok(stacks);
        };
        let options = CacheOptions {
            limit: cache.limit_gb.saturating_mul(1_000_000_000),
            compress: cache.compress,
            volumes: cache.volumes,
        };
        match Cache::open(dir, options) {
            Ok(cache) => Ok(stacks.with_cache(Arc::new(cache))),
            Err(error @ DataError::Io { .. }) => {
                let message = format!("{error}; the run goes on without its cache");
                self.report.report(EventKind::Warning { message });
                Ok(stacks)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reports what went wrong with the cache of these stacks.
    pub fn report_warnings(&self, stacks: &Stacks) {
        for message in stacks.warnings() {
            self.report.report(EventKind::Warning { message });
        }
    }

    /// Runs `predict` on each study, shared over the ranks; the rows of all studies in the order of `studies`, on
    /// every rank.
    pub fn over_studies<R: Serialize + DeserializeOwned>(
        &self,
        what: &str,
        studies: &[StudyUid],
        mut predict: impl FnMut(&StudyUid) -> Result<R>,
    ) -> Result<Vec<R>> {
        let numbered: Vec<(usize, &StudyUid)> = studies.iter().enumerate().collect();
        let mine: Vec<_> = share(&numbered, self.group).copied().collect();
        let of_mine: Vec<&StudyUid> = mine.iter().map(|(_, study)| *study).collect();
        let rows = self.each_study(&of_mine, |done, study| {
            self.progress(what, done, mine.len());
            Ok((mine[done].0, predict(study)?))
        })?;
        self.progress(what, mine.len(), mine.len());
        let mut all = gather_rows(rows, self.group, self.device)?;
        all.sort_by_key(|(number, _)| *number);
        Ok(all.into_iter().map(|(_, row)| row).collect())
    }

    /// Runs `work` on each of this rank's studies, with its place among them. All ranks call it, and all leave together
    /// where one is asked to stop.
    ///
    /// # Errors
    /// `Stopped`, on all ranks; what `work` fails with.
    pub fn each_study<R>(
        &self,
        studies: &[&StudyUid],
        mut work: impl FnMut(usize, &StudyUid) -> Result<R>,
    ) -> Result<Vec<R>> {
        let names = names_of(studies.iter().copied());
        let mut results = Vec::with_capacity(studies.len());
        for (place, study) in studies.iter().enumerate() {
            self.report.works_on(&[place], &names);
            if self.stop.is_requested() {
                break;
            }
            results.push(work(place, study)?);
        }
        // From here on it waits for the others.
        self.report.works_on(&[], &names);
        go_on_together(results.len() < studies.len(), self.group, self.device)?;
        Ok(results)
    }

    /// Between two pieces of work that a rank does alone.
    ///
    /// # Errors
    /// `Stopped`, where it was asked to.
    pub fn go_on(&self) -> Result<()> {
        match self.stop.is_requested() {
            true => Err(TrainError::Stopped),
            false => Ok(()),
        }
    }

    pub fn progress(&self, what: &str, done: usize, total: usize) {
        train::progress::went_on();
        if self.group.rank() == 0 {
            let (done, total) = (done as u64, total as u64);
            self.report.report(EventKind::Progress {
                what: what.to_owned(),
                done,
                total,
            });
        }
    }
}

/// What studies are called, by their places among these.
pub(crate) fn names_of<'a>(studies: impl Iterator<Item = &'a StudyUid>) -> Names {
    let names: Vec<String> = studies.map(ToString::to_string).collect();
    Arc::new(move |place| names.get(place).cloned().unwrap_or_default())
}

/// How the recipe wants slices to look at this side.
pub(crate) fn appearance(data: &recipe::Data, side: u64) -> Appearance {
    let mode = match data.window {
        recipe::Window::PerSlice => WindowMode::PerSlice,
        recipe::Window::Fixed => WindowMode::Fixed,
    };
    Appearance {
        side: side as usize,
        window: Window {
            mode,
            ..Window::default()
        },
    }
}

/// The slices of a stack around `index` that make one 3-slice image: (3, side, side).
pub(crate) fn image_at(stack: &Stack, index: usize) -> data::Result<Vec<u8>> {
    let index = index as isize;
    stack.slices_between(index - 1, index + 2)
}
