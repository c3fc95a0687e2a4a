//! The sample ledger of a training job: which samples each update was made of, as a chain of hashes.
//!
//! ```text
//! {"sha256":"ab..","segment":{"job":..,"seed":7,"world_size":2,"batch":12,"after":0,..,"samples":["1.2.3/41",..]}}
//! {"sha256":"cd..","update":{"step":1,"ranks":[[4,0,..],[9,2,..]]}}
//! ```
//! A segment is what one attempt did: it goes on after `after` updates, and lines before it of later updates are void. The
//! hash of a line is SHA-256 over the hash of the line before it (64 zeros before the first) and the line without its own
//! hash, so that nothing can be changed, left out or put in unseen. [`Writer`] appends, [`Chain`] reads, [`audit`](fn@audit)
//! judges.

mod audit;
mod chain;
mod fault;
mod writer;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use audit::{Audit, Expected, Mark, audit};
pub use chain::{Break, Chain, Line};
pub use fault::Fault;
pub use writer::Writer;

/// What stands before the first line.
const BEGINNING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    Segment(Segment),
    Update(Update),
}

/// One attempt at a job begins, or goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Hash of the plan up to this job.
    pub job: String,
    /// Of the sample order.
    pub seed: u64,
    pub world_size: usize,
    /// Samples of one update over all ranks.
    pub batch: usize,
    /// Updates done before: those of this segment begin with the next one.
    pub after: u64,
    pub updates_per_epoch: u64,
    pub total_updates: u64,
    /// By which a reader knows a sample; updates hold places in this list.
    pub samples: Vec<String>,
}

/// One update of the weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Counted from 1.
    pub step: u64,
    /// The samples that each rank loaded, in its order.
    pub ranks: Vec<Vec<usize>>,
}

/// The hash of a line whose content is `content`, after a line whose hash is `before`.
fn link(before: &str, content: &str) -> String {
    let digest = Sha256::new()
        .chain_update(before.as_bytes())
        .chain_update(content.as_bytes())
        .finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
