use std::cell::Cell;
use std::path::Path;

use data::ledger::{Chain, Expected, Mark, audit};
use recipe::Source;
use tch::Device;

use super::super::*;
use crate::execution::ExecutionConfig;
use crate::testing::{Silent, Small, on_ranks};

/// Numbers as samples.
struct Numbers;

impl Dataset for Numbers {
    type Sample = usize;

    fn len(&self) -> usize {
        18
    }

    fn bytes(&self, _: usize) -> usize {
        8
    }

    fn id(&self, index: usize) -> String {
        format!("number {index}")
    }

    fn load(&self, index: usize, _: u64) -> data::Result<usize> {
        Ok(index)
    }
}

/// Learns from numbers; a bit of a weight flips in the update of this number.
struct Flips<'a> {
    small: &'a Small,
    data: Arc<Numbers>,
    updates: Cell<u64>,
    at: Option<u64>,
}

impl Task for Flips<'_> {
    type Data = Numbers;

    fn data(&self) -> &Arc<Numbers> {
        &self.data
    }

    fn loss(&self, samples: Vec<usize>) -> Result<Losses> {
        self.updates.set(self.updates.get() + 1);
        if self.at == Some(self.updates.get()) {
            self.small.flip_bit("backbone.conv.weight", 5);
        }
        Ok(self.small.loss(samples[0] as i64))
    }

    fn evaluate(&self, _: u64) -> Result<BTreeMap<String, f64>> {
        Ok(BTreeMap::new())
    }
}

fn training() -> Training {
    let source = Source {
        name: "test".into(),
        text: "device: cpu\ndata: {root: d}\nstage1a: {training: {epochs: 2, batch: 4, micro_batch: 2}}".into(),
    };
    recipe::parse(&source, &[])
        .unwrap()
        .stage1a
        .unwrap()
        .training
}

/// Trains on two ranks; on rank 1 a bit flips. What each rank came to.
fn train_with_a_flip(
    folder: &Path,
    at: Option<u64>,
    replica_check: u64,
) -> Vec<Result<(Ended, u64)>> {
    on_ranks(2, |group| {
        let training = training();
        let small = Small::new();
        let config = ExecutionConfig::of(&training.numerics, &training.arch, Device::Cpu).unwrap();
        let task = Flips {
            small: &small,
            data: Arc::new(Numbers),
            updates: Cell::new(0),
            at: at.filter(|_| group.rank() == 1),
        };
        let setup = Setup {
            store: &small.store,
            group,
            training: &training,
            execution: &Execution::over_ranks(config, group),
            micro_batch: 2,
            accumulation: 1,
            seed: 3,
            workers: 1,
            prefetch: 100,
            checkpoints: &CheckpointPlace {
                root: folder.join("checkpoints"),
                job: "job".into(),
                hash: "hash".into(),
                patience: Duration::from_secs(60),
                settings: Checkpointing {
                    every: 3,
                    keep_last: 9,
                    ..Checkpointing::default()
                },
            },
            ledger: &folder.join("ledger.jsonl"),
            replica_check,
            histograms: false,
            resume: &Resume::Auto,
            report: &Silent,
            stop: &StopFlag::new(),
        };
        train(&task, &setup)
    })
}

/// What the ledger proves, and the steps of the checkpoints.
fn proved(folder: &Path, finished: bool) -> (data::ledger::Audit, Vec<u64>) {
    let checkpoints = checkpoint::list(&folder.join("checkpoints")).unwrap();
    let marks: Vec<Mark> = checkpoints
        .iter()
        .map(|entry| Mark {
            step: entry.step,
            ledger: checkpoint::read_trainer(&entry.path).unwrap()["ledger"]
                .as_str()
                .map(str::to_owned),
        })
        .collect();
    let chain = Chain::read(&folder.join("ledger.jsonl")).unwrap();
    let expected = Expected {
        job: "hash".into(),
        batch: 4,
        epochs: 2,
        finished,
    };
    let steps = marks.iter().map(|mark| mark.step).collect();
    (audit(&chain, &expected, &marks), steps)
}

#[test]
fn a_bit_that_flips_on_one_rank_ends_the_training_before_a_checkpoint_holds_it() {
    for (replica_check, noticed) in [(1, 5), (100, 6)] {
        let folder = tempfile::tempdir().unwrap();
        for ended in train_with_a_flip(folder.path(), Some(5), replica_check) {
            let Err(TrainError::Replicas { step, variable, .. }) = &ended else {
                panic!("{ended:?}")
            };
            assert_eq!(*step, noticed);
            // The averaged gradient moves all ranks alike: only what flipped differs.
            assert_eq!(variable, "backbone.conv.weight");
        }
        let (audit, steps) = proved(folder.path(), false);
        assert_eq!(steps, [3], "the last good one");
        assert_eq!(audit.faults, []);
        assert_eq!((audit.proved, audit.total, audit.bound), (noticed, 8, 1));

        // The next attempt, on sound machines, goes on from there and is proved to its end.
        for ended in train_with_a_flip(folder.path(), None, replica_check) {
            assert_eq!(ended.unwrap(), (Ended::Finished, 8));
        }
        let (audit, steps) = proved(folder.path(), true);
        assert_eq!(steps, [3, 6, 8]);
        assert_eq!(audit.faults, []);
        assert_eq!((audit.proved, audit.voided), (8, noticed as usize - 3));
        assert_eq!((audit.epochs, audit.dropped, audit.bound), (2, 2, 3));
    }
}
