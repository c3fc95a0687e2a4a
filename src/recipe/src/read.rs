//! YAML text and overlays -> [`Recipe`].

use std::path::{Path, PathBuf};

use crate::chain;
use crate::fault::RecipeError;
use crate::fold::folds;
use crate::model::*;
use crate::reader::Reader;
use crate::section::Section;
use crate::stages::{stage1a, stage1b, stage2, stage3};
use crate::telemetry::telemetry;
use crate::tree::{Node, overlay, parse_document};

/// A document of a recipe: its name in errors, and its text.
#[derive(Clone, Debug)]
pub struct Source {
    pub name: String,
    pub text: String,
}

impl Source {
    /// Reads a recipe file.
    pub(crate) fn file(path: &Path) -> Result<Self, RecipeError> {
        let text = std::fs::read_to_string(path).map_err(|source| RecipeError::Read {
            path: path.to_owned(),
            source,
        })?;
        Ok(Source {
            name: path.display().to_string(),
            text,
        })
    }
}

/// Reads and validates a recipe file, over those that it extends, with `--set key.path=value` overlays; all faults are
/// reported together.
pub fn load(path: &Path, set: &[String]) -> Result<Recipe, RecipeError> {
    let (tree, documents) = chain::read(path)?;
    resolve(tree, &documents, set)
}

/// As [`load`], of a text: it can extend no file.
pub fn parse(source: &Source, set: &[String]) -> Result<Recipe, RecipeError> {
    let tree = parse_document(&source.text, &source.name, 0)?;
    resolve(tree, std::slice::from_ref(source), set)
}

fn resolve(mut tree: Node, documents: &[Source], set: &[String]) -> Result<Recipe, RecipeError> {
    for argument in set {
        overlay(&mut tree, argument)?;
    }
    let reader = Reader::new(documents);
    chain::refuse(&reader, &mut tree);
    let recipe = recipe(&reader, &tree);
    let faults = reader.faults.into_inner();
    match faults.is_empty() {
        true => Ok(recipe),
        false => Err(RecipeError::Faults(faults)),
    }
}

/// The resolved recipe as YAML that [`parse`] reads back to the same recipe.
pub fn to_yaml(recipe: &Recipe) -> Result<String, RecipeError> {
    serde_saphyr::to_string(recipe).map_err(|e| RecipeError::Write(e.to_string()))
}

/// The stages in the order in which they run.
const STAGES: [&str; 4] = ["1a", "1b", "2", "3"];

fn recipe(reader: &Reader, tree: &Node) -> Recipe {
    let root = Section::root(reader, tree);
    let name = root.text("name", "unnamed");
    let seed = root.integer("seed", 0, 0..=u64::from(u32::MAX));
    let device = root.choice(
        "device",
        Device::Cuda,
        &[("cuda", Device::Cuda), ("cpu", Device::Cpu)],
    );
    let ranks = root.integer("ranks", 1, 1..=1024);
    let gpus = root.optional_integer("gpus", 1..=1024);
    let retries = root.integer("retries", 2, 0..=100);
    let back_off = root.number("back_off", 1.0, 0.0..=30.0);
    let stall_timeout = root.number("stall_timeout", 300.0, 5.0..=86_400.0);
    let replica_check = root.integer("replica_check", REPLICA_CHECK, 0..=1_000_000_000);
    let elastic = elastic(root.section("elastic"));
    let private = root.switch("private", false);
    let logs = logs(root.section("logs"));
    let telemetry = telemetry(root.section("telemetry"));
    let tensorboard = tensorboard(root.section("tensorboard"));
    let data = data(root.section("data"));
    let checkpoint = checkpointing(root.section("checkpoint"));

    let sections = ["stage1a", "stage1b", "stage2", "stage3"].map(|key| root.section(key));
    let stages = stages(&root, sections.each_ref().map(Section::is_present));
    let [of_1a, of_1b, of_2, of_3] =
        sections.map(|section| Some(section).filter(Section::is_present));
    let stage1a = of_1a.map(|section| stage1a(section, device));
    let stage1b = of_1b.map(|section| stage1b(section, device));
    let stage2 = of_2.map(|section| stage2(section, device));
    let below = stage2
        .as_ref()
        .filter(|_| stages.iter().any(|stage| stage == "3"));
    let stage3 = of_3.map(|section| stage3(section, device, below));
    let folds = folds(&root, data.folds);
    root.finish();
    Recipe {
        name,
        seed,
        device,
        ranks,
        gpus,
        stages,
        folds,
        retries,
        back_off,
        stall_timeout,
        replica_check,
        elastic,
        private,
        logs,
        telemetry,
        tensorboard,
        data,
        checkpoint,
        stage1a,
        stage1b,
        stage2,
        stage3,
    }
}

