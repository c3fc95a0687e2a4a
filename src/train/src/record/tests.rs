use std::cell::RefCell;

use event::{FailureClass, Phase};

use super::*;
use crate::testing::{Silent, alone};

/// Keeps the warnings.
#[derive(Default)]
struct Warnings(RefCell<Vec<String>>);

impl Report for Warnings {
    fn report(&self, kind: EventKind) {
        if let EventKind::Warning { message } = kind {
            self.0.borrow_mut().push(message);
        }
    }

    fn at(&self, _: Phase, _: u64, _: u64) {}
}

fn segment(after: u64) -> Segment {
    Segment {
        job: "hash".into(),
        seed: 1,
        world_size: 1,
        batch: 2,
        after,
        updates_per_epoch: 2,
        total_updates: 4,
        samples: ["a", "b", "c", "d"].map(String::from).to_vec(),
    }
}

#[test]
fn a_checkpoint_that_the_ledger_does_not_know_is_told_and_trained_on() {
    let (_store, group) = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.jsonl");
    let warnings = Warnings::default();
    let begin = |restored: &Restored| {
        let after = restored.step;
        Record::begin(&path, &group, restored, &warnings, || segment(after)).unwrap()
    };
    let mut record = begin(&Restored::default());
    record.update(1, vec![vec![0, 1]]).unwrap();
    let ledger = record.seal().unwrap();
    assert!(ledger.is_some());
    drop(record);
    let known = Restored {
        step: 1,
        ledger,
        best: None,
    };
    drop(begin(&known));
    assert_eq!(warnings.0.borrow().len(), 0);

    for unknown in [
        Restored { step: 2, ..known },
        Restored {
            step: 1,
            ledger: Some("ab".repeat(32)),
            best: None,
        },
        Restored {
            step: 1,
            ledger: None,
            best: None,
        },
    ] {
        warnings.0.borrow_mut().clear();
        begin(&unknown)
            .update(unknown.step + 1, vec![vec![2, 3]])
            .unwrap();
        let said = warnings.0.borrow();
        assert_eq!(said.len(), 1);
        assert!(
            said[0].contains(&format!("from update {}", unknown.step)),
            "{said:?}"
        );
        assert!(said[0].contains("spinectl audit"), "{said:?}");
    }
}

#[test]
fn a_ledger_that_cannot_be_written_is_the_disks_fault() {
    let (_store, group) = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nowhere/ledger.jsonl");
    let begun = Record::begin(&path, &group, &Restored::default(), &Silent, || segment(0));
    let error = begun.err().unwrap();
    assert_eq!(error.class(), FailureClass::Disk);
    assert!(
        error.to_string().contains("nowhere/ledger.jsonl"),
        "{error}"
    );
}
