use std::cell::Cell;
use std::path::Path;

use checkpoint::{Checkpoint, Manifest, State};
use recipe::{Mode, Shards, Source};
use tch::{Device, Kind, Tensor};

use super::super::*;
use crate::execution::ExecutionConfig;
use crate::testing::{Small, on_ranks};

/// Samples of one update, on any number of ranks.
const BATCH: usize = 12;

/// Three updates an epoch.
struct Numbers;

impl Dataset for Numbers {
    type Sample = i64;

    fn len(&self) -> usize {
        3 * BATCH
    }

    fn bytes(&self, _: usize) -> usize {
        8
    }

    fn id(&self, index: usize) -> String {
        index.to_string()
    }

    fn load(&self, index: usize, _: u64) -> data::Result<i64> {
        Ok(index as i64)
    }
}

/// Draws every parameter of the small model to a number of each sample; each evaluation of an attempt is better than the one
/// before. Nothing is random: libtorch's generator is one for all ranks of a test.
struct Better {
    small: Small,
    data: Arc<Numbers>,
    evaluations: Cell<f64>,
}

impl Task for Better {
    type Data = Numbers;

    fn data(&self) -> &Arc<Numbers> {
        &self.data
    }

    fn loss(&self, samples: Vec<i64>) -> Result<Losses> {
        let mut total = Tensor::zeros([1], (Kind::Float, Device::Cpu));
        for (number, parameter) in (0..).zip(self.small.store.trainable_variables()) {
            for sample in &samples {
                let wanted = ((sample * 7 + number) as f64).sin();
                total += (&parameter - wanted).square().mean(Kind::Float);
            }
        }
        Ok(Losses {
            total: total.sum(Kind::Float),
            parts: Vec::new(),
            images: samples.len(),
        })
    }

    fn evaluate(&self, _: u64) -> Result<BTreeMap<String, f64>> {
        self.evaluations.set(self.evaluations.get() + 1.0);
        let value = self.evaluations.get();
        Ok(BTreeMap::from([("better".to_owned(), value)]))
    }
}

impl Better {
    /// With the same weights every time.
    fn new() -> Self {
        let small = Small::new();
        let _no_grad = tch::no_grad_guard();
        for (number, mut parameter) in (1..).zip(small.store.trainable_variables()) {
            let values = Tensor::arange(parameter.numel() as i64, (Kind::Float, Device::Cpu));
            let values = (values * f64::from(number))
                .sin()
                .view(&parameter.size()[..]);
            parameter.copy_(&values);
        }
        Better {
            small,
            data: Arc::new(Numbers),
            evaluations: Cell::default(),
        }
    }
}

/// Asks for a stop once an update is done.
struct StopAfter {
    stop: StopFlag,
    step: u64,
}

impl Report for StopAfter {
    fn report(&self, kind: EventKind) {
        if matches!(kind, EventKind::Step(record) if record.step == self.step) {
            self.stop.request();
        }
    }

    fn at(&self, _: Phase, _: u64, _: u64) {}
}

/// How each rank ended, and its weights.
type Course = Vec<((Ended, u64), Vec<(String, Vec<u8>)>)>;

/// Goes on, on so many ranks, until the update after `stop_after`.
fn go_on(root: &Path, shards: Shards, ranks: usize, stop_after: u64) -> Course {
    let recipe = Source {
        name: "recipe".into(),
        text: "data: {root: d, folds: 2}\nstage2: {training: {epochs: 4, evaluate_every: 1, batch: 12, micro_batch: 2}}"
            .into(),
    };
    let training = recipe::parse(&recipe, &[])
        .unwrap()
        .stage2
        .unwrap()
        .training;
    let place = CheckpointPlace {
        root: root.to_owned(),
        job: "job".into(),
        hash: "hash".into(),
        settings: Checkpointing {
            every: 2,
            keep_last: 99,
            keep_best: BTreeMap::from([("better".to_owned(), Mode::Max)]),
            shards,
            ..Checkpointing::default()
        },
        patience: Duration::from_secs(60),
    };
    on_ranks(ranks, |group| {
        let task = Better::new();
        let watch = StopAfter {
            stop: StopFlag::new(),
            step: stop_after,
        };
        let config = ExecutionConfig::plain(Device::Cpu);
        let ended = train(
            &task,
            &Setup {
                store: &task.small.store,
                group,
                training: &training,
                execution: &Execution::over_ranks(config, group),
                micro_batch: 2,
                accumulation: BATCH / 2 / ranks,
                seed: 1,
                workers: 1,
                prefetch: 1 << 20,
                checkpoints: &place,
                ledger: &root.with_extension("ledger"),
                replica_check: 2,
                histograms: false,
                resume: &Resume::Auto,
                report: &watch,
                stop: &watch.stop,
            },
        );
        (ended.unwrap(), task.small.bits())
    })
}

fn manifests(root: &Path) -> Vec<Manifest> {
    let entries = checkpoint::list(root).unwrap().into_iter();
    let manifests = entries.map(|entry| match entry.state {
        State::Complete(manifest) => manifest,
        State::Damaged(fault) => panic!("step {}: {fault}", entry.step),
    });
    manifests.collect()
}

fn contents(root: &Path) -> Vec<Checkpoint> {
    let entries = checkpoint::list(root).unwrap().into_iter();
    entries
        .map(|entry| checkpoint::read(&entry.path, Some("hash")).unwrap())
        .collect()
}

#[test]
fn with_shards_and_without_it_goes_on_over_two_three_and_one_ranks_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let [on, off] = ["on", "off"].map(|name| folder.path().join(name));
    for (ranks, stop_after, end) in [
        (2, 3, (Ended::Stopped, 4)),
        (3, 7, (Ended::Stopped, 8)),
        (1, 99, (Ended::Finished, 12)),
    ] {
        let with = go_on(&on, Shards::On, ranks, stop_after);
        assert_eq!(with, go_on(&off, Shards::Off, ranks, stop_after));
        for (ended, _) in with {
            assert_eq!(ended, end);
        }
        // A stop leaves a checkpoint of the last update, whole when the first rank is done.
        let newest = checkpoint::newest_valid_of(&on, "hash").unwrap().unwrap();
        assert_eq!((newest.step, newest.skipped.len()), (end.1, 0));
    }
    assert_eq!(contents(&on), contents(&off));
    let shards = |root: &Path| -> Vec<(u64, usize)> {
        let all = manifests(root).into_iter();
        all.map(|manifest| (manifest.step, manifest.shards))
            .collect()
    };
    // Every second update, and the first evaluation; those of later attempts are no better.
    let steps = [2, 3, 4, 6, 8, 10, 12];
    assert_eq!(shards(&off), steps.map(|step| (step, 1)));
    let expected = steps.map(|step| match step {
        ..=4 => (step, 2),
        5..=8 => (step, 3),
        _ => (step, 1),
    });
    assert_eq!(shards(&on), expected);
    let left = std::fs::read_dir(&on).unwrap().count();
    assert_eq!(left, steps.len(), "nothing half made stays");
}
