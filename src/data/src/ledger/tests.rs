use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::sampler::{epoch_order, rank_share};

const SEED: u64 = 5;
const SAMPLES: usize = 26;
const BATCH: usize = 6;
const PER_EPOCH: u64 = 4;
const TOTAL: u64 = 8;

fn segment(world_size: usize, after: u64) -> Segment {
    Segment {
        job: "plan".into(),
        seed: SEED,
        world_size,
        batch: BATCH,
        after,
        updates_per_epoch: PER_EPOCH,
        total_updates: TOTAL,
        samples: (0..SAMPLES).map(|i| format!("1.2.{i}")).collect(),
    }
}

/// What so many ranks load for update `step`.
fn ranks(world_size: usize, step: u64) -> Vec<Vec<usize>> {
    let order = epoch_order(SEED, (step - 1) / PER_EPOCH, SAMPLES);
    let update = ((step - 1) % PER_EPOCH) as usize;
    (0..world_size)
        .map(|rank| rank_share(&order, update, BATCH, rank, world_size))
        .collect()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("ledger.jsonl")
    }

    /// An attempt of so many ranks from `after` to `last`; the chain before it, and the hash after each update.
    fn attempt(&self, world_size: usize, after: u64, last: u64) -> (Chain, Vec<Mark>) {
        let (mut writer, chain) = Writer::open(&self.path(), segment(world_size, after)).unwrap();
        let marks = (after + 1..=last).map(|step| {
            writer.update(step, ranks(world_size, step)).unwrap();
            let ledger = Some(writer.sync().unwrap().to_owned());
            Mark { step, ledger }
        });
        (chain, marks.collect())
    }

    /// Writes records as they are.
    fn records(&self, records: &[Record]) {
        let mut head = BEGINNING.to_owned();
        let mut text = String::new();
        for record in records {
            let (line, hash) = chain::line(&head, record).unwrap();
            text.push_str(&line);
            head = hash;
        }
        fs::write(self.path(), text).unwrap();
    }

    fn audit(&self, marks: &[Mark]) -> Audit {
        audit(&Chain::read(&self.path()).unwrap(), &expected(true), marks)
    }
}

fn expected(finished: bool) -> Expected {
    Expected {
        job: "plan".into(),
        batch: BATCH,
        epochs: 2,
        finished,
    }
}

/// A finished job's records, of one rank.
fn records() -> Vec<Record> {
    let updates = (1..=TOTAL).map(|step| {
        let ranks = ranks(1, step);
        Record::Update(Update { step, ranks })
    });
    std::iter::once(Record::Segment(segment(1, 0)))
        .chain(updates)
        .collect()
}

fn of(records: &mut [Record], step: u64) -> &mut Vec<Vec<usize>> {
    let found = records.iter_mut().find_map(|record| match record {
        Record::Update(update) if update.step == step => Some(&mut update.ranks),
        _ => None,
    });
    found.unwrap()
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<String>)) {
    let text = fs::read_to_string(path).unwrap();
    let mut lines: Vec<String> = text.lines().map(|line| format!("{line}\n")).collect();
    change(&mut lines);
    fs::write(path, lines.concat()).unwrap();
}

#[test]
fn a_job_on_two_then_one_then_three_ranks_is_proved() {
    let folder = Folder::new();
    let (_, first) = folder.attempt(2, 0, 5);
    // Killed at 5, goes on from 3: 4 and 5 are void.
    folder.attempt(1, 3, 6);
    let (before, last) = folder.attempt(3, 6, TOTAL);
    assert!(before.find(3, first[2].ledger.as_ref().unwrap()).is_some());
    assert!(before.find(4, first[2].ledger.as_ref().unwrap()).is_none());

    let marks = [&first[2..3], &last[1..]].concat();
    let audit = folder.audit(&marks);
    assert_eq!(audit.faults, []);
    let counts = (audit.proved, audit.total, audit.epochs, audit.voided);
    assert_eq!(counts, (8, 8, 2, 2));
    assert_eq!((audit.dropped, audit.bound), (2, 2));
    assert_eq!(audit.world_sizes, [2, 1, 3]);
}

