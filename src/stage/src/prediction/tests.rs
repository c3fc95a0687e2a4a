//! What a prediction is the mean of, with models of random weights.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use data::geometry::Geometry;
use data::nifti::write::{Layout, write_nifti_i16};
use nn::{Localizer, SliceModel, StudyModel};
use recipe::{Position, Recipe, Source};
use tch::Device;
use tch::nn::VarStore;
use train::{Execution, ExecutionConfig};

use super::*;
use crate::context::backbone;
use crate::ensemble::{Member, SliceMember};
use crate::windows::WindowShape;

const SIDE: usize = 32;
const SLICES: usize = 12;
const SHAPE: WindowShape = WindowShape {
    images: 2,
    grid: 1,
    position: Position::Study,
};

fn recipe() -> Recipe {
    let source = Source {
        name: "test".into(),
        text: "device: cpu\ndata: {root: d, window: fixed}\n\
               stage1a: {training: {arch: resnest14d, image_size: 32}}\n\
               stage3: {study: {max_images: 3, chunk: 2, lstm_hidden: 8}, training: {arch: resnest14d}}"
            .into(),
    };
    recipe::parse(&source, &[]).unwrap()
}

/// Takes turns at libtorch's random numbers: a seed is a model's weights.
fn seeded<T>(seed: i64, make: impl FnOnce(&VarStore) -> T) -> T {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    tch::manual_seed(seed);
    make(&VarStore::new(Device::Cpu))
}

/// A run's models: those of these seeds. `finds`: the localizers are sure to see a vertebra everywhere, or nowhere.
fn models<'a>(recipe: &'a Recipe, localizers: &[i64], others: &[i64], finds: bool) -> Models<'a> {
    let training = &recipe.stage1a.as_ref().unwrap().training;
    let settings = &recipe.stage3.as_ref().unwrap().study;
    let cnn = backbone(training);
    fn member<M>(model: M, training: &recipe::Training) -> Member<'_, M> {
        let execution = Execution::new(ExecutionConfig::plain(Device::Cpu));
        Member {
            model,
            execution,
            training,
        }
    }
    let mut models = Models::new(&recipe.data, Device::Cpu);
    for seed in localizers {
        let model = seeded(*seed, |store| {
            let model = Localizer::new(&store.root(), &cnn).unwrap();
            let mut bias = store.variables().remove("head_has_box.bias").unwrap();
            let _ = tch::no_grad(|| bias.f_fill_(if finds { 9.0 } else { -9.0 }).unwrap());
            model
        });
        models.localizers.push(member(model, training));
    }
    for seed in others {
        for (heads, crop) in [(SliceHeads::Ratio, false), (SliceHeads::Fracture, true)] {
            let model = seeded(*seed, |store| {
                SliceModel::new(&store.root(), &cnn, Some(8), heads).unwrap()
            });
            models.slices.push(SliceMember {
                member: member(model, training),
                heads,
                window: SHAPE,
                crop,
            });
        }
        let length = settings.max_images as i64;
        let model = seeded(*seed, |store| {
            StudyModel::new(&store.root(), &cnn, Some(8), length).unwrap()
        });
        models.studies.push((member(model, training), settings));
    }
    models
}

/// Writes a study that no two columns of are alike, and its mirror image.
fn write_studies(folder: &Path) {
    let geometry = Geometry {
        origin: [0.0; 3],
        row: [1.0, 0.0, 0.0],
        col: [0.0, 1.0, 0.0],
        spacing: [1.0, 1.0],
        step: [0.0, 0.0, -2.5],
        rows: SIDE,
        cols: SIDE,
        slices: SLICES,
    };
    let value = |slice: usize, row: usize, col: usize| {
        let wave = (slice as f64 * 0.7 + row as f64 * 0.3).sin() * 300.0;
        (wave + col as f64 * col as f64 * 0.9) as i16
    };
    for (name, mirrored) in [("plain", false), ("mirrored", true)] {
        let mut hu = Vec::with_capacity(geometry.voxels());
        for slice in 0..SLICES {
            for row in 0..SIDE {
                let col = |col| if mirrored { SIDE - 1 - col } else { col };
                hu.extend((0..SIDE).map(|c| value(slice, row, col(c))));
            }
        }
        let path = folder.join(format!("{name}.nii"));
        write_nifti_i16(&path, &geometry, &hu, Layout::Kaggle).unwrap();
    }
}

fn details(models: &Models, images: &Path, name: &str, flip: bool) -> StudyDetails {
    let request = Request {
        images,
        out: Path::new("out.csv"),
        details: None,
        flip,
    };
    let study = StudyUid::new(name).unwrap();
    let predicted = predict_study(models, request, &study).unwrap();
    let in_order = tables::LABELS.map(|label| predicted.details.probabilities[label]);
    assert_eq!(predicted.probabilities, in_order);
    predicted.details
}

