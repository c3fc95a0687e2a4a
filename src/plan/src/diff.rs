//! Two plans of one run directory: which jobs a launch would keep and which it would do again, and why.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::address::{data_settings, settings};
use crate::{Inputs, JobId, JobKind, JobSpec, Plan};

/// What a run has of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Had {
    /// It has succeeded.
    Done,
    /// It was begun.
    Begun,
    Nothing,
}

/// What a launch would make of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Done, and nothing that it depends on has changed.
    Kept,
    /// Not done yet, and nothing that it depends on has changed: it goes on from its newest checkpoint where it has one.
    Open,
    /// Done or begun, and void: it begins anew.
    Rerun,
    /// Not in the earlier plan, or never begun in it and changed since.
    New,
    /// Not in the plan any more: its files stay, and nothing reads them.
    Gone,
}

impl Fate {
    pub fn as_str(self) -> &'static str {
        match self {
            Fate::Kept => "kept",
            Fate::Open => "open",
            Fate::Rerun => "rerun",
            Fate::New => "new",
            Fate::Gone => "gone",
        }
    }
}

/// A job, and what would become of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    pub id: JobId,
    pub fate: Fate,
    /// What has changed, one reason each; empty where nothing has.
    pub why: Vec<String>,
}

/// Every job of `plan` in its order, then those that only `earlier` has. `had` says what the run has of the earlier plan's jobs.
pub fn diff(earlier: &Plan, plan: &Plan, had: impl Fn(&JobId) -> Had) -> Vec<Change> {
    let before: BTreeMap<&JobId, &JobSpec> =
        earlier.jobs.iter().map(|job| (&job.id, job)).collect();
    let mut changes: Vec<Change> = plan
        .jobs
        .iter()
        .map(|job| {
            let (fate, why) = match before.get(&job.id) {
                None => (Fate::New, Vec::new()),
                Some(was) if was.hash == job.hash => match had(&job.id) {
                    Had::Done => (Fate::Kept, Vec::new()),
                    Had::Begun | Had::Nothing => (Fate::Open, Vec::new()),
                },
                Some(was) => {
                    let fate = match had(&job.id) {
                        Had::Done | Had::Begun => Fate::Rerun,
                        Had::Nothing => Fate::New,
                    };
                    (fate, reasons((earlier, was), (plan, job), &before))
                }
            };
            let id = job.id.clone();
            Change { id, fate, why }
        })
        .collect();
    let gone = earlier
        .jobs
        .iter()
        .filter(|job| plan.job(job.id.as_str()).is_none());
    changes.extend(gone.map(|job| Change {
        id: job.id.clone(),
        fate: Fate::Gone,
        why: Vec::new(),
    }));
    changes
}

/// Why a job has another address than before.
fn reasons(
    (earlier, was): (&Plan, &JobSpec),
    (plan, job): (&Plan, &JobSpec),
    before: &BTreeMap<&JobId, &JobSpec>,
) -> Vec<String> {
    let mut why = changed_settings(&own_settings(&was.kind), &own_settings(&job.kind));
    if earlier.seed != plan.seed {
        why.push(format!("seed {} -> {}", earlier.seed, plan.seed));
    }
    let known = earlier.inputs.is_some() && plan.inputs.is_some();
    let data = |plan: &Plan| leaves_of("data", &data_settings(&plan.data, known));
    why.extend(changed_settings(&data(earlier), &data(plan)));
    match (&earlier.inputs, &plan.inputs) {
        (Some(then), Some(now)) => why.extend(changed_inputs(then, now, &job.kind)),
        (None, Some(_)) => why.push("the data set was not there to be looked at".to_owned()),
        (Some(_), None) => why.push("the data set is not there to be looked at".to_owned()),
        (None, None) => {}
    }
    why.extend(changed_needs(was, (plan, job), before, known));
    if earlier.addresses != plan.addresses {
        why.push(format!(
            "the run was begun by a version that tells jobs apart by other rules (addresses {}, now {})",
            earlier.addresses, plan.addresses
        ));
    }
    why
}

