//! The sections of the four stages, with the published pipeline's numbers as defaults.

use std::path::PathBuf;

use crate::architecture::ARCHITECTURES;
use crate::model::*;
use crate::models::{Model, models};
use crate::section::Section;
use crate::study_models;
use crate::update::{Numerics, numerics, optimization};

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
    /// Holes that are cut out.
    cutout: u64,
    /// Probability of a distortion.
    distortion: f64,
    /// What its CNN may start from.
    starts: &'static [(&'static str, StartFrom)],
    /// The CNN is taken over and not trained.
    frozen: bool,
}

const RANDOM: (&str, StartFrom) = ("random", StartFrom::Random);
const FROM_1A: (&str, StartFrom) = ("stage1a", StartFrom::Stage1a);
const FROM_1B: (&str, StartFrom) = ("stage1b", StartFrom::Stage1b);

/// `all`, `auto` or a number.
fn gpus(section: &Section) -> Gpus {
    match section.whole("gpus") {
        true => Gpus::Count(section.integer("gpus", 1, 1..=1024)),
        false => section.choice(
            "gpus",
            Gpus::All,
            &[("all", Gpus::All), ("auto", Gpus::Auto)],
        ),
    }
}

/// A stage's `training`, and its `models` laid over it.
fn trained(section: &Section, default: &Defaults, device: Device) -> (Training, Vec<Model>) {
    let own = section.section("training");
    let base = training(&own, default, device);
    own.finish();
    let models = models(section, &base, |entry, _| training(entry, default, device));
    (base, models)
}

fn training(section: &Section, default: &Defaults, device: Device) -> Training {
    let known = ARCHITECTURES.map(|arch| (arch, arch));
    let training = Training {
        arch: section.choice("arch", default.arch, &known).to_owned(),
        seeds: section.integers("seeds", &[0]),
        image_size: section.integer("image_size", default.image_size, 32..=2048),
        epochs: section.integer("epochs", default.epochs, 1..=10_000),
        batch: section.integer("batch", default.batch, 1..=1_000_000),
        micro_batch: section.integer("micro_batch", default.micro_batch, 1..=100_000),
        gpus: gpus(section),
        optimization: optimization(section, default.learning_rate, default.weight_decay),
        numerics: numerics(section, device),
        drop_path: section.number("drop_path", 0.0, 0.0..=0.95),
        drop_rate: section.number("drop_rate", 0.0, 0.0..=0.95),
        evaluate_every: section.integer("evaluate_every", 1, 1..=10_000),
        augment: augment(section.section("augment"), default),
        start_from: section.choice("start_from", StartFrom::Random, default.starts),
        pretrained: section.optional_text("pretrained").map(PathBuf::from),
    };
    if training.pretrained.is_some() && training.start_from != StartFrom::Random {
        section.refuse(
            "pretrained",
            "`start_from` already says where the CNN's weights come from".into(),
            "leave out the one or the other".into(),
        );
    }
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
    if default.frozen {
        refuse_for_frozen(section, &training);
    }
    training
}

/// What asks something of a CNN that is trained.
fn refuse_for_frozen(section: &Section, training: &Training) {
    let Numerics {
        sync_batch_norm,
        gradient_checkpointing,
        ..
    } = training.numerics;
    let asked = [
        (
            "backbone_learning_rate",
            training.optimization.backbone_learning_rate.is_some(),
        ),
        ("gradient_checkpointing", gradient_checkpointing),
        ("sync_batch_norm", sync_batch_norm),
        ("drop_path", training.drop_path > 0.0),
        ("drop_rate", training.drop_rate > 0.0),
    ];
    for (key, _) in asked.iter().filter(|(_, asked)| *asked) {
        section.refuse(
            key,
            "the CNN of stage 3 is frozen: there is nothing for it to act on".into(),
            format!("take {key} out of stage3"),
        );
    }
    let Augment {
        flip,
        probability,
        distortion,
        ..
    } = training.augment;
    if flip > 0.0 || probability > 0.0 || distortion > 0.0 {
        section.refuse(
            "augment",
            "stage 3 trains on features that the frozen CNN computes once: augmentation has no place".into(),
            "take augment out of stage3".into(),
        );
    }
    if training.pretrained.is_some() {
        section.refuse(
            "pretrained",
            "stage 3 has stage 2's CNN, frozen: `pretrained` has no place".into(),
            "take pretrained out of stage3; stage2.training.pretrained is where a CNN starts"
                .into(),
        );
    }
}

