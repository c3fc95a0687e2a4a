//! YAML text and overlays -> [`Recipe`], with the published pipeline's numbers as defaults.

use std::path::{Path, PathBuf};

use crate::fault::RecipeError;
use crate::model::*;
use crate::section::{Reader, Section};
use crate::tree::{Node, overlay, parse_document};

/// Where a recipe comes from: its name in errors, and its text.
pub struct Source {
    pub name: String,
    pub text: String,
}

impl Source {
    /// Reads a recipe file.
    pub fn file(path: &Path) -> Result<Self, RecipeError> {
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

/// Reads and validates a recipe file with `--set key.path=value` overlays.
pub fn load(path: &Path, set: &[String]) -> Result<Recipe, RecipeError> {
    parse(&Source::file(path)?, set)
}

/// Reads and validates a recipe; all faults are reported together.
pub fn parse(source: &Source, set: &[String]) -> Result<Recipe, RecipeError> {
    let mut tree = parse_document(&source.text, &source.name)?;
    for argument in set {
        overlay(&mut tree, argument)?;
    }
    let reader = Reader::new(&source.name, &source.text);
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
    let stall_timeout = root.number("stall_timeout", 300.0, 5.0..=86_400.0);
    let data = data(root.section("data"));
    let checkpoint = checkpointing(root.section("checkpoint"));

    let stage1a = present(root.section("stage1a"), stage1a);
    let stage1b = present(root.section("stage1b"), stage1b);
    let stage2 = present(root.section("stage2"), stage2);
    let stage3 = present(root.section("stage3"), stage3);
    let written = [
        stage1a.is_some(),
        stage1b.is_some(),
        stage2.is_some(),
        stage3.is_some(),
    ];
    let stages = stages(&root, written);
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
        stall_timeout,
        data,
        checkpoint,
        stage1a,
        stage1b,
        stage2,
        stage3,
    }
}

fn present<'r, 'a, T>(section: Section<'r, 'a>, read: fn(Section<'r, 'a>) -> T) -> Option<T> {
    section.is_present().then(|| read(section))
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

fn folds(root: &Section, count: u64) -> Vec<u64> {
    let all: Vec<u64> = (0..count).collect();
    let chosen = root.integers("folds", &all);
    if let Some(fold) = chosen.iter().find(|fold| **fold >= count) {
        root.refuse(
            "folds",
            format!("there is no fold {fold}: data.folds is {count}"),
            format!("write folds from 0 to {}", count - 1),
        );
    }
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
        folds: section.integer("folds", 5, 2..=100),
        window: section.choice(
            "window",
            Window::PerSlice,
            &[("per_slice", Window::PerSlice), ("fixed", Window::Fixed)],
        ),
        exclude: section.texts("exclude", &[]),
        workers: section.integer("workers", 2, 1..=256),
        memory_mb: section.integer("memory_mb", 4096, 16..=16_777_216),
    };
    section.finish();
    data
}

fn checkpointing(section: Section) -> Checkpointing {
    let checkpointing = Checkpointing {
        every: section.integer("every", 100, 1..=1_000_000_000),
        keep_last: section.integer("keep_last", 2, 1..=1_000),
    };
    section.finish();
    checkpointing
}

/// Defaults that differ from stage to stage.
struct Defaults {
    arch: &'static str,
    image_size: u64,
    epochs: u64,
    batch: u64,
    micro_batch: u64,
    learning_rate: f64,
    weight_decay: f64,
    augment: bool,
    /// What its CNN may start from.
    starts: &'static [(&'static str, StartFrom)],
}

const RANDOM: (&str, StartFrom) = ("random", StartFrom::Random);
const FROM_1A: (&str, StartFrom) = ("stage1a", StartFrom::Stage1a);
const FROM_1B: (&str, StartFrom) = ("stage1b", StartFrom::Stage1b);

