//! `spinectl data cache`: fills, checks, measures and empties the cache of decoded studies.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::{Args, Subcommand};
use data::StudyUid;
use data::cache::{Amount, Cache, CacheOptions, Outcome, Usage};
use data::data_set::DataSet;
use data::image::{Window, WindowMode};
use data::stack::Appearance;
use data::stage_tables::LeftOut;
use data::tables::{StudyBox, StudyLabels, read_table};
use data::volume::find_study;
use rayon::prelude::*;
use recipe::Recipe;
use serde::Serialize;

use super::progress::Progress;
use crate::recipe_arguments::RecipeArguments;
use crate::table::{self, Column};
use crate::{exit, output, units};

#[derive(Debug, Subcommand)]
pub enum Command {
    Build(Build),
    /// Read every entry, and remove the damaged ones
    Verify(Existing),
    /// Show how much is in it
    Size(Existing),
    /// Remove all entries; files that are not the cache's stay
    Drop(Existing),
}

/// Decode every study into the cache that a recipe names, so that no training waits for it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  spinectl data cache build configs/rsna2022.yaml --set data.root=rsna-2022 --set data.cache.dir=/scratch/cache
  spinectl data cache build configs/rsna2022.yaml --set data.cache.dir=/scratch/cache --run-dir runs/first

Without a run directory: whole slices, as stage 1 takes them. With one that has its study boxes: the cropped ones of the
stages after it too. What is there already is left; interrupted, the same command goes on. Ranks of a training fill the cache
by themselves, together: this command only does it beforehand.")]
pub struct Build {
    #[command(flatten)]
    recipe: RecipeArguments,

    /// A run whose tables/study_boxes.csv says how studies are cropped
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,

    /// Studies decoded at once [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,

    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct Existing {
    /// The cache's folder: data.cache.dir of a recipe
    dir: PathBuf,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(command: &Command) -> anyhow::Result<u8> {
    match command {
        Command::Build(arguments) => build(arguments),
        Command::Verify(arguments) => verify(arguments),
        Command::Size(arguments) => {
            let usage = Cache::existing(&arguments.dir)?.usage()?;
            show(&usage, arguments.json)
        }
        Command::Drop(arguments) => {
            let dropped = Cache::existing(&arguments.dir)?.clear()?;
            if !arguments.json {
                output::say("dropped:");
            }
            show(&dropped, arguments.json)
        }
    }
}

/// What a build did with stacks and volumes.
#[derive(Debug, Default, Serialize)]
struct Built {
    made: usize,
    found: usize,
    not_kept: usize,
    /// Bytes of the entries that were made or found.
    bytes: u64,
    /// Studies that cannot be read, and why.
    failed: Vec<String>,
}

impl Built {
    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Made { bytes } => {
                self.made += 1;
                self.bytes += bytes;
            }
            Outcome::Found { bytes } => {
                self.found += 1;
                self.bytes += bytes;
            }
            Outcome::NotKept => self.not_kept += 1,
        }
    }
}

/// Slices of one side; cropped or whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Want {
    side: u64,
    cropped: bool,
}

/// What the stages of a recipe take of a study; the cropped ones only where it is known how.
fn wants(recipe: &Recipe, boxes_are_there: bool) -> Vec<Want> {
    let is_cropped = |stage: &str| match stage {
        "1a" => false,
        "1b" => recipe.stage1b.as_ref().is_some_and(|stage| stage.crop),
        _ => true,
    };
    let of_stage = |stage: &String| {
        let cropped = is_cropped(stage);
        let models = recipe.models(stage).into_iter();
        models.map(move |model| Want {
            side: model.training.image_size,
            cropped,
        })
    };
    let mut wants: Vec<Want> = recipe
        .stages
        .iter()
        .flat_map(of_stage)
        .filter(|want| !want.cropped || boxes_are_there)
        .collect();
    wants.sort();
    wants.dedup();
    wants
}

