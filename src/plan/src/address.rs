//! A job's address: the hash of all that its outcome depends on, and of nothing else (docs/decisions/0036).

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{Inputs, JobKind, JobSpec};

/// To be raised when equal jobs come to other addresses, or when the same address comes to mean another outcome. A run is gone on with
/// under its own addresses only.
pub const ADDRESSES: u32 = 2;

/// What plans of before this number was kept had.
pub(crate) fn first_addresses() -> u32 {
    1
}

/// A job, with what it is computed from besides its own settings.
pub(crate) struct Job<'a> {
    pub kind: &'a JobKind,
    /// The recipe's.
    pub seed: u64,
    pub data: &'a recipe::Data,
    /// None where nobody has looked: then the data set's place counts.
    pub inputs: Option<&'a Inputs>,
    pub needs: Vec<&'a JobSpec>,
}

/// The hash of a job.
pub(crate) fn address(job: &Job) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Content<'a> {
        version: u32,
        kind: JobKind,
        data: recipe::Data,
        seed: u64,
        reads: Vec<(Option<u64>, &'static str, &'a str)>,
        inputs: Vec<&'a str>,
    }
    let Job {
        kind, inputs, data, ..
    } = job;
    let reads = inputs.iter().flat_map(|inputs| {
        let reads = inputs.read_by(kind).iter();
        reads.flat_map(move |read| {
            let parts = inputs.parts.iter();
            parts.map(move |part| (part.fold, read.name(), read.of(part)))
        })
    });
    // What the first job makes of the data set is in the digests, which say more exactly who reads what.
    let counts = |need: &&&JobSpec| inputs.is_none() || need.kind != JobKind::Labels;
    let content = Content {
        version: ADDRESSES,
        kind: settings(kind),
        data: data_settings(data, inputs.is_some()),
        seed: job.seed,
        reads: reads.collect(),
        inputs: job
            .needs
            .iter()
            .filter(counts)
            .map(|need| need.hash.as_str())
            .collect(),
    };
    Ok(digest([serde_json::to_vec(&content)?.as_slice()]))
}

/// A job's own settings without those that change nothing of its outcome.
pub(crate) fn settings(kind: &JobKind) -> JobKind {
    let mut kind = kind.clone();
    if let JobKind::Train {
        training,
        pretrained_sha256,
        ..
    } = &mut kind
    {
        // Other seeds are other jobs, and how often a model is evaluated does not change it, nor where it is trained.
        training.seeds.clear();
        training.evaluate_every = 0;
        training.gpus = recipe::Gpus::All;
        // The same weights in another place are the same weights.
        if pretrained_sha256.is_some() {
            training.pretrained = None;
        }
    }
    kind
}

/// The data's settings without those that change nothing of an outcome. `known`: the digests say which studies there are and in which
/// folds they are, so that places and lists of them do not count.
pub(crate) fn data_settings(data: &recipe::Data, known: bool) -> recipe::Data {
    let mut data = recipe::Data {
        // Worker threads, memory and the cache change the speed.
        workers: 0,
        memory_mb: 0,
        prefetch_mb: 0,
        cache: recipe::Cache::default(),
        // How much is read beforehand decides which studies are left out, where bad ones are.
        check: match data.bad_study {
            recipe::BadStudy::Stop => recipe::Check::Headers,
            recipe::BadStudy::LeaveOut => data.check,
        },
        ..data.clone()
    };
    if known {
        data.root.clear();
        data.split = None;
        data.exclude.clear();
    }
    data
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    let hash = hasher.finalize();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