/// Probabilities, then ratios and fractures along z.
fn numbers(details: &StudyDetails) -> Vec<f64> {
    let probabilities = details.probabilities.values().copied();
    let curves = details.curves.values();
    let curves = curves.flat_map(|curve| curve.ratio.iter().chain(&curve.fracture));
    probabilities
        .chain(curves.copied().map(f64::from))
        .collect()
}

fn boxes(details: &StudyDetails) -> Vec<f64> {
    let slices = details.slices.iter();
    slices
        .flat_map(|slice| slice.bounds.into_iter().chain([slice.has_box]))
        .map(f64::from)
        .collect()
}

#[track_caller]
fn assert_mean(mean: &[f64], a: &[f64], b: &[f64]) {
    assert_eq!((mean.len(), mean.len()), (a.len(), b.len()));
    assert!(!mean.is_empty());
    let apart = |a: &[f64], b: &[f64]| {
        let far = a.iter().zip(b).map(|(a, b)| (a - b).abs());
        far.fold(0.0, f64::max)
    };
    assert!(apart(a, b) > 1e-3, "both are the same: nothing is tested");
    let expected: Vec<f64> = a.iter().zip(b).map(|(a, b)| (a + b) / 2.0).collect();
    assert!(apart(mean, &expected) < 1e-6, "{mean:?}\n{expected:?}");
}

#[test]
fn a_prediction_is_the_mean_over_its_models() {
    let folder = tempfile::tempdir().unwrap();
    write_studies(folder.path());
    let recipe = recipe();
    let of = |localizers: &[i64], others: &[i64]| {
        let models = models(&recipe, localizers, others, true);
        details(&models, folder.path(), "plain", false)
    };
    let together = of(&[1, 2], &[3, 4]);
    assert_eq!(together.curves.len(), VERTEBRAE);
    assert!(
        together
            .curves
            .values()
            .all(|c| c.ratio.len() == SLICES && c.fracture.len() == SLICES)
    );
    let positions: Vec<f64> = together.slices.iter().map(|s| s.position_mm).collect();
    assert_eq!(positions[..3], [0.0, 2.5, 5.0]);
    // The boxes are the localizers' mean, and everybody after them sees that mean.
    assert_mean(
        &boxes(&together),
        &boxes(&of(&[1], &[3])),
        &boxes(&of(&[2], &[3])),
    );
    let (a, b) = (of(&[1, 2], &[3]), of(&[1, 2], &[4]));
    assert_mean(&numbers(&together), &numbers(&a), &numbers(&b));
}

#[test]
fn with_flips_it_is_the_mean_of_the_study_and_its_mirror_image() {
    let folder = tempfile::tempdir().unwrap();
    write_studies(folder.path());
    let recipe = recipe();
    // Where no vertebra is found, all models see the whole image, so that the two have the same crop.
    let models = models(&recipe, &[1], &[3, 4], false);
    let of = |name, flip| details(&models, folder.path(), name, flip);
    let (plain, mirrored, both) = (of("plain", false), of("mirrored", false), of("plain", true));
    assert_mean(&numbers(&both), &numbers(&plain), &numbers(&mirrored));
    let mut turned = mirrored;
    for slice in &mut turned.slices {
        let [x0, y0, x1, y1] = slice.bounds;
        slice.bounds = [1.0 - x1, y0, 1.0 - x0, y1];
    }
    assert_mean(&boxes(&both), &boxes(&plain), &boxes(&turned));
}

#[test]
fn a_run_without_slice_models_tells_no_curves() {
    let folder = tempfile::tempdir().unwrap();
    write_studies(folder.path());
    let recipe = recipe();
    let mut models = models(&recipe, &[1], &[3], true);
    models.slices.clear();
    let details = details(&models, folder.path(), "plain", false);
    assert!(
        details
            .curves
            .values()
            .all(|c| c.ratio.is_empty() && c.fracture.is_empty())
    );
    assert!(details.is_finite());
}

#[test]
fn a_box_comes_back_from_the_mirror_and_keeps_its_order() {
    let mut slice = LocatedSlice {
        study: StudyUid::new("1.2.3").unwrap(),
        slice_number: 1,
        bounds: [0.125, 0.25, 0.5, 0.75],
        has_box: 0.9,
        fold: None,
    };
    mirror_back(&mut slice);
    assert_eq!(slice.bounds, [0.5, 0.25, 0.875, 0.75]);
    mirror_back(&mut slice);
    assert_eq!(slice.bounds, [0.125, 0.25, 0.5, 0.75]);
}