fn build(arguments: &Build) -> anyhow::Result<u8> {
    let recipe = arguments.recipe.load()?;
    let settings = &recipe.data.cache;
    let Some(dir) = &settings.dir else {
        return Err(exit::wrong_use(
            "the recipe names no cache: add --set data.cache.dir=DIR, best on a local disk",
        ));
    };
    let boxes = match &arguments.run_dir {
        Some(run_dir) => study_boxes(run_dir)?,
        None => BTreeMap::new(),
    };
    let wants = wants(&recipe, !boxes.is_empty());
    if wants.is_empty() {
        return Err(exit::wrong_use(
            "the stages of this recipe take cropped slices only: name a run whose tables/study_boxes.csv says how, with \
             --run-dir DIR",
        ));
    }
    let left_out = match &arguments.run_dir {
        Some(run_dir) => left_out(run_dir)?,
        None => BTreeSet::new(),
    };
    let data_set = DataSet::new(&recipe.data.root);
    let studies: Vec<StudyUid> = read_table::<StudyLabels>(&data_set.labels())?
        .into_iter()
        .map(|row| row.study)
        .filter(|study| {
            !recipe
                .data
                .exclude
                .iter()
                .any(|other| other == study.as_str())
        })
        .filter(|study| !left_out.contains(study))
        .collect();
    let cache = Cache::open(
        dir,
        CacheOptions {
            limit: settings.limit_gb.saturating_mul(1_000_000_000),
            compress: settings.compress,
            volumes: settings.volumes,
        },
    )?;

    let progress = Progress::new();
    let done = AtomicUsize::new(0);
    let built = Mutex::new(Built::default());
    let mode = match recipe.data.window {
        recipe::Window::PerSlice => WindowMode::PerSlice,
        recipe::Window::Fixed => WindowMode::Fixed,
    };
    let one = |study: &StudyUid| -> data::Result<()> {
        let header = find_study(&data_set.images(), study)?;
        for want in &wants {
            let crop = boxes.get(study).copied().filter(|_| want.cropped);
            if want.cropped && crop.is_none() {
                continue;
            }
            let appearance = Appearance {
                side: want.side as usize,
                window: Window {
                    mode,
                    ..Window::default()
                },
            };
            let outcome = cache.build_stack(&header, crop, appearance)?;
            if let Ok(mut built) = built.lock() {
                built.count(outcome);
            }
        }
        progress.at(done.fetch_add(1, Ordering::Relaxed) + 1, studies.len());
        Ok(())
    };
    let all = || -> Vec<String> {
        let failed = studies.par_iter().filter_map(|study| {
            let error = one(study).err()?;
            Some(format!("study {study}: {error}"))
        });
        failed.collect()
    };
    let failed = super::with_jobs(arguments.jobs, all)?;
    progress.end();
    for warning in cache.warnings() {
        output::say(&format!("warning: {warning}"));
    }
    let mut built = built.into_inner().unwrap_or_default();
    built.failed = failed;
    match arguments.json {
        true => output::print_json(&built)?,
        false => output::print(&format!(
            "{}: {} made, {} there already{}",
            dir.display(),
            units::count(built.made, "entry", "entries"),
            built.found,
            match built.not_kept {
                0 => format!(", {} in all", units::bytes(built.bytes)),
                n => format!(", {n} not kept (see the warnings)"),
            }
        ))?,
    }
    let failed = built.failed;
    if recipe.data.bad_study == recipe::BadStudy::LeaveOut {
        for failure in failed {
            output::say(&format!("warning: {failure}"));
        }
        return Ok(exit::DONE);
    }
    if failed.is_empty() {
        return Ok(exit::DONE);
    }
    Err(exit::fault(
        exit::BAD_DATA,
        format!(
            "{} cannot be read, the others are done\n{}",
            units::count(failed.len(), "study", "studies"),
            failed.join("\n")
        ),
    ))
}

/// The studies that the first job of a run has left out.
fn left_out(run_dir: &Path) -> anyhow::Result<BTreeSet<StudyUid>> {
    let rows = read_table::<LeftOut>(&run_dir.join("tables/left_out.csv"))?;
    Ok(rows.into_iter().map(|row| row.study).collect())
}

fn study_boxes(run_dir: &Path) -> anyhow::Result<BTreeMap<StudyUid, [f64; 4]>> {
    let rows = read_table::<StudyBox>(&run_dir.join("tables/study_boxes.csv"))?;
    Ok(rows
        .into_iter()
        .map(|row| (row.study.clone(), row.bounds()))
        .collect())
}

#[derive(Serialize)]
struct Checked {
    entries: usize,
    bytes: u64,
    bad: Vec<String>,
}

fn verify(arguments: &Existing) -> anyhow::Result<u8> {
    let cache = Cache::existing(&arguments.dir)?;
    let progress = Progress::new();
    let verified = cache.verify(&|done, total| progress.at(done, total))?;
    progress.end();
    let good = verified.good;
    let bad: Vec<String> = verified
        .bad
        .iter()
        .map(|entry| {
            let then = if entry.removed {
                "removed"
            } else {
                "cannot be removed"
            };
            format!("{}: {} ({then})", entry.name, entry.problem)
        })
        .collect();
    let entries = good.stacks.entries + good.volumes.entries;
    if arguments.json {
        let bytes = good.bytes();
        output::print_json(&Checked {
            entries,
            bytes,
            bad: bad.clone(),
        })?;
    } else {
        output::print(&format!(
            "{} sound, {}",
            units::count(entries, "entry is", "entries are"),
            units::bytes(good.bytes())
        ))?;
    }
    if bad.is_empty() {
        return Ok(exit::DONE);
    }
    Err(exit::fault(
        exit::FAILED,
        format!(
            "{} damaged; what is needed of them is made again from the studies' files\n{}",
            units::count(bad.len(), "entry was", "entries were"),
            bad.join("\n")
        ),
    ))
}

#[derive(Serialize)]
struct Sizes {
    stacks: Size,
    volumes: Size,
}

#[derive(Serialize)]
struct Size {
    entries: usize,
    bytes: u64,
}

impl From<Amount> for Size {
    fn from(amount: Amount) -> Self {
        Size {
            entries: amount.entries,
            bytes: amount.bytes,
        }
    }
}

fn show(usage: &Usage, json: bool) -> anyhow::Result<u8> {
    let sizes = Sizes {
        stacks: usage.stacks.into(),
        volumes: usage.volumes.into(),
    };
    if json {
        output::print_json(&sizes)?;
        return Ok(exit::DONE);
    }
    let mut table = table::new(&[
        Column::Text("what"),
        Column::Number("entries"),
        Column::Number("size"),
    ]);
    let rows = [
        ("cropped and resized slices", &sizes.stacks),
        ("volumes as decoded", &sizes.volumes),
    ];
    for (what, size) in rows {
        table.add_row([
            what.to_owned(),
            size.entries.to_string(),
            units::bytes(size.bytes),
        ]);
    }
    output::print(&table.trim_fmt())?;
    Ok(exit::DONE)
}
