//! What can be wrong with a ledger, in words.

use serde::Serialize;

use super::Break;

/// Something that is not as it must be. Epochs are counted from 0 as everywhere, updates from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("{0}")]
    Broken(#[from] Break),
    #[error("the ledger holds no attempt at this job")]
    Empty,
    #[error(
        "line {line}: the attempt's {what} is {found}, and it must be {expected} as in the plan and the attempts before it"
    )]
    Segment {
        line: usize,
        what: &'static str,
        found: String,
        expected: String,
    },
    #[error("line {line}: two samples are called {id}")]
    SameId { line: usize, id: String },
    #[error("line {line}: update {step} does not follow update {before}")]
    OutOfSequence { line: usize, step: u64, before: u64 },
    #[error("{} not in the ledger", steps(*.first, *.last))]
    Missing { first: u64, last: u64 },
    #[error("line {line}: update {step} names sample {index}, and there are {samples}")]
    NoSuchSample {
        line: usize,
        step: u64,
        index: usize,
        samples: usize,
    },
    #[error(
        "line {line}: sample {id} was trained on twice in epoch {epoch}, at updates {first} and {step}"
    )]
    Repeated {
        line: usize,
        id: String,
        epoch: u64,
        first: u64,
        step: u64,
    },
    #[error("epoch {epoch}: sample {id} was not trained on, nor does the last batch leave it out")]
    LeftOut { epoch: u64, id: String },
    #[error(
        "line {line}: update {step} (epoch {epoch}): rank {rank} of {world_size} loaded {found} at place {place}, where \
         the order of samples has {expected}"
    )]
    Order {
        line: usize,
        step: u64,
        epoch: u64,
        rank: usize,
        world_size: usize,
        place: usize,
        found: String,
        expected: String,
    },
    #[error(
        "line {line}: update {step} has records of {found} ranks, and the attempt has {expected}"
    )]
    Ranks {
        line: usize,
        step: u64,
        found: usize,
        expected: usize,
    },
    #[error(
        "the checkpoint of update {step} says nothing of the ledger: what it was trained on is not proved"
    )]
    NoMark { step: u64 },
    #[error(
        "the checkpoint of update {step} belongs to another history: the ledger's hash that it holds, {hash:.12}.., is not in \
         the ledger at that update"
    )]
    Unbound { step: u64, hash: String },
    #[error("the job is finished, and its records end at update {last} of {total}")]
    Unfinished { last: u64, total: u64 },
}

impl Serialize for Fault {
    /// In words.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn steps(first: u64, last: u64) -> String {
    match first == last {
        true => format!("update {first} is"),
        false => format!("updates {first} to {last} are"),
    }
}