fn augment(section: Section, default: &Defaults) -> Augment {
    let or_none = |value: f64| if default.augment { value } else { 0.0 };
    let augment = Augment {
        flip: section.number("flip", or_none(0.5), 0.0..=1.0),
        contrast: section.number("contrast", or_none(0.2), 0.0..=0.9),
        shift: section.number("shift", or_none(0.2), 0.0..=0.9),
        scale: section.number("scale", or_none(0.2), 0.0..=0.9),
        rotate: section.number("rotate", or_none(20.0), 0.0..=180.0),
        probability: section.number("probability", or_none(0.75), 0.0..=1.0),
        cutout: section.integer("cutout", default.cutout, 0..=100),
        distortion: section.number("distortion", default.distortion, 0.0..=1.0),
        grid_steps: section.integer("grid_steps", 5, 1..=64),
        grid_limit: section.number("grid_limit", 0.05, 0.0..=0.9),
        elastic_alpha: section.number("elastic_alpha", 1.0, 0.0..=1e6),
        elastic_sigma: section.number("elastic_sigma", 50.0, 4.0..=1000.0),
    };
    // A displacement's slope has a standard deviation of 0.12 alpha / sigma^2. Where one in eight of them is 1, the image
    // folds over itself and a box has no place in it.
    let steepest = augment.elastic_sigma * augment.elastic_sigma;
    if augment.elastic_alpha > steepest {
        section.refuse(
            "elastic_alpha",
            format!(
                "a field of this strength folds the image over itself at an elastic_sigma of {}",
                augment.elastic_sigma
            ),
            format!("write at most elastic_sigma squared, {steepest}"),
        );
    }
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

pub(crate) fn stage1a(section: Section, device: Device) -> Stage1a {
    let default = Defaults {
        arch: "efficientnet_b1",
        image_size: 512,
        epochs: 15,
        batch: 32,
        micro_batch: 32,
        learning_rate: 2e-4,
        weight_decay: 1e-2,
        augment: true,
        cutout: 0,
        distortion: 0.0,
        starts: &[RANDOM],
        frozen: false,
    };
    let (training, models) = trained(&section, &default, device);
    let stage = Stage1a {
        training,
        models,
        box_loss: section.choice(
            "box_loss",
            BoxLoss::Rmse,
            &[("rmse", BoxLoss::Rmse), ("l1", BoxLoss::L1)],
        ),
    };
    section.finish();
    stage
}

pub(crate) fn stage1b(section: Section, device: Device) -> Stage1b {
    let default = Defaults {
        arch: "resnest50d",
        image_size: 512,
        epochs: 3,
        batch: 16,
        micro_batch: 2,
        learning_rate: 3e-4,
        weight_decay: 5e-4,
        augment: true,
        cutout: 8,
        distortion: 0.5,
        starts: &[RANDOM, FROM_1A],
        frozen: false,
    };
    let (training, models) = trained(&section, &default, device);
    let stage = Stage1b {
        training,
        models,
        sequence: sequence(section.section("sequence")),
        crop: section.switch("crop", true),
    };
    section.finish();
    stage
}

pub(crate) fn stage2(section: Section, device: Device) -> Stage2 {
    let default = Defaults {
        arch: "resnest50d",
        image_size: 512,
        epochs: 3,
        batch: 48,
        micro_batch: 3,
        learning_rate: 3e-4,
        weight_decay: 5e-4,
        augment: true,
        cutout: 8,
        distortion: 0.5,
        starts: &[RANDOM, FROM_1A, FROM_1B],
        frozen: false,
    };
    let (training, models) = trained(&section, &default, device);
    let stage = Stage2 {
        training,
        models,
        sequence: sequence(section.section("sequence")),
    };
    section.finish();
    stage
}

/// `stage2`: whose CNNs are taken over; none where stage 3 is not run, or stage 2 has no section.
pub(crate) fn stage3(section: Section, device: Device, stage2: Option<&Stage2>) -> Stage3 {
    let default = Defaults {
        arch: "resnest50d",
        image_size: 512,
        epochs: 3,
        batch: 8,
        micro_batch: 1,
        learning_rate: 1e-3,
        weight_decay: 5e-4,
        augment: false,
        cutout: 0,
        distortion: 0.0,
        starts: &[RANDOM],
        frozen: true,
    };
    let cnns = stage2.map(study_models::below).unwrap_or_default();
    let own = section.section("training");
    let mut base = training(&own, &default, device);
    let mut models = models(&section, &base, |entry, name| {
        let mut training = training(entry, &default, device);
        if !cnns.is_empty() {
            study_models::take_over_named(entry, name, &mut training, &cnns);
        }
        training
    });
    match cnns.as_slice() {
        [(None, cnn)] if models.is_empty() => study_models::take_over(&own, &mut base, cnn),
        cnns if models.is_empty() => models = study_models::over_each(&own, &base, cnns),
        _ => {}
    }
    own.finish();
    let study = section.section("study");
    let stage = Stage3 {
        training: base,
        models,
        study: StudyModel {
            max_images: study.integer("max_images", 192, 2..=10_000),
            chunk: study.integer("chunk", 64, 1..=10_000),
            margin: study.integer("margin", 2, 0..=1_000),
            lstm_hidden: study.integer("lstm_hidden", 2048, 1..=65_536),
        },
    };
    study.finish();
    section.finish();
    stage
}