fn training(section: Section, default: &Defaults) -> Training {
    let training = Training {
        arch: section.text("arch", default.arch),
        seeds: section.integers("seeds", &[0]),
        image_size: section.integer("image_size", default.image_size, 32..=2048),
        epochs: section.integer("epochs", default.epochs, 1..=10_000),
        batch: section.integer("batch", default.batch, 1..=1_000_000),
        micro_batch: section.integer("micro_batch", default.micro_batch, 1..=100_000),
        learning_rate: section.number("learning_rate", default.learning_rate, 0.0..=100.0),
        weight_decay: section.number("weight_decay", default.weight_decay, 0.0..=10.0),
        warmup: section.number("warmup", 0.1, 0.0..=1.0),
        clip_norm: section.optional_number("clip_norm", 1e-6..=1e9),
        evaluate_every: section.integer("evaluate_every", 1, 1..=10_000),
        augment: augment(section.section("augment"), default.augment),
        start_from: section.choice("start_from", StartFrom::Random, default.starts),
    };
    if !training.batch.is_multiple_of(training.micro_batch) {
        section.refuse(
            "micro_batch",
            format!(
                "a batch of {} cannot be made of micro-batches of {}",
                training.batch, training.micro_batch
            ),
            "batch = micro_batch x ranks x accumulation; choose a divisor of batch".into(),
        );
    }
    section.finish();
    training
}

fn augment(section: Section, on: bool) -> Augment {
    let or_none = |value: f64| if on { value } else { 0.0 };
    let augment = Augment {
        flip: section.number("flip", or_none(0.5), 0.0..=1.0),
        contrast: section.number("contrast", or_none(0.2), 0.0..=0.9),
        shift: section.number("shift", or_none(0.2), 0.0..=0.9),
        scale: section.number("scale", or_none(0.2), 0.0..=0.9),
        rotate: section.number("rotate", or_none(20.0), 0.0..=180.0),
        probability: section.number("probability", or_none(0.75), 0.0..=1.0),
        cutout: section.integer("cutout", if on { 8 } else { 0 }, 0..=100),
    };
    section.finish();
    augment
}

fn sequence(section: Section) -> Sequence {
    let sequence = Sequence {
        images: section.integer("images", 32, 1..=1_000),
        grid: section.integer("grid", 12, 1..=1_000),
        lstm_hidden: section.optional_integer("lstm_hidden", 1..=65_536),
        position: section.choice(
            "position",
            Position::Study,
            &[("study", Position::Study), ("window", Position::Window)],
        ),
    };
    section.finish();
    sequence
}

fn stage1a(section: Section) -> Stage1a {
    let default = Defaults {
        arch: "efficientnet_b1",
        image_size: 512,
        epochs: 15,
        batch: 32,
        micro_batch: 32,
        learning_rate: 2e-4,
        weight_decay: 1e-2,
        augment: true,
        starts: &[RANDOM],
    };
    let stage = Stage1a {
        training: training(section.section("training"), &default),
        box_loss: section.choice(
            "box_loss",
            BoxLoss::Rmse,
            &[("rmse", BoxLoss::Rmse), ("l1", BoxLoss::L1)],
        ),
    };
    section.finish();
    stage
}

fn stage1b(section: Section) -> Stage1b {
    let default = Defaults {
        arch: "resnest50d",
        image_size: 512,
        epochs: 3,
        batch: 16,
        micro_batch: 2,
        learning_rate: 3e-4,
        weight_decay: 5e-4,
        augment: true,
        starts: &[RANDOM, FROM_1A],
    };
    let stage = Stage1b {
        training: training(section.section("training"), &default),
        sequence: sequence(section.section("sequence")),
        crop: section.switch("crop", true),
    };
    section.finish();
    stage
}

fn stage2(section: Section) -> Stage2 {
    let default = Defaults {
        arch: "resnest50d",
        image_size: 512,
        epochs: 3,
        batch: 48,
        micro_batch: 3,
        learning_rate: 3e-4,
        weight_decay: 5e-4,
        augment: true,
        starts: &[RANDOM, FROM_1A, FROM_1B],
    };
    let stage = Stage2 {
        training: training(section.section("training"), &default),
        sequence: sequence(section.section("sequence")),
    };
    section.finish();
    stage
}

