//! Two finished runs that are the same, and one thing at a time that makes them different.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use checkpoint::{Checkpoint, Dtype, Meta, Share, TensorData};
use event::{EventKind, RunEvent, StepRecord};
use plan::Plan;
use serde_json::json;

use super::*;
use crate::sample;

struct Stand {
    folder: tempfile::TempDir,
    plan: Plan,
}

impl Stand {
    fn new() -> Self {
        let stand = Stand {
            folder: tempfile::tempdir().unwrap(),
            plan: sample::chain(1),
        };
        for name in ["undisturbed", "disturbed"] {
            stand.fill(name);
        }
        stand
    }

    fn run(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn fill(&self, name: &str) {
        let run = self.run(name);
        fs::create_dir_all(run.join("tables")).unwrap();
        fs::create_dir_all(run.join("jobs/job0")).unwrap();
        plan::write(&run.join("plan.json"), &self.plan).unwrap();
        fs::write(run.join("run.db"), "").unwrap();
        fs::write(
            run.join("tables/predictions.csv"),
            "row_id,fractured\na,0.25\n",
        )
        .unwrap();
        fs::write(run.join("summary.json"), "{}").unwrap();
        for step in [2, 4] {
            self.save(name, step, |_| {});
        }
        let steps: String = (1..=4).map(|n| line(step(n))).collect();
        fs::write(run.join("events.jsonl"), steps).unwrap();
    }

    /// Writes a checkpoint with one thing about it changed.
    fn save(&self, name: &str, step: u64, change: impl FnOnce(&mut Checkpoint)) {
        let mut checkpoint = self.checkpoint(name, step);
        change(&mut checkpoint);
        checkpoint::write(&self.cleared(name, step), &checkpoint).unwrap();
    }

    /// Writes it as two ranks do, the first tensor of the model in the second shard.
    fn save_in_shards(&self, name: &str, step: u64) {
        let root = self.cleared(name, step);
        for part in [1, 0] {
            let mut own = self.checkpoint(name, step);
            let mut parts = [1, 0, 0].into_iter().map(|of| of == part);
            own.model.retain(|_| parts.next() == Some(true));
            own.optimizer.retain(|_| parts.next() == Some(true));
            let share = Share {
                part,
                parts: 2,
                token: 7,
                patience: Duration::from_secs(60),
            };
            checkpoint::write_part(&root, &own, &share).unwrap();
        }
    }

    /// The folder of checkpoints, without that of this step.
    fn cleared(&self, name: &str, step: u64) -> PathBuf {
        let root = self.run(name).join("jobs/job0/checkpoints");
        let _ = fs::remove_dir_all(root.join(format!("step-{step:08}")));
        root
    }

    fn checkpoint(&self, name: &str, step: u64) -> Checkpoint {
        let tensor = |name: &str, values: [f32; 2]| TensorData {
            name: name.into(),
            dtype: Dtype::F32,
            shape: vec![2],
            bytes: values.into_iter().flat_map(f32::to_le_bytes).collect(),
        };
        Checkpoint {
            step,
            model: vec![tensor("bias", [0.5, 1.0]), tensor("weight", [2.0, 3.0])],
            optimizer: vec![tensor("weight.exp_avg", [0.125, 0.25])],
            trainer: json!({"step": step, "ledger": format!("of {name}"), "best": 1}),
            meta: Meta {
                plan_hash: self.plan.jobs[0].hash.clone(),
                job: "job0".into(),
                world_size: 2,
            },
        }
    }

    fn compare(&self) -> Vec<Compared> {
        compare(&self.run("undisturbed"), &self.run("disturbed")).unwrap()
    }

    /// The kind in which the runs differ, which is the only one, and its one difference.
    fn only_difference(&self) -> (What, String) {
        let mut differing = self.compare();
        differing.retain(|part| !part.differences.is_empty());
        let [part] = &differing[..] else {
            panic!("{differing:#?}");
        };
        let [difference] = &part.differences[..] else {
            panic!("{part:#?}");
        };
        (part.what, difference.clone())
    }

    fn events(&self) -> PathBuf {
        self.run("disturbed").join("events.jsonl")
    }
}

fn step(number: u64) -> EventKind {
    EventKind::Step(StepRecord {
        step: number,
        total_steps: 4,
        loss: 1.0 / number as f64,
        gradient_norm: 2.0,
        // Time differs from run to run.
        seconds: f64::from(std::process::id()),
        ..StepRecord::default()
    })
}

fn resumed(step: u64) -> EventKind {
    EventKind::JobResumed {
        step,
        checkpoint: String::new(),
        skipped: Vec::new(),
    }
}

fn line(kind: EventKind) -> String {
    event::to_line(&RunEvent::job("job0", 1, kind)).unwrap()
}

fn replace(path: &Path, old: &str, new: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(old), "{old}: {text}");
    fs::write(path, text.replace(old, new)).unwrap();
}

fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn runs_that_are_the_same_differ_in_nothing() {
    let found = Stand::new().compare();
    let counts: Vec<_> = found.iter().map(|part| (part.what, part.count)).collect();
    assert_eq!(
        counts,
        [
            (What::Weights, 2),
            (What::Optimizer, 2),
            (What::Trainer, 2),
            (What::Tables, 2),
            (What::Losses, 4)
        ]
    );
    for part in found {
        assert!(part.differences.is_empty(), "{part:?}");
        assert!(part.notes.is_empty(), "{part:?}");
    }
}

#[test]
fn a_bit_of_a_weight_is_named_with_its_tensor_and_element() {
    let stand = Stand::new();
    stand.save("disturbed", 4, |checkpoint| {
        checkpoint.model[1].bytes[4] ^= 1;
    });
    let (what, said) = stand.only_difference();
    assert_eq!(what, What::Weights);
    assert_contains(
        &said,
        &[
            "job0 step 4, model: weight f32 [2]: element 1",
            "0x40400000 and 0x40400001",
        ],
    );
}

#[test]
fn a_moment_of_the_optimizer_and_the_trainers_state_are_compared_too() {
    let stand = Stand::new();
    stand.save("disturbed", 2, |checkpoint| {
        checkpoint.optimizer[0].bytes[0] ^= 1;
    });
    let (what, said) = stand.only_difference();
    assert_eq!(what, What::Optimizer);
    assert_contains(&said, &["step 2, optimizer: weight.exp_avg"]);

    let stand = Stand::new();
    stand.save("disturbed", 4, |checkpoint| {
        checkpoint.trainer["best"] = json!(2);
    });
    let (what, said) = stand.only_difference();
    assert_eq!(what, What::Trainer);
    assert_contains(&said, &["step 4, trainer.json: `best` is 1 and 2"]);
}

#[test]
fn other_numbers_of_shards_hold_the_same_tensors() {
    let stand = Stand::new();
    let [one, two] = ["undisturbed", "disturbed"].map(|name| {
        let root = stand.run(name).join("jobs/job0/checkpoints");
        root.join("step-00000004")
    });
    let files = |folder: &Path| checkpoint::verify(folder).unwrap().files.len();
    stand.save_in_shards("disturbed", 4);
    assert_eq!((files(&one), files(&two)), (3, 5));
    for part in stand.compare() {
        assert!(part.differences.is_empty(), "{part:?}");
    }
}

