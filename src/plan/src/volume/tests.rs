use recipe::{Source, parse};

use super::*;
use crate::{Files, Inputs, Part, compile_with};

fn plan(inputs: Option<Inputs>) -> Plan {
    let text = "data: {root: d, folds: 2}\nstage1a: {training: {arch: resnest50d, epochs: 2, evaluate_every: 1}}\nstage1b: {training: {arch: resnest50d}}\nstage2: {training: {arch: resnest50d, epochs: 3, evaluate_every: 3}, sequence: {images: 32, grid: 12}}\nstage3: {training: {arch: resnest50d}}\n";
    let source = Source {
        name: "r".into(),
        text: text.into(),
    };
    let files = Files {
        inputs,
        ..Files::default()
    };
    compile_with(&parse(&source, &[]).unwrap(), &files).unwrap()
}

fn part(fold: u64, studies: u64, segmented: u64) -> Part {
    Part {
        fold: Some(fold),
        studies,
        slices: studies * 192,
        segmented,
        segmented_slices: segmented * 192,
        ..Part::default()
    }
}

#[test]
fn what_a_job_takes_through_its_network_follows_from_the_data_set() {
    let plan = plan(Some(Inputs {
        labels: String::new(),
        parts: vec![part(0, 10, 2), part(1, 20, 3)],
    }));
    let of = |job: &str| volume(&plan, &plan.job(job).unwrap().kind);
    // Fold 1 holds 20 studies out, 3 of them segmented, and learns from the 2 of fold 0, twice.
    let localizer = of("stage1a-resnest50d-fold1-seed0");
    assert_eq!(localizer.trained, 2.0 * 2.0 * 192.0);
    assert_eq!(localizer.inferred, 20.0 * 192.0 + 2.0 * 3.0 * 192.0);
    // (192 - 96) / 12 + 1 windows of 32 images in training, (192 - 96) / 16 + 1 in inference: the table and one evaluation.
    let slices = of("stage2-resnest50d-fold0-seed0");
    assert_eq!(slices.samples, 3.0 * 20.0 * 9.0);
    assert_eq!(slices.trained, slices.samples * 32.0);
    assert_eq!(slices.inferred, 2.0 * 10.0 * 7.0 * 32.0);
    assert_eq!(of("stage3-resnest50d-fold0-seed0").inferred, 30.0 * 64.0);
    assert_eq!(of("summary"), Volume::default());
}

#[test]
fn without_a_data_set_it_is_the_competitions() {
    let plan = plan(None);
    let kind = &plan.job("stage2-resnest50d-fold0-seed0").unwrap().kind;
    // Half of 2,019 studies of 300 slices, 18 windows of 32 images each, 3 epochs.
    let trained = volume(&plan, kind).trained;
    assert!(
        (trained - 2019.0 / 2.0 * 18.0 * 32.0 * 3.0).abs() < 1.0,
        "{trained}"
    );
    // resnest50d at 512 pixels: 56.4 GFLOP, and its LSTM's weights once.
    let (update, forward) = flops_per_image(kind);
    assert!((forward / 1e9 - 56.57).abs() < 0.1, "{forward}");
    assert_eq!(update, 3.0 * forward);
}