/// A job's settings by their keys, those of a training as the recipe has them.
fn own_settings(kind: &JobKind) -> BTreeMap<String, Value> {
    let kind = settings(kind);
    let JobKind::Train {
        stage,
        training,
        start,
        pretrained_sha256,
        ..
    } = &kind
    else {
        return leaves_of("job", &kind);
    };
    // {"stage2": {...}}, whose keys stand in the recipe beside `training`.
    let mut leaves = leaves_of("", stage);
    let name = stage.name();
    leaves.extend(leaves_of(&format!("{name}.training"), training));
    leaves.extend(leaves_of(&format!("{name}: weights start from"), start));
    if let Some(sha256) = pretrained_sha256 {
        let short = sha256.get(..12).unwrap_or(sha256);
        let key = format!("{name}.training.pretrained (SHA-256)");
        leaves.insert(key, short.into());
    }
    leaves
}

fn leaves_of(prefix: &str, value: &impl Serialize) -> BTreeMap<String, Value> {
    let mut leaves = BTreeMap::new();
    // What could not be written could not have been hashed either.
    let value = serde_json::to_value(value).unwrap_or_default();
    collect(prefix, value, &mut leaves);
    leaves
}

fn collect(path: &str, value: Value, leaves: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                let path = match path {
                    "" => key,
                    path => format!("{path}.{key}"),
                };
                collect(&path, value, leaves);
            }
        }
        Value::Null => {}
        value => drop(leaves.insert(path.to_owned(), value)),
    }
}

fn changed_settings(then: &BTreeMap<String, Value>, now: &BTreeMap<String, Value>) -> Vec<String> {
    let shown = |value: Option<&Value>| match value {
        None => "none".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    let mut keys: Vec<&String> = then.keys().chain(now.keys()).collect();
    keys.sort();
    keys.dedup();
    let changed = keys
        .into_iter()
        .filter(|key| then.get(*key) != now.get(*key));
    let lines = changed.map(|key| {
        let (then, now) = (shown(then.get(key)), shown(now.get(key)));
        format!("{key} {then} -> {now}")
    });
    lines.collect()
}

/// Which files of which fold have changed, of those that the job reads.
fn changed_inputs(then: &Inputs, now: &Inputs, kind: &JobKind) -> Vec<String> {
    let folds = |inputs: &Inputs| -> Vec<Option<u64>> {
        inputs.parts.iter().map(|part| part.fold).collect()
    };
    if folds(then) != folds(now) {
        return vec!["the folds are others".to_owned()];
    }
    let mut why = Vec::new();
    for read in now.read_by(kind) {
        let parts = then.parts.iter().zip(&now.parts);
        let changed = parts.filter(|(then, now)| read.of(then) != read.of(now));
        let names: Vec<String> = changed.map(|(_, part)| part.name()).collect();
        if !names.is_empty() {
            why.push(format!("{} of {} changed", read.name(), names.join(", ")));
        }
    }
    why
}

/// Of the jobs that it needs, those that are done again, and whether they are others.
fn changed_needs(
    was: &JobSpec,
    (plan, job): (&Plan, &JobSpec),
    before: &BTreeMap<&JobId, &JobSpec>,
    known: bool,
) -> Vec<String> {
    let mut why = Vec::new();
    for need in &job.needs {
        let Some(spec) = plan.job(need.as_str()) else {
            continue;
        };
        // Known inputs say by themselves what a job reads of the first one's tables.
        if spec.kind == JobKind::Labels && known {
            continue;
        }
        match before.get(need) {
            Some(then) if then.hash != spec.hash => why.push(format!("{need} is done again")),
            Some(_) if was.needs.contains(need) => {}
            _ => why.push(format!("it needs {need} now")),
        }
    }
    let no_more = was.needs.iter().filter(|need| !job.needs.contains(need));
    why.extend(no_more.map(|need| format!("it needs {need} no more")));
    why
}

#[cfg(test)]
mod tests;
