use std::path::Path;
use std::time::Duration;

use checkpoint::TensorData;
use collective::kernels::ScaleGrowth;
use recipe::Checkpointing;

use super::*;
use crate::config::UpdateConfig;
use crate::groups::Grouping;
use crate::optimizer::Rule;
use crate::scaler::LossScaling;
use crate::testing::{Silent, Small, alone};

const RULES: [Rule; 4] = [
    Rule::AdamW,
    Rule::Lamb,
    Rule::Sgd { momentum: 0.9 },
    Rule::Sgd { momentum: 0.0 },
];

/// Everything that has a state.
fn config(rule: Rule) -> UpdateConfig {
    UpdateConfig {
        rule,
        grouping: Grouping {
            weight_decay: 0.1,
            decay_all: false,
            backbone_rate: 0.5,
        },
        clip_norm: Some(0.2),
        loss_scaling: Some(LossScaling {
            initial: 4.0,
            growth: ScaleGrowth {
                interval: 2,
                ..ScaleGrowth::default()
            },
        }),
        ema: Some(0.8),
        ..UpdateConfig::default()
    }
}

fn place(root: &Path) -> CheckpointPlace {
    CheckpointPlace {
        root: root.to_owned(),
        job: "job".into(),
        hash: "hash".into(),
        patience: Duration::from_secs(60),
        settings: Checkpointing::default(),
    }
}

/// Writes the state after `at`'s first number of updates.
fn save(place: &CheckpointPlace, small: &Small, stepper: &Stepper, at: (u64, u64, u64)) {
    let kept = (Some("ab".to_owned()), None);
    let memory = Memory::default();
    let copy = snapshot(
        place,
        &small.store,
        stepper,
        &Writers::one(0, 1),
        at,
        kept,
        memory,
    )
    .unwrap();
    checkpoint::write(&place.root, &copy).unwrap();
}

#[test]
fn every_rule_goes_on_from_a_checkpoint_to_the_bit() {
    let (_store, group) = alone();
    for rule in RULES {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        let config = config(rule);

        let undisturbed = Small::new();
        let mut stepper = undisturbed.stepper(&config, &group);
        undisturbed.train(&mut stepper, 0..3);
        save(&place, &undisturbed, &stepper, (3, 7, 7));
        let losses = undisturbed.train(&mut stepper, 3..7);
        let scale = stepper.scaler.as_ref().unwrap().state().unwrap();
        stepper.finish().unwrap();

        let resumed = Small::new();
        let mut stepper = resumed.stepper(&config, &group);
        let resume = Resume::Auto;
        let step = restore(
            &place,
            &resume,
            &resumed.store,
            &mut stepper,
            &group,
            &Silent,
            (7, 7),
        );
        let ledger = Some("ab".to_owned());
        let expected = Restored {
            step: 3,
            ledger,
            best: None,
        };
        assert_eq!(step.unwrap(), expected);
        let again = resumed.train(&mut stepper, 3..7);
        assert_eq!(stepper.scaler.as_ref().unwrap().state().unwrap(), scale);
        stepper.finish().unwrap();

        let loss = |outcomes: &[crate::Outcome]| -> Vec<(f64, f64)> {
            outcomes.iter().map(|o| (o.loss, o.gradient_norm)).collect()
        };
        assert_eq!(loss(&again), loss(&losses), "{rule:?}");
        assert_eq!(resumed.bits(), undisturbed.bits(), "{rule:?}");
    }
}

#[test]
fn a_checkpoints_model_is_the_average() {
    let (_store, group) = alone();
    let folder = tempfile::tempdir().unwrap();
    let place = place(folder.path());
    let small = Small::new();
    let mut stepper = small.stepper(&config(Rule::AdamW), &group);
    small.train(&mut stepper, 0..2);
    save(&place, &small, &stepper, (2, 2, 2));
    let saved = checkpoint::read(&place.root.join("step-00000002"), None).unwrap();

    let of = |tensors: &[TensorData], name: &str| {
        let tensor = tensors.iter().find(|tensor| tensor.name == name);
        tensor.unwrap_or_else(|| panic!("no {name}")).bytes.clone()
    };
    let raw = small.bits();
    let raw = |name: &str| raw.iter().find(|(n, _)| n == name).unwrap().1.clone();
    let name = "backbone.conv.weight";
    assert_eq!(of(&saved.optimizer, &format!("raw.{name}")), raw(name));
    assert_ne!(of(&saved.model, name), raw(name));
    // Statistics are not averaged twice.
    let name = "backbone.bn.running_mean";
    assert_eq!(of(&saved.model, name), raw(name));

    stepper.finish().unwrap();
    let averaged = small.bits();
    assert_eq!(
        saved.model.iter().map(|t| &t.bytes).collect::<Vec<_>>(),
        averaged.iter().map(|(_, bytes)| bytes).collect::<Vec<_>>(),
        "what a training leaves in the store is what it wrote"
    );
}

#[test]
fn another_optimizers_state_is_refused_by_name() {
    let (_store, group) = alone();
    let folder = tempfile::tempdir().unwrap();
    let place = place(folder.path());
    let small = Small::new();
    let plain = UpdateConfig::default();
    save(&place, &small, &small.stepper(&plain, &group), (0, 2, 2));
    let sgd = UpdateConfig {
        rule: Rule::Sgd { momentum: 0.9 },
        ..UpdateConfig::default()
    };
    let error = restore(
        &place,
        &Resume::Auto,
        &small.store,
        &mut small.stepper(&sgd, &group),
        &group,
        &Silent,
        (2, 2),
    );
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("momentum_buffer.backbone.conv.weight"),
        "{error}"
    );
    assert!(error.contains("exp_avg.backbone.bn.bias"), "{error}");
}