fn stage3(section: Section) -> Stage3 {
    let default = Defaults {
        arch: "resnest50d",
        image_size: 512,
        epochs: 3,
        batch: 8,
        micro_batch: 1,
        learning_rate: 1e-3,
        weight_decay: 5e-4,
        augment: false,
        starts: &[RANDOM],
    };
    let study = section.section("study");
    let stage = Stage3 {
        training: training(section.section("training"), &default),
        study: StudyModel {
            max_images: study.integer("max_images", 192, 2..=10_000),
            chunk: study.integer("chunk", 64, 1..=10_000),
            margin: study.integer("margin", 2, 0..=1_000),
            lstm_hidden: study.integer("lstm_hidden", 2048, 1..=65_536),
        },
    };
    let Augment {
        flip, probability, ..
    } = stage.training.augment;
    if flip > 0.0 || probability > 0.0 {
        section.refuse(
            "training",
            "stage 3 trains on features that the frozen CNN computes once: augmentation has no place".into(),
            "take training.augment out of stage3".into(),
        );
    }
    study.finish();
    section.finish();
    stage
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, set: &[&str]) -> Result<Recipe, RecipeError> {
        let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
        parse(
            &Source {
                name: "r.yaml".into(),
                text: text.into(),
            },
            &set,
        )
    }

    const SMALL: &str = "data:\n  root: d\n  folds: 2\nstage2:\n  training:\n    epochs: 4\n";

    #[test]
    fn absent_keys_take_the_published_numbers() {
        let recipe = read(SMALL, &[]).unwrap();
        let stage2 = recipe.stage2.unwrap();
        assert_eq!(stage2.training.epochs, 4);
        assert_eq!(
            (stage2.training.batch, stage2.training.micro_batch),
            (48, 3)
        );
        assert_eq!(stage2.sequence.images, 32);
        assert_eq!(recipe.stages, ["2"]);
        assert_eq!(recipe.folds, [0, 1]);
    }

    #[test]
    fn set_overlays_by_path_and_makes_sections() {
        let recipe = read(SMALL, &["stage2.training.epochs=9", "checkpoint.every=7"]).unwrap();
        assert_eq!(recipe.stage2.unwrap().training.epochs, 9);
        assert_eq!(recipe.checkpoint.every, 7);
    }

    #[test]
    fn an_unknown_key_is_named_with_line_and_nearest_known_one() {
        let error = read(&SMALL.replace("epochs", "epoch"), &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("r.yaml:6:5: stage2.training.epoch: unknown key"),
            "{error}"
        );
        assert!(error.contains("did you mean `epochs`?"), "{error}");
    }

    #[test]
    fn several_faults_are_reported_together() {
        let text = "data:\n  root: d\n  folds: one\nstage2:\n  training:\n    learning_rate: -1\n    micro_batch: 5\n  sequenc: {}\nfolds: [7]\n";
        let error = read(text, &["stage2.sequence.position=nowhere"]).unwrap_err();
        let RecipeError::Faults(faults) = &error else {
            panic!("{error}")
        };
        let paths: Vec<&str> = faults.iter().map(|fault| fault.path.as_str()).collect();
        for path in [
            "data.folds",
            "stage2.training.learning_rate",
            "stage2.training.micro_batch",
            "stage2.sequence.position",
            "stage2.sequenc",
            "folds",
        ] {
            assert!(paths.contains(&path), "{path} is not among {paths:?}");
        }
        assert!(
            error
                .to_string()
                .contains("--set stage2.sequence.position=nowhere")
        );
    }

    #[test]
    fn a_resolved_recipe_reads_back_to_itself() {
        let recipe = read(
            SMALL,
            &["stage2.training.clip_norm=1", "stage3={}", "name='a: b'"],
        )
        .unwrap();
        let yaml = to_yaml(&recipe).unwrap();
        assert_eq!(read(&yaml, &[]).unwrap(), recipe, "{yaml}");
    }

    #[test]
    fn broken_yaml_names_the_line() {
        let error = read("data:\n  root: [\n", &[]).unwrap_err().to_string();
        assert!(
            error.contains("r.yaml") && error.contains("not valid YAML"),
            "{error}"
        );
    }
}
