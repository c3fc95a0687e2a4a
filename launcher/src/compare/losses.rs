//! What two runs recorded of their updates: loss, gradient norm and learning rate to the last bit.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};

use event::{EventKind, RunEvent, StepRecord};

use super::{Compared, Runs, What};
use crate::run_dir::RunDir;

/// A job and the count of its updates.
type Update = (String, u64);

/// What one run recorded.
#[derive(Default)]
struct Records {
    /// Each time that an update was done.
    all: Vec<(Update, StepRecord)>,
    /// Updates that a checkpoint held and no event tells of: the launcher was killed between the two.
    untold: Vec<Update>,
}

pub(super) fn compare(runs: &Runs) -> Compared {
    let mut found = Compared::new(What::Losses);
    let [name, other_name] = runs.names();
    let mut read = |dir: &RunDir| {
        let records = records(dir);
        records.unwrap_or_else(|error| {
            let difference = format!("cannot read {}: {error}", dir.events().display());
            found.differences.push(difference);
            Records::default()
        })
    };
    let (one, other) = (read(&runs.one), read(&runs.other));
    let told: BTreeMap<&Update, &StepRecord> = last(&one);
    let other_told = last(&other);
    if told.is_empty() {
        found.differences.push(format!("{name} recorded no update"));
    }
    let both = |(update, _): &&(Update, StepRecord)| told.contains_key(update);
    found.count = other.all.iter().filter(both).count();
    // An update that was done again must come to the same numbers each time.
    for (update, record) in one.all.iter().chain(&other.all) {
        let Some(wanted) = told.get(update) else {
            continue;
        };
        if let Some(difference) = difference(wanted, record) {
            let (job, step) = update;
            found
                .differences
                .push(format!("{job} step {step}: {difference}"));
        }
    }
    for (missing_in, has, lacks, untold) in [
        (&other_name, &told, &other_told, &other.untold),
        (&name, &other_told, &told, &one.untold),
    ] {
        for update in has.keys().filter(|update| !lacks.contains_key(*update)) {
            let (job, step) = update;
            match untold.contains(update) {
                true => found.notes.push(format!(
                    "{job} step {step}: its checkpoint was written before its record; {missing_in} went on from there"
                )),
                false => found
                    .differences
                    .push(format!("{job} step {step} is not recorded in {missing_in}")),
            }
        }
    }
    found
}

fn last(records: &Records) -> BTreeMap<&Update, &StepRecord> {
    let records = records.all.iter();
    records.map(|(update, record)| (update, record)).collect()
}

fn records(dir: &RunDir) -> io::Result<Records> {
    let mut records = Records::default();
    let mut furthest: BTreeMap<String, u64> = BTreeMap::new();
    for line in BufReader::new(File::open(dir.events())?).split(b'\n') {
        // A launcher that is killed may leave half a line.
        let Ok(RunEvent {
            job: Some(job),
            rank,
            kind,
            ..
        }) = event::parse_line(&String::from_utf8_lossy(&line?))
        else {
            continue;
        };
        let reached = furthest.entry(job.clone()).or_default();
        match kind {
            EventKind::Step(step) if rank.is_none_or(|rank| rank == 0) => {
                *reached = step.step.max(*reached);
                records.all.push(((job, step.step), step));
            }
            EventKind::JobResumed { step, .. } => {
                let untold = *reached + 1..=step;
                let untold = untold.map(|step| (job.clone(), step));
                records.untold.extend(untold);
                *reached = step.max(*reached);
            }
            _ => {}
        }
    }
    Ok(records)
}

/// The first number of an update that differs. Times do not count.
fn difference(one: &StepRecord, other: &StepRecord) -> Option<String> {
    let names = one.losses.keys().chain(other.losses.keys());
    let parts = names.map(|name| (name.as_str(), one.losses.get(name), other.losses.get(name)));
    let numbers = [
        ("loss", Some(&one.loss), Some(&other.loss)),
        (
            "gradient_norm",
            Some(&one.gradient_norm),
            Some(&other.gradient_norm),
        ),
        (
            "learning_rate",
            Some(&one.learning_rate),
            Some(&other.learning_rate),
        ),
        (
            "loss_scale",
            one.loss_scale.as_ref(),
            other.loss_scale.as_ref(),
        ),
    ];
    let bits = |number: Option<&f64>| number.map(|number| number.to_bits());
    let mut all = numbers.into_iter().chain(parts);
    if let Some((name, a, b)) = all.find(|(_, a, b)| bits(*a) != bits(*b)) {
        let text = |number: Option<&f64>| number.map_or_else(|| "none".into(), f64::to_string);
        return Some(format!("{name} is {} and {}", text(a), text(b)));
    }
    let counts = |record: &StepRecord| {
        [
            ("epoch", record.epoch),
            ("total_steps", record.total_steps),
            ("samples", record.samples),
            ("images", record.images),
        ]
    };
    let mut counts = counts(one).into_iter().zip(counts(other));
    let ((name, a), (_, b)) = counts.find(|(a, b)| a != b)?;
    Some(format!("{name} is {a} and {b}"))
}
