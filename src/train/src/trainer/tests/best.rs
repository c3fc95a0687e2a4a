use std::cell::RefCell;
use std::path::Path;

use event::FailureClass;
use recipe::{Mode, Source};
use tch::Device;

use super::super::*;
use crate::execution::ExecutionConfig;
use crate::testing::{Small, alone};

/// Four samples; an epoch of two updates.
struct Numbers;

impl Dataset for Numbers {
    type Sample = i64;

    fn len(&self) -> usize {
        4
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

/// The small model; it is evaluated by one of its weights, which every update changes.
struct SmallTask {
    small: Small,
    data: Arc<Numbers>,
}

impl Task for SmallTask {
    type Data = Numbers;

    fn data(&self) -> &Arc<Numbers> {
        &self.data
    }

    fn loss(&self, samples: Vec<i64>) -> Result<Losses> {
        Ok(self.small.loss(samples.iter().sum()))
    }

    fn evaluate(&self, _: u64) -> Result<BTreeMap<String, f64>> {
        let weight = self.small.variable("head.bias").double_value(&[0]);
        Ok(BTreeMap::from([("weight".to_owned(), weight)]))
    }
}

/// Takes note of evaluations, and asks for a stop once an update is done.
struct Watch {
    evaluations: RefCell<BTreeMap<u64, f64>>,
    stop: StopFlag,
    stop_at: Option<u64>,
}

impl Report for Watch {
    fn report(&self, kind: EventKind) {
        match kind {
            EventKind::Evaluated { step, metrics, .. } => {
                self.evaluations
                    .borrow_mut()
                    .insert(step, metrics["weight"]);
            }
            EventKind::Step(record) if Some(record.step) == self.stop_at => self.stop.request(),
            _ => {}
        }
    }

    fn at(&self, _: Phase, _: u64, _: u64) {}
}

/// How it ended, the evaluations by step, and the weights.
type Course = ((Ended, u64), BTreeMap<u64, f64>, Vec<(String, Vec<u8>)>);

/// Twelve updates, evaluated after every second one.
fn run(root: &Path, metric: &str, mode: Mode, stop_at: Option<u64>) -> Result<Course> {
    let (_store, group) = alone();
    let recipe = Source {
        name: "recipe".into(),
        text: "data: {root: d, folds: 2}\nstage2: {training: {epochs: 6, evaluate_every: 1}}"
            .into(),
    };
    let recipe = recipe::parse(&recipe, &[]).unwrap();
    let task = SmallTask {
        small: Small::new(),
        data: Arc::new(Numbers),
    };
    let metric = metric.to_owned();
    let place = CheckpointPlace {
        root: root.to_owned(),
        job: "job".into(),
        hash: "hash".into(),
        patience: Duration::from_secs(60),
        settings: Checkpointing {
            every: 5,
            keep_last: 1,
            keep_best: BTreeMap::from([(metric, mode)]),
            ..Checkpointing::default()
        },
    };
    let watch = Watch {
        evaluations: RefCell::default(),
        stop: StopFlag::new(),
        stop_at,
    };
    let ended = train(
        &task,
        &Setup {
            store: &task.small.store,
            group: &group,
            training: &recipe.stage2.unwrap().training,
            execution: &Execution::new(ExecutionConfig::plain(Device::Cpu)),
            micro_batch: 2,
            accumulation: 1,
            seed: 1,
            workers: 1,
            prefetch: 1 << 20,
            checkpoints: &place,
            ledger: &root.join("ledger.jsonl"),
            replica_check: 0,
            histograms: false,
            resume: &Resume::Auto,
            report: &watch,
            stop: &watch.stop,
        },
    )?;
    Ok((ended, watch.evaluations.into_inner(), task.small.bits()))
}

fn steps(root: &Path) -> Vec<u64> {
    let entries = checkpoint::list(root).unwrap();
    entries.iter().map(|entry| entry.step).collect()
}

/// That of the last checkpoint, but for the hash of the ledger, which tells of each attempt.
fn trainer_state(root: &Path) -> serde_json::Value {
    let mut state = checkpoint::read_trainer(&root.join("step-00000012")).unwrap();
    state["ledger"].take();
    state
}

/// The step of the best evaluation; the first, where several are equal.
fn best_of(evaluations: &BTreeMap<u64, f64>, mode: Mode) -> u64 {
    let sign = if mode == Mode::Min { 1.0 } else { -1.0 };
    let by_value = |a: &(&u64, &f64), b: &(&u64, &f64)| (sign * a.1).total_cmp(&(sign * b.1));
    *evaluations.iter().min_by(by_value).unwrap().0
}

#[test]
fn the_best_checkpoint_is_kept_and_a_resume_goes_on_with_it() {
    for mode in [Mode::Min, Mode::Max] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let (ended, evaluations, weights) = run(root, "weight", mode, None).unwrap();
        assert_eq!(ended, (Ended::Finished, 12));
        assert_eq!(
            evaluations.keys().copied().collect::<Vec<_>>(),
            [2, 4, 6, 8, 10]
        );
        let best = best_of(&evaluations, mode);
        assert_eq!(steps(root), [best, 12], "{evaluations:?}");
        let trainer = trainer_state(root);
        assert_eq!(trainer["best"]["step"], best);
        assert_eq!(trainer["best"]["value"], evaluations[&best]);
        assert_eq!(trainer["best"]["metric"], "weight");

        for stop_at in 1..=11 {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path();
            // The request is met by the update after the one that it was made in.
            let (ended, _, _) = run(root, "weight", mode, Some(stop_at)).unwrap();
            let done = stop_at + 1;
            assert_eq!(ended, (Ended::Stopped, done));
            assert_eq!(steps(root).last(), Some(&done), "durable when it returns");
            let (ended, _, again) = run(root, "weight", mode, None).unwrap();
            assert_eq!(ended, (Ended::Finished, 12));
            assert_eq!(again, weights, "stopped after update {done}");
            assert_eq!(steps(root), [best, 12], "stopped after update {done}");
            assert_eq!(trainer_state(root), trainer, "stopped after update {done}");
        }
    }
}

#[test]
fn a_metric_that_no_evaluation_has_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let error = run(folder.path(), "wieght", Mode::Min, None).unwrap_err();
    assert_eq!(error.class(), FailureClass::Setup);
    let text = error.to_string();
    assert!(
        text.contains("names wieght") && text.contains("add one of weight"),
        "{text}"
    );
}
