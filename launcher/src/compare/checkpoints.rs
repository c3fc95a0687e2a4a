//! Checkpoints of two runs: by their digests, and tensor by tensor where those differ.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use checkpoint::{FileRecord, Manifest, State, TensorData};
use plan::{JobSpec, Plan};
use serde_json::Value;

use super::{Compared, Runs, What};
use crate::run_dir::RunDir;

/// What the names of a checkpoint's files begin with.
const MODEL: &str = "model";
const OPTIMIZER: &str = "optimizer";
const TRAINER: &str = "trainer.json";

/// Weights, optimizer state and trainer state.
pub(super) fn compare(plan: &Plan, runs: &Runs) -> [Compared; 3] {
    let mut found = [What::Weights, What::Optimizer, What::Trainer].map(Compared::new);
    let training: Vec<&JobSpec> = plan
        .jobs
        .iter()
        .filter(|job| job.kind.is_training())
        .collect();
    if training.is_empty() {
        let none = "the plan trains nothing: there are no weights to compare";
        found[0].differences.push(none.to_owned());
    }
    for job in training {
        if let Err(difference) = compare_job(job, runs, &mut found) {
            found[0].differences.push(difference);
        }
    }
    found
}

/// The last checkpoint of a job, which both runs must have, and those before it that both have kept: a stop saves one
/// more, and takes the place of an older one.
fn compare_job(job: &JobSpec, runs: &Runs, found: &mut [Compared; 3]) -> Result<(), String> {
    let [name, other_name] = runs.names();
    let one = complete(&runs.one, job)?;
    let other = complete(&runs.other, job)?;
    let last = |found: &BTreeMap<u64, PathBuf>, name: &str| {
        let last = found.keys().next_back().copied();
        last.ok_or_else(|| format!("{}: {name} has no checkpoint", job.id))
    };
    let (step, other_step) = (last(&one, &name)?, last(&other, &other_name)?);
    if step != other_step {
        return Err(format!(
            "{}: the last checkpoint of {name} is of step {step}, that of {other_name} of step {other_step}",
            job.id
        ));
    }
    for (step, path) in &one {
        if let Some(other) = other.get(step) {
            let place = format!("{} step {step}", job.id);
            compare_pair(&place, path, other, found)?;
        }
    }
    Ok(())
}

/// The job's checkpoints by step. A damaged one is a difference: nothing here was done to files.
fn complete(dir: &RunDir, job: &JobSpec) -> Result<BTreeMap<u64, PathBuf>, String> {
    let entries = checkpoint::list(&dir.checkpoints(&job.id)).map_err(|error| error.to_string())?;
    let mut complete = BTreeMap::new();
    for entry in entries {
        match entry.state {
            State::Complete(manifest) if manifest.plan_hash != job.hash => {}
            State::Complete(_) => {
                complete.insert(entry.step, entry.path);
            }
            State::Damaged(fault) => return Err(format!("{}: {fault}", entry.path.display())),
        }
    }
    Ok(complete)
}

fn compare_pair(
    place: &str,
    one: &Path,
    other: &Path,
    found: &mut [Compared; 3],
) -> Result<(), String> {
    // Every byte is read: what a manifest says of a file that has rotted proves nothing.
    let manifests = [one, other].map(checkpoint::verify);
    let [Ok(manifest), Ok(other_manifest)] = manifests else {
        let faults = manifests.into_iter().filter_map(Result::err);
        let faults: Vec<String> = faults.map(|fault| fault.to_string()).collect();
        return Err(faults.join("; "));
    };
    let [weights, optimizer, trainer] = found;
    let same = |of: &str, part: &mut Compared| {
        let own = files(&manifest, of);
        part.add(own.values().map(|file| file.bytes).sum());
        !own.is_empty() && own == files(&other_manifest, of)
    };
    let same_weights = same(MODEL, weights);
    let same_optimizer = same(OPTIMIZER, optimizer);
    let same_trainer = same(TRAINER, trainer);
    if same_weights && same_optimizer && same_trainer {
        return Ok(());
    }
    let read = |path: &Path| checkpoint::read(path, None).map_err(|error| error.to_string());
    let (one, other) = (read(one)?, read(other)?);
    // Where ranks wrote other numbers of shards the files must differ, and the tensors must not.
    let same_shards = manifest.shards == other_manifest.shards;
    let tell = |of: &str, part: &mut Compared, difference: Option<String>| {
        let files = || "the files differ, and no tensor does".to_owned();
        let difference = difference.or_else(|| same_shards.then(files));
        let difference = difference.map(|words| format!("{place}, {of}: {words}"));
        part.differences.extend(difference);
    };
    if !same_weights {
        tell(MODEL, weights, tensors(&one.model, &other.model));
    }
    if !same_optimizer {
        tell(
            OPTIMIZER,
            optimizer,
            tensors(&one.optimizer, &other.optimizer),
        );
    }
    if let Some(difference) = state(&one.trainer, &other.trainer) {
        let difference = format!("{place}, {TRAINER}: {difference}");
        trainer.differences.push(difference);
    }
    Ok(())
}

/// The checkpoint's files whose names begin so: one, or one for each shard.
fn files<'m>(manifest: &'m Manifest, of: &str) -> BTreeMap<&'m str, &'m FileRecord> {
    let files = manifest.files.iter();
    files
        .map(|(name, file)| (name.as_str(), file))
        .filter(|(name, _)| name.starts_with(of))
        .collect()
}

/// Where the first difference is. Both are in the order of their names.
fn tensors(one: &[TensorData], other: &[TensorData]) -> Option<String> {
    let differing: Vec<_> = one.iter().zip(other).filter(|(a, b)| a != b).collect();
    let Some((a, b)) = differing.first() else {
        let lengths = (one.len(), other.len());
        return (lengths.0 != lengths.1)
            .then(|| format!("{} tensors and {}", lengths.0, lengths.1));
    };
    if (&a.name, a.dtype, &a.shape) != (&b.name, b.dtype, &b.shape) {
        return Some(format!("{a:?} is {b:?}"));
    }
    let size = a.dtype.size();
    let elements = || a.bytes.chunks(size).zip(b.bytes.chunks(size)).enumerate();
    let count = elements().filter(|(_, (a, b))| a != b).count();
    let first = elements().find(|(_, (a, b))| a != b);
    let (index, (a_bits, b_bits)) = first.unwrap_or_default();
    let more = match differing.len() - 1 {
        0 => String::new(),
        more => format!(", and {more} more of {} tensors differ", one.len()),
    };
    Some(format!(
        "{} {} {:?}: element {index} is {} and {}, the first of {count} that differ{more}",
        a.name,
        a.dtype,
        a.shape,
        hex(a_bits),
        hex(b_bits)
    ))
}

/// An element's bits, which are in the file in little endian.
fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().rev().map(|byte| format!("{byte:02x}"));
    format!("0x{}", digits.collect::<String>())
}

/// The first entry that differs, but for the ledger's hash.
fn state(one: &Value, other: &Value) -> Option<String> {
    let entries = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let (one, other) = (entries(one), entries(other));
    let names = one.keys().chain(other.keys());
    let mut compared = names.filter(|name| *name != "ledger");
    let name = compared.find(|name| one.get(*name) != other.get(*name))?;
    let text = |value: Option<&Value>| value.map_or_else(|| "not there".into(), Value::to_string);
    Some(format!(
        "`{name}` is {} and {}",
        text(one.get(name)),
        text(other.get(name))
    ))
}