fn stages(root: &Section, written: [bool; 4]) -> Vec<String> {
    let sections: Vec<&str> = STAGES
        .iter()
        .zip(written)
        .filter(|(_, there)| *there)
        .map(|(stage, _)| *stage)
        .collect();
    let mut chosen = root.texts("stages", &sections);
    for stage in &chosen {
        if !STAGES.contains(&stage.as_str()) {
            root.refuse(
                "stages",
                format!("`{stage}` is not a stage"),
                format!("write some of \"{}\"", STAGES.join("\", \"")),
            );
        } else if !sections.contains(&stage.as_str()) {
            root.refuse(
                "stages",
                format!("stage {stage} is asked for, but there is no section `stage{stage}`"),
                format!("add the section, or leave {stage} out"),
            );
        }
    }
    if chosen.is_empty() && root.is_present() {
        root.refuse(
            "stages",
            "no stage to run".into(),
            "add a section stage1a, stage1b, stage2 or stage3".into(),
        );
    }
    chosen.sort_by_key(|stage| STAGES.iter().position(|known| known == stage));
    chosen.dedup();
    chosen
}

fn data(section: Section) -> Data {
    let root = section.text("root", "");
    if root.is_empty() {
        section.refuse(
            "root",
            "the folder of the data set is missing".into(),
            "write `root: path/to/data` (it holds train_images/ and train.csv); `spinectl data synth` makes one to try".into(),
        );
    }
    let data = Data {
        root: PathBuf::from(root),
        folds: section.integer("folds", 5, 2..=50),
        window: section.choice(
            "window",
            Window::PerSlice,
            &[("per_slice", Window::PerSlice), ("fixed", Window::Fixed)],
        ),
        split: section.optional_text("split").map(PathBuf::from),
        exclude: section.texts("exclude", &[]),
        check: section.choice(
            "check",
            Check::Pixels,
            &[("pixels", Check::Pixels), ("headers", Check::Headers)],
        ),
        bad_study: section.choice(
            "bad_study",
            BadStudy::Stop,
            &[("stop", BadStudy::Stop), ("leave_out", BadStudy::LeaveOut)],
        ),
        workers: section.integer("workers", 2, 1..=256),
        memory_mb: section.integer("memory_mb", 4096, 16..=16_777_216),
        prefetch_mb: section.integer("prefetch_mb", 512, 1..=16_777_216),
        cache: cache(section.section("cache")),
    };
    section.finish();
    data
}

fn cache(section: Section) -> Cache {
    let default = Cache::default();
    let cache = Cache {
        dir: section.optional_text("dir").map(PathBuf::from),
        limit_gb: section.integer("limit_gb", default.limit_gb, 1..=1_000_000),
        compress: section.switch("compress", default.compress),
        volumes: section.switch("volumes", default.volumes),
    };
    section.finish();
    cache
}

fn elastic(section: Section) -> Option<Elastic> {
    if !section.is_present() {
        return None;
    }
    let elastic = Elastic {
        min: section.integer("min", 1, 1..=1024),
        max: section.integer("max", 1024, 1..=1024),
    };
    if elastic.min > elastic.max {
        section.refuse(
            "min",
            format!("{} ranks are more than max, {}", elastic.min, elastic.max),
            "min is the fewest ranks on which a job may go on, max the most that it takes".into(),
        );
    }
    section.finish();
    Some(elastic)
}

fn checkpointing(section: Section) -> Checkpointing {
    let default = Checkpointing::default();
    let checkpointing = Checkpointing {
        every: section.integer("every", default.every, 1..=1_000_000_000),
        keep_last: section.integer("keep_last", default.keep_last, 1..=1_000),
        keep_every: section.integer("keep_every", default.keep_every, 0..=1_000_000_000),
        keep_best: section
            .section("keep_best")
            .words(&[("min", Mode::Min), ("max", Mode::Max)]),
        asynchronous: section.switch("asynchronous", default.asynchronous),
        shards: section.choice(
            "shards",
            default.shards,
            &[
                ("auto", Shards::Auto),
                ("on", Shards::On),
                ("off", Shards::Off),
            ],
        ),
    };
    if checkpointing.keep_every > 0 && !checkpointing.keep_every.is_multiple_of(checkpointing.every)
    {
        section.refuse(
            "keep_every",
            format!(
                "checkpoints are written every {} updates, and {} is no multiple of that: most that should be kept for \
                 good would never be written",
                checkpointing.every, checkpointing.keep_every
            ),
            format!("write a multiple of {}", checkpointing.every),
        );
    }
    section.finish();
    checkpointing
}

fn logs(section: Section) -> Logs {
    let default = Logs::default();
    let logs = Logs {
        max_mb: section.integer("max_mb", default.max_mb, 1..=1_000_000),
        keep: section.integer("keep", default.keep, 1..=1_000),
    };
    section.finish();
    logs
}

fn tensorboard(section: Section) -> Tensorboard {
    let default = Tensorboard::default();
    let tensorboard = Tensorboard {
        pictures: section.integer("pictures", default.pictures, 0..=16),
        histograms: section.switch("histograms", default.histograms),
    };
    section.finish();
    tensorboard
}

#[cfg(test)]
mod tests;