#[test]
fn a_job_of_another_plan_before_it_counts_for_nothing() {
    let folder = Folder::new();
    let other = Segment {
        job: "another".into(),
        seed: 99,
        ..segment(2, 0)
    };
    let (mut writer, _) = Writer::open(&folder.path(), other).unwrap();
    writer.update(1, vec![vec![0; 3]; 2]).unwrap();
    drop(writer);
    folder.attempt(1, 0, TOTAL);
    assert_eq!(folder.audit(&[]).faults, []);
    // But a job does not go on from it.
    let folder = Folder::new();
    let (mut writer, _) = Writer::open(
        &folder.path(),
        Segment {
            job: "another".into(),
            ..segment(1, 0)
        },
    )
    .unwrap();
    for step in 1..=3 {
        writer.update(step, ranks(1, step)).unwrap();
    }
    drop(writer);
    folder.attempt(1, 3, TOTAL);
    let audit = folder.audit(&[]);
    assert!(matches!(
        audit.faults.as_slice(),
        [Fault::Segment {
            line: 1,
            what: "plan",
            ..
        }]
    ));
    assert_eq!(audit.proved, 0);
}

#[test]
fn a_missing_update_is_named() {
    let folder = Folder::new();
    let mut all = records();
    all.remove(3);
    folder.records(&all);
    let audit = folder.audit(&[]);
    assert!(
        audit.faults.contains(&Fault::Missing { first: 3, last: 3 }),
        "{audit:?}"
    );
    assert_eq!((audit.proved, audit.epochs), (2, 1));

    // So is the end of a finished job; of an unfinished one it is merely not there yet.
    all.truncate(6);
    folder.records(&records()[..6]);
    let unfinished = Fault::Unfinished { last: 5, total: 8 };
    assert_eq!(folder.audit(&[]).faults, [unfinished]);
    let chain = Chain::read(&folder.path()).unwrap();
    let so_far = super::audit(&chain, &expected(false), &[]);
    assert!(so_far.is_clean());
    assert_eq!((so_far.proved, so_far.epochs), (5, 1));
}

#[test]
fn a_repeated_sample_is_named_with_its_epoch_and_updates() {
    let folder = Folder::new();
    let mut all = records();
    let (twice, instead) = (ranks(1, 5)[0][2], ranks(1, 7)[0][0]);
    of(&mut all, 7)[0][0] = twice;
    folder.records(&all);
    let audit = folder.audit(&[]);
    let repeated = Fault::Repeated {
        line: 8,
        id: format!("1.2.{twice}"),
        epoch: 1,
        first: 5,
        step: 7,
    };
    assert!(audit.faults.contains(&repeated), "{audit:?}");
    let id = format!("1.2.{instead}");
    assert!(
        audit.faults.contains(&Fault::LeftOut { epoch: 1, id }),
        "{audit:?}"
    );
    assert_eq!(audit.proved, 6);
}

#[test]
fn a_swapped_order_is_named_with_what_belongs_there() {
    let folder = Folder::new();
    let mut all = records();
    let (a, b) = (ranks(1, 2)[0][1], ranks(1, 2)[0][4]);
    of(&mut all, 2)[0].swap(1, 4);
    folder.records(&all);
    let order = Fault::Order {
        line: 3,
        step: 2,
        epoch: 0,
        rank: 0,
        world_size: 1,
        place: 1,
        found: format!("1.2.{b}"),
        expected: format!("1.2.{a}"),
    };
    assert_eq!(folder.audit(&[]).faults, [order]);

    // Right samples on the wrong number of ranks.
    let mut all = records();
    *of(&mut all, 2) = ranks(2, 2);
    folder.records(&all);
    assert!(matches!(
        folder.audit(&[]).faults.as_slice(),
        [Fault::Ranks {
            line: 3,
            step: 2,
            found: 2,
            expected: 1
        }]
    ));
    let mut all = records();
    of(&mut all, 2)[0][0] = SAMPLES;
    folder.records(&all);
    let outside = |fault: &Fault| matches!(fault, Fault::NoSuchSample { step: 2, .. });
    assert!(folder.audit(&[]).faults.iter().any(outside));
}