#[test]
fn a_checkpoint_that_rotted_or_is_missing_is_no_proof() {
    let stand = Stand::new();
    let last = stand
        .run("disturbed")
        .join("jobs/job0/checkpoints/step-00000004");
    let file = last.join("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    let (what, said) = stand.only_difference();
    assert_eq!(what, What::Weights);
    assert_contains(&said, &["step-00000004", "model.safetensors"]);

    fs::remove_dir_all(&last).unwrap();
    let (_, said) = stand.only_difference();
    assert_contains(&said, &["undisturbed is of step 4", "disturbed of step 2"]);
    fs::remove_dir_all(last.parent().unwrap()).unwrap();
    let (_, said) = stand.only_difference();
    assert_eq!(said, "job0: disturbed has no checkpoint");
}

#[test]
fn an_older_checkpoint_that_only_one_run_has_kept_is_no_difference() {
    let stand = Stand::new();
    stand.save("disturbed", 3, |_| {});
    let older = "jobs/job0/checkpoints/step-00000002";
    fs::remove_dir_all(stand.run("disturbed").join(older)).unwrap();
    let found = stand.compare();
    assert!(found.iter().all(|part| part.differences.is_empty()));
    assert_eq!(found[0].count, 1);
}

#[test]
fn a_line_of_a_table_is_quoted_and_a_table_that_is_missing_named() {
    let stand = Stand::new();
    let table = stand.run("disturbed").join("tables/predictions.csv");
    replace(&table, "0.25", "0.26");
    let (what, said) = stand.only_difference();
    assert_eq!(what, What::Tables);
    assert_eq!(said, "tables/predictions.csv line 2: `a,0.25` and `a,0.26`");

    fs::remove_file(&table).unwrap();
    let (_, said) = stand.only_difference();
    assert_eq!(said, "tables/predictions.csv is not there in disturbed");
}

#[test]
fn a_loss_that_differs_in_its_last_bit_is_named_with_its_step() {
    let stand = Stand::new();
    replace(&stand.events(), "0.3333333333333333", "0.33333333333333337");
    let (what, said) = stand.only_difference();
    assert_eq!(what, What::Losses);
    assert_contains(
        &said,
        &["job0 step 3: loss is 0.3333333333333333 and 0.33333333333333337"],
    );
}

#[test]
fn an_update_that_was_done_again_must_come_to_the_same_each_time() {
    let stand = Stand::new();
    let again: String = [step(1), step(2), step(3), resumed(2), step(3), step(4)]
        .map(line)
        .concat();
    fs::write(stand.events(), &again).unwrap();
    let found = stand.compare();
    assert_eq!((found[4].count, found[4].differences.len()), (5, 0));

    // The one that was void later.
    fs::write(
        stand.events(),
        again.replacen("0.3333333333333333", "0.5", 1),
    )
    .unwrap();
    let (_, said) = stand.only_difference();
    assert_contains(&said, &["job0 step 3: loss is 0.333", " and 0.5"]);
}

#[test]
fn only_a_checkpoint_excuses_an_update_that_nothing_tells_of() {
    let stand = Stand::new();
    let torn = format!("{}{}", line(step(1)), "{\"time\":1.0,\"eve\n");
    let rest = [step(3), step(4)].map(line).concat();
    fs::write(stand.events(), format!("{torn}{}{rest}", line(resumed(2)))).unwrap();
    let found = stand.compare();
    assert!(found[4].differences.is_empty(), "{:?}", found[4]);
    assert_contains(&found[4].notes.concat(), &["job0 step 2", "disturbed"]);

    fs::write(stand.events(), format!("{torn}{}{rest}", line(resumed(1)))).unwrap();
    let (what, said) = stand.only_difference();
    assert_eq!(what, What::Losses);
    assert_eq!(said, "job0 step 2 is not recorded in disturbed");
}

#[test]
fn runs_of_different_plans_are_not_compared() {
    let stand = Stand::new();
    let mut other = stand.plan.clone();
    other.hash = "another".into();
    plan::write(&stand.run("disturbed").join("plan.json"), &other).unwrap();
    let error = compare(&stand.run("undisturbed"), &stand.run("disturbed")).unwrap_err();
    assert!(error.to_string().contains("different plans"), "{error}");
    assert_eq!(error.exit_code(), 2);
}
