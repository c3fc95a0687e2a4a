//! What can go wrong, in words that name the rank, the operation, the peer and the next thing to do.

use std::time::Duration;

use crate::ffi::{Failure, FailureKind};
use crate::peer::Peer;

pub type Result<T> = std::result::Result<T, CollectiveError>;

/// Why a rendezvous, a collective or a kernel did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectiveError {
    /// The caller asked for something that has no meaning; nothing was sent.
    #[error("{operation}: {reason}")]
    Invalid { operation: String, reason: String },

    /// Ranks that the world size counts did not come to the store in time.
    #[error(
        "rank {rank}: rendezvous at {place}: {} did not arrive within {timeout:?}; see whether {} started and can reach {place}",
        ranks(missing), if missing.len() == 1 { "it" } else { "they" }
    )]
    RanksMissing {
        rank: usize,
        place: String,
        missing: Vec<usize>,
        timeout: Duration,
    },

    /// The store cannot be served, reached or used.
    #[error("rank {rank}: {operation} at {place}: {detail}; {remedy}")]
    Rendezvous {
        rank: usize,
        operation: String,
        place: String,
        detail: String,
        remedy: &'static str,
    },

    /// Somebody else is at the other end of a connection that should lead to a peer.
    #[error(
        "rank {rank}: {operation}: no connection leads to rank {peer}, though all ranks are on this machine: another process has          come between; see who else listens to and connects from loopback addresses here"
    )]
    Stranger {
        rank: usize,
        operation: String,
        peer: usize,
    },

    /// A peer went away. The process group is dead: drop it, and build another or end this rank.
    #[error(
        "rank {rank}: {operation}: the connection to {peer} was closed ({detail}); that rank's log says why it ended"
    )]
    PeerLost {
        rank: usize,
        operation: String,
        peer: Box<Peer>,
        detail: String,
    },

    /// A peer did not take part in time. The process group is dead: drop it, and build another or end this rank.
    #[error(
        "rank {rank}: {operation}: no answer from {peer} within {timeout:?} ({detail}); see what that rank is doing"
    )]
    Timeout {
        rank: usize,
        operation: String,
        peer: Box<Peer>,
        timeout: Duration,
        detail: String,
    },

    /// The backward pass of a synchronised step gave some parameters no gradient, so other ranks may wait for them.
    #[error(
        "rank {rank}: backward gave no gradient to the parameters at {indices:?}; \
         freeze them, use them in the loss, or turn find_unused on"
    )]
    UnusedParameters { rank: usize, indices: Vec<usize> },

    /// A library that is opened at run time is not there or does not load.
    #[error("{library} cannot be loaded: {detail}; {remedy}")]
    Library {
        library: String,
        detail: String,
        remedy: String,
    },

    /// A rank was given a GPU that libtorch does not see.
    #[error(
        "there is no CUDA device {index}: libtorch sees {found}; start no more ranks than that on this machine, and see that \
         `nvidia-smi` lists the GPUs and that CUDA_VISIBLE_DEVICES names them"
    )]
    NoDevice { index: usize, found: u64 },

    /// The device, or the host, has no memory left.
    #[error(
        "{operation}: out of memory ({detail}); use a smaller micro-batch with more accumulation"
    )]
    OutOfMemory { operation: String, detail: String },

    /// libtorch refused for another reason.
    #[error("{operation}: {detail}")]
    Torch { operation: String, detail: String },
}

impl CollectiveError {
    /// A failure that no peer has part in.
    pub(crate) fn local(operation: &str, failure: Failure) -> Self {
        let Failure { kind, text: detail } = failure;
        match kind {
            FailureKind::OutOfMemory => Self::OutOfMemory {
                operation: operation.to_owned(),
                detail,
            },
            _ => Self::Torch {
                operation: operation.to_owned(),
                detail,
            },
        }
    }

    pub(crate) fn invalid(operation: &str, reason: impl Into<String>) -> Self {
        Self::Invalid {
            operation: operation.to_owned(),
            reason: reason.into(),
        }
    }
}

fn ranks(list: &[usize]) -> String {
    let numbers: Vec<String> = list.iter().map(usize::to_string).collect();
    format!(
        "rank{} {}",
        if list.len() == 1 { "" } else { "s" },
        numbers.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_ranks_read_as_a_sentence() {
        let error = CollectiveError::RanksMissing {
            rank: 0,
            place: "127.0.0.1:29500".to_owned(),
            missing: vec![1, 3],
            timeout: Duration::from_secs(2),
        };
        assert_eq!(
            error.to_string(),
            "rank 0: rendezvous at 127.0.0.1:29500: ranks 1, 3 did not arrive within 2s; see whether they started and can \
             reach 127.0.0.1:29500"
        );
    }
}