#[test]
fn a_changed_line_breaks_the_chain_at_its_place() {
    let folder = Folder::new();
    let (_, marks) = folder.attempt(1, 0, TOTAL);
    assert!(folder.audit(&marks).is_clean());
    let whole = fs::read(folder.path()).unwrap();

    edit(&folder.path(), |lines| {
        lines[4] = lines[4].replace("\"step\":4", "\"step\": 4");
    });
    let audit = folder.audit(&marks);
    let [Fault::Broken(broken)] = audit.faults.as_slice() else {
        panic!("{audit:?}")
    };
    assert_eq!((broken.line(), audit.proved), (5, 3));

    // Taken out.
    fs::write(folder.path(), &whole).unwrap();
    edit(&folder.path(), |lines| {
        lines.remove(4);
    });
    let audit = folder.audit(&marks);
    assert!(matches!(
        &audit.faults[0],
        Fault::Broken(Break::Hash { line: 5, .. })
    ));
    assert!(audit.faults.contains(&Fault::Missing { first: 4, last: 4 }));
    let unbound = |fault: &Fault| matches!(fault, Fault::Unbound { step: 4, .. });
    assert!(audit.faults.iter().any(unbound));

    // Not a record at all.
    fs::write(folder.path(), &whole).unwrap();
    edit(&folder.path(), |lines| lines[2] = "\u{0}\n".into());
    assert!(matches!(
        &folder.audit(&[]).faults[0],
        Fault::Broken(Break::Form { line: 3, .. })
    ));

    // Forged as a whole: the chain is intact, and the checkpoints tell.
    let mut all = records();
    all[0] = Record::Segment(Segment {
        samples: (0..SAMPLES).map(|i| format!("9.9.{i}")).collect(),
        ..segment(1, 0)
    });
    folder.records(&all);
    assert!(folder.audit(&[]).is_clean());
    let unbound = |fault: &Fault| matches!(fault, Fault::Unbound { .. });
    assert!(folder.audit(&marks).faults.iter().all(unbound));
    assert_eq!(folder.audit(&marks).faults.len(), 8);
}

#[test]
fn a_line_that_was_never_finished_is_cut_off_at_the_next_opening() {
    let folder = Folder::new();
    folder.attempt(1, 0, 4);
    let whole = fs::read(folder.path()).unwrap();
    for cut in [1, 40, 90] {
        fs::write(folder.path(), &whole[..whole.len() - cut]).unwrap();
        let chain = Chain::read(&folder.path()).unwrap();
        assert!(chain.torn > 0 && chain.breaks.is_empty());
        assert_eq!(chain.lines.len(), 4);
    }
    folder.attempt(1, 2, TOTAL);
    let audit = folder.audit(&[]);
    assert_eq!(audit.faults, []);
    // Update 3 was whole and is done anew; 4 was torn.
    assert_eq!((audit.proved, audit.voided, audit.torn), (8, 1, 0));
}

#[test]
fn a_ledger_that_begins_in_the_middle_says_what_it_does_not_prove() {
    let folder = Folder::new();
    folder.attempt(1, 3, TOTAL);
    let marks = [Mark {
        step: 3,
        ledger: None,
    }];
    let audit = folder.audit(&marks);
    let missing = Fault::Missing { first: 1, last: 3 };
    assert_eq!(audit.faults, [missing, Fault::NoMark { step: 3 }]);
    assert_eq!(audit.proved, 0);
    fs::write(folder.path(), "").unwrap();
    assert_eq!(folder.audit(&[]).faults, [Fault::Empty]);
}
