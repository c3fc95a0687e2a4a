use std::cell::RefCell;
use std::path::Path;

use event::{FailureClass, Phase};
use recipe::Checkpointing;

use super::*;
use crate::config::UpdateConfig;
use crate::restore::{sizes, snapshot};
use crate::step::Stepper;
use crate::testing::{Small, alone};

/// The steps of the checkpoints that were reported.
#[derive(Default)]
struct Reported(RefCell<Vec<u64>>);

impl Report for Reported {
    fn report(&self, kind: EventKind) {
        if let EventKind::CheckpointWritten { step, .. } = kind {
            self.0.borrow_mut().push(step);
        }
    }

    fn at(&self, _: Phase, _: u64, _: u64) {}
}

fn place(root: &Path, asynchronous: bool) -> CheckpointPlace {
    CheckpointPlace {
        root: root.to_owned(),
        job: "job".into(),
        hash: "hash".into(),
        patience: Duration::from_secs(60),
        settings: Checkpointing {
            asynchronous,
            ..Checkpointing::default()
        },
    }
}

fn write(writer: &mut CheckpointWriter, small: &Small, stepper: &Stepper, step: u64) -> Result<()> {
    let place = writer.place;
    let writers = writer.writers;
    writer.write(None, |memory| {
        snapshot(
            place,
            &small.store,
            stepper,
            writers,
            (step, 9, 9),
            (None, None),
            memory,
        )
    })
}

/// What is saved of `step`, read back.
fn read(place: &CheckpointPlace, step: u64) -> Checkpoint {
    checkpoint::read(&place.root.join(format!("step-{step:08}")), Some("hash")).unwrap()
}

#[test]
fn a_checkpoint_is_of_its_step_though_updates_go_on_meanwhile() {
    let (_store, group) = alone();
    for asynchronous in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path(), asynchronous);
        let reported = Reported::default();
        let writers = Writers::one(0, 1);
        let mut writer = CheckpointWriter::new(&place, &writers, &reported);
        let small = Small::new();
        let mut stepper = small.stepper(&UpdateConfig::default(), &group);
        writer.warm(sizes(&small.store, &stepper).unwrap());
        let mut expected = Vec::new();
        for step in 1..=4 {
            small.train(&mut stepper, step - 1..step);
            let at = (step, 9, 9);
            let copy = snapshot(
                &place,
                &small.store,
                &stepper,
                &writers,
                at,
                (None, None),
                Memory::default(),
            );
            expected.push(copy.unwrap());
            write(&mut writer, &small, &stepper, step).unwrap();
        }
        // In place, into the tensors whose copy may still be on its way to the disk.
        small.train(&mut stepper, 4..9);
        writer.wait().unwrap();
        assert_eq!(*reported.0.borrow(), [1, 2, 3, 4]);
        // The two that are kept; the fourth in the memory of the third.
        assert_eq!(read(&place, 3), expected[2]);
        assert_eq!(read(&place, 4), expected[3]);
        assert_ne!(expected[2].model, expected[3].model);
    }
}

#[test]
fn it_is_reported_when_it_is_durable_and_not_before() {
    let (_store, group) = alone();
    let folder = tempfile::tempdir().unwrap();
    let place = place(folder.path(), true);
    let reported = Reported::default();
    let small = Small::new();
    let stepper = small.stepper(&UpdateConfig::default(), &group);
    let writers = Writers::one(0, 1);
    let mut writer = CheckpointWriter::new(&place, &writers, &reported);
    write(&mut writer, &small, &stepper, 1).unwrap();
    assert!(reported.0.borrow().is_empty(), "nobody has looked yet");
    let patience = Instant::now() + Duration::from_secs(60);
    while reported.0.borrow().is_empty() {
        assert!(Instant::now() < patience, "it is never done");
        writer.poll().unwrap();
    }
    assert_eq!(read(&place, 1).step, 1);

    // A training that ends early waits for what is in flight.
    write(&mut writer, &small, &stepper, 2).unwrap();
    drop(writer);
    assert_eq!(*reported.0.borrow(), [1, 2]);
    assert_eq!(read(&place, 2).step, 2);
}

#[test]
fn a_write_that_fails_is_told_at_the_next_occasion() {
    let (_store, group) = alone();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let place = place(&file, true);
    let small = Small::new();
    let stepper = small.stepper(&UpdateConfig::default(), &group);
    let reported = Reported::default();
    let writers = Writers::one(0, 1);
    let mut writer = CheckpointWriter::new(&place, &writers, &reported);

    write(&mut writer, &small, &stepper, 1).unwrap();
    let error = writer.wait().unwrap_err();
    assert_eq!(error.class(), FailureClass::Disk, "{error}");
    assert!(
        error.to_string().contains("checkpoint of step 1"),
        "{error}"
    );

    write(&mut writer, &small, &stepper, 2).unwrap();
    let error = write(&mut writer, &small, &stepper, 3).unwrap_err();
    assert!(
        error.to_string().contains("checkpoint of step 2"),
        "{error}"
    );
    assert!(writer.wait().is_ok(), "nothing is in flight");
    assert!(reported.0.borrow().is_empty());
}
