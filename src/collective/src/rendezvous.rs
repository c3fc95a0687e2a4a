//! Where the ranks of a job meet.

mod tcp;

use std::fmt;
use std::net::Ipv4Addr;
use std::os::fd::RawFd;
use std::time::Duration;

use crate::error::{CollectiveError, Result};
use crate::ffi::Failure;

pub use tcp::Tcp;

/// Who meets, and where.
#[derive(Clone, Debug)]
pub struct Rendezvous {
    pub rank: usize,
    pub world_size: usize,
    pub place: Place,
    /// For all ranks to arrive, and for every later wait on the store.
    pub timeout: Duration,
}

/// Where the ranks of a job meet.
#[derive(Clone, Debug)]
pub enum Place {
    /// In a file that all ranks have inherited from one parent: empty at first, open for reading and writing, and best
    /// without a name, so that nobody else comes by it. It stays the caller's and is open for as long as the store is.
    File(RawFd),
    /// At a socket of rank 0's.
    Tcp(Tcp),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(_) => write!(f, "the inherited file"),
            Self::Tcp(tcp) => tcp.fmt(f),
        }
    }
}

impl Rendezvous {
    /// Of a rank without others: nothing is opened.
    pub fn alone(timeout: Duration) -> Self {
        Self {
            rank: 0,
            world_size: 1,
            place: Place::Tcp(Tcp {
                master_addr: Ipv4Addr::LOCALHOST.to_string(),
                master_port: 0,
                listen_fd: None,
            }),
            timeout,
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let invalid = |reason: String| Err(CollectiveError::invalid("rendezvous", reason));
        if self.world_size == 0 || i32::try_from(self.world_size).is_err() {
            return invalid(format!(
                "a world of {} ranks; WORLD_SIZE is at least 1",
                self.world_size
            ));
        }
        if self.rank >= self.world_size {
            return invalid(format!(
                "rank {} is outside a world of {} ranks",
                self.rank, self.world_size
            ));
        }
        if milliseconds(self.timeout) == 0 {
            return invalid(format!(
                "a timeout of {:?}; give at least a millisecond",
                self.timeout
            ));
        }
        match &self.place {
            Place::Tcp(tcp) => tcp
                .objection(self.rank, self.world_size)
                .map_or(Ok(()), invalid),
            Place::File(_) => Ok(()),
        }
    }

    pub(crate) fn missing(&self, missing: Vec<usize>) -> CollectiveError {
        CollectiveError::RanksMissing {
            rank: self.rank,
            place: self.place.to_string(),
            missing,
            timeout: self.timeout,
        }
    }

    pub(crate) fn failed(&self, operation: &str, detail: String) -> CollectiveError {
        CollectiveError::Rendezvous {
            rank: self.rank,
            operation: operation.to_owned(),
            place: self.place.to_string(),
            detail,
            remedy: match &self.place {
                Place::File(_) => "see whether the launcher still runs",
                Place::Tcp(_) => {
                    "see that rank 0 runs and that MASTER_ADDR and MASTER_PORT are right"
                }
            },
        }
    }

    pub(crate) fn error(&self, operation: &str, failure: Failure) -> CollectiveError {
        self.failed(operation, failure.text)
    }
}

/// A timeout as libtorch takes it, at most a year: libtorch and the clock add it to the present.
pub(crate) fn milliseconds(timeout: Duration) -> i64 {
    const YEAR: i64 = 365 * 24 * 60 * 60 * 1000;
    i64::try_from(timeout.as_millis()).unwrap_or(YEAR).min(YEAR)
}
