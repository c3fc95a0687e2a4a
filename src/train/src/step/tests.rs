use collective::kernels::ScaleGrowth;
use tch::Kind;

use super::*;
use crate::groups::Grouping;
use crate::optimizer::Rule;
use crate::scaler::LossScaling;
use crate::testing::{Small, alone};

fn scaled(initial: f64) -> UpdateConfig {
    UpdateConfig {
        loss_scaling: Some(LossScaling {
            initial,
            growth: ScaleGrowth::default(),
        }),
        ..UpdateConfig::default()
    }
}

#[test]
fn two_micro_batches_are_the_mean_of_their_gradients() {
    let (_store, group) = alone();
    let small = Small::new();
    let losses: Vec<Losses> = [1, 2].map(|batch| small.loss(batch)).into();
    let sum = &losses[0].total + &losses[1].total;
    let head = small.variable("head.weight");
    let gradient = Tensor::run_backward(&[&sum], &[&head], false, false);
    let gradient = gradient[0].to_kind(Kind::Double) / 2.0;
    let before = head.detach().copy().to_kind(Kind::Double);

    let small = Small::new();
    let config = UpdateConfig {
        rule: Rule::Sgd { momentum: 0.0 },
        grouping: Grouping {
            weight_decay: 0.0,
            decay_all: true,
            backbone_rate: 1.0,
        },
        ..UpdateConfig::default()
    };
    let outcome = &small.train(&mut small.stepper(&config, &group), 0..1)[0];
    let expected = before - gradient * 0.05;
    let after = small.variable("head.weight").detach();
    assert!(
        (after.to_kind(Kind::Double) - expected)
            .abs()
            .max()
            .double_value(&[])
            < 1e-7
    );
    assert!((outcome.loss - sum.double_value(&[]) / 2.0).abs() < 1e-7);
    assert_eq!((outcome.images, outcome.skipped), (10, false));
}

#[test]
fn a_backbone_with_rate_0_stays() {
    let (_store, group) = alone();
    let small = Small::new();
    let before = small.bits();
    let config = UpdateConfig {
        grouping: Grouping {
            weight_decay: 0.1,
            decay_all: false,
            backbone_rate: 0.0,
        },
        ..UpdateConfig::default()
    };
    small.train(&mut small.stepper(&config, &group), 0..2);
    for ((name, old), (_, new)) in before.iter().zip(&small.bits()) {
        let moves = name.starts_with("head.") || name.contains("running");
        assert_eq!(old != new, moves, "{name}");
    }
}

/// A power of two as the scale changes exponents only.
#[test]
fn a_loss_scale_changes_no_bit() {
    let (_store, group) = alone();
    let (plain, lifted) = (Small::new(), Small::new());
    plain.train(&mut plain.stepper(&UpdateConfig::default(), &group), 0..3);
    let outcomes = lifted.train(&mut lifted.stepper(&scaled(1024.0), &group), 0..3);
    assert_eq!(lifted.bits(), plain.bits());
    assert_eq!(outcomes[2].loss_scale, Some(1024.0));
}

#[test]
fn an_infinite_gradient_leaves_the_update_out() {
    let (_store, group) = alone();
    let small = Small::new();
    let before = small.bits();
    let mut stepper = small.stepper(&scaled(65_536.0), &group);
    let forward = |batch| {
        let losses = small.loss(batch);
        // The root's slope at 0 is infinite, its value is not.
        let root = (small.variable("head.bias") * 0.0).sqrt().sum(None);
        Ok(Losses {
            total: losses.total + root,
            ..losses
        })
    };
    let outcome = stepper
        .update(0, 0.1, 1, || Ok(1.into()), forward, false)
        .unwrap();
    assert!(outcome.skipped && !outcome.gradient_norm.is_finite());
    assert!(
        outcome.loss.is_finite(),
        "the loss itself is none the worse"
    );
    let moved = |name: &str, before: &[(String, Vec<u8>)]| {
        before.iter().find(|(n, _)| n == name) != small.bits().iter().find(|(n, _)| n == name)
    };
    assert!(!moved("head.weight", &before));
    assert!(
        moved("backbone.bn.running_mean", &before),
        "finite: they stay"
    );
    assert!(
        stepper.optimizer.tensors(&stepper.parameters)["step.head.weight"].double_value(&[]) == 0.0
    );
    let scale = stepper.scaler.as_ref().unwrap().scale().unwrap();
    assert_eq!((outcome.loss_scale, scale), (Some(65_536.0), 32_768.0));
}

#[test]
fn a_loss_that_is_not_finite_ends_a_training_in_f32() {
    let (_store, group) = alone();
    let small = Small::new();
    let mut stepper = small.stepper(&UpdateConfig::default(), &group);
    let load = || Ok(().into());
    let forward = |()| {
        let losses = small.loss(1);
        Ok(Losses {
            total: losses.total * f64::NAN,
            ..losses
        })
    };
    let error = stepper.update(4, 0.1, 1, load, forward, false).unwrap_err();
    assert!(matches!(
        error,
        TrainError::NotFinite {
            step: 5,
            what: "loss",
            ..
        }
    ));
}

#[test]
fn an_evaluation_sees_the_average_and_the_training_does_not() {
    let (_store, group) = alone();
    let small = Small::new();
    let config = UpdateConfig {
        ema: Some(0.9),
        ..UpdateConfig::default()
    };
    let mut stepper = small.stepper(&config, &group);
    small.train(&mut stepper, 0..2);
    let raw = small.bits();
    let seen = stepper.averaged(|| Ok(small.bits())).unwrap();
    assert_ne!(seen, raw);
    assert_eq!(small.bits(), raw);
    let failed = stepper.averaged(|| -> Result<()> { Err(TrainError::Tables("no".into())) });
    assert!(failed.is_err());
    assert_eq!(small.bits(), raw, "also where the evaluation fails");
    stepper.finish().unwrap();
    assert_eq!(small.bits(), seen);
}

#[test]
fn channels_last_is_the_same_update() {
    let (_store, group) = alone();
    let (plain, strided) = (Small::new(), Small::new());
    kernels::channels_last(&[strided.variable("backbone.conv.weight")]).unwrap();
    let config = UpdateConfig {
        ema: Some(0.5),
        ..UpdateConfig::default()
    };
    for small in [&plain, &strided] {
        let mut stepper = small.stepper(&config, &group);
        small.train(&mut stepper, 0..3);
        stepper.finish().unwrap();
    }
    let (a, b) = (
        plain.variable("backbone.conv.weight"),
        strided.variable("backbone.conv.weight"),
    );
    assert_ne!(a.stride(), b.stride());
    assert!((a - b).abs().max().double_value(&[]) < 1e-6);
}
