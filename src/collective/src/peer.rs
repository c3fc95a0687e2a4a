//! Which rank an error of Gloo's is about.
//!
//! Gloo's messages name a socket address at most, so ranks tell each other the addresses of their sockets when a process group
//! is built.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::error::CollectiveError;
use crate::ffi::{Failure, FailureKind};

/// The other end of a failed collective, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The ranks that it can be, in order: one where the failure names it.
    pub candidates: Vec<usize>,
    pub address: Option<SocketAddr>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.candidates.as_slice() {
            [] => write!(f, "a peer")?,
            [rank] => write!(f, "rank {rank}")?,
            [first, rest @ ..] if rest.len() < 8 => {
                write!(f, "one of ranks {first}")?;
                rest.iter().try_for_each(|rank| write!(f, ", {rank}"))?;
            }
            many => write!(f, "one of the {} other ranks", many.len())?,
        }
        match self.address {
            Some(address) => write!(f, " at {address}"),
            None => Ok(()),
        }
    }
}

/// What a rank knows of the group it is in; turns failures of collectives into errors.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    pub(crate) rank: usize,
    pub(crate) world_size: usize,
    pub(crate) timeout: Duration,
    /// Of each rank's sockets, in order of rank.
    pub(crate) addresses: Vec<Vec<SocketAddr>>,
}

impl Peers {
    pub(crate) fn error(&self, operation: &str, failure: Failure) -> CollectiveError {
        let kind = kind(&failure);
        if !matches!(kind, FailureKind::Timeout | FailureKind::Network) {
            return CollectiveError::local(&format!("rank {}: {operation}", self.rank), failure);
        }
        let (rank, operation) = (self.rank, operation.to_owned());
        let printed = address_in(&failure.text);
        let peer = Box::new(self.peer(printed.map(|(_, address)| address)));
        let detail = match printed {
            Some((text, address)) => failure.text.replace(text, &address.to_string()),
            None => failure.text,
        };
        match kind {
            FailureKind::Timeout => CollectiveError::Timeout {
                rank,
                operation,
                peer,
                timeout: self.timeout,
                detail,
            },
            _ => CollectiveError::PeerLost {
                rank,
                operation,
                peer,
                detail,
            },
        }
    }

    fn peer(&self, address: Option<SocketAddr>) -> Peer {
        let others = (0..self.world_size).filter(|rank| *rank != self.rank);
        let has = |rank: &usize| {
            let sockets = self.addresses.get(*rank);
            address.is_some_and(|address| sockets.is_some_and(|list| list.contains(&address)))
        };
        let mut candidates: Vec<usize> = others.clone().filter(has).collect();
        if candidates.is_empty() {
            candidates = others.collect();
        }
        Peer {
            candidates,
            address,
        }
    }
}

/// Gloo throws plain runtime errors, so its kinds are told apart by their text.
fn kind(failure: &Failure) -> FailureKind {
    if failure.kind != FailureKind::Other {
        return failure.kind;
    }
    let text = failure.text.to_ascii_lowercase();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    if says(&["timed out", "timeout"]) {
        FailureKind::Timeout
    } else if says(&[
        "closed by peer",
        "connection reset",
        "connection refused",
        "broken pipe",
        "read error",
        "write error",
    ]) {
        FailureKind::Network
    } else {
        FailureKind::Other
    }
}

/// The first `[ip]:port` in a text of Gloo's, as it stands there and as it is meant.
fn address_in(text: &str) -> Option<(&str, SocketAddr)> {
    for (start, _) in text.match_indices('[') {
        let candidate = text.get(start..)?;
        let (ip, tail) = candidate.get(1..)?.split_once("]:")?;
        let digits = tail
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(tail.len());
        let port = tail.get(..digits)?.parse::<u16>();
        if let (Ok(ip), Ok(port)) = (ip.parse::<IpAddr>(), port) {
            let length = candidate.len() - tail.len() + digits;
            // Gloo prints the port as it lies in memory, in network order.
            let address = SocketAddr::new(ip, u16::from_be(port));
            return Some((candidate.get(..length)?, address));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> Peers {
        let sockets = |port| vec![SocketAddr::from(([127, 0, 0, 1], port))];
        Peers {
            rank: 0,
            world_size: 3,
            timeout: Duration::from_secs(2),
            addresses: vec![sockets(33409), sockets(43687), sockets(42235)],
        }
    }

    fn failed(text: &str) -> CollectiveError {
        peers().error(
            "all_reduce #7",
            Failure {
                kind: FailureKind::Other,
                text: text.to_owned(),
            },
        )
    }

    #[test]
    fn a_closed_connection_names_the_rank_whose_socket_it_was() {
        let printed = 42235u16.to_be();
        let error = failed(&format!(
            "Read error [127.0.0.1]:{printed}: Connection reset by peer"
        ));
        assert_eq!(
            error.to_string(),
            "rank 0: all_reduce #7: the connection to rank 2 at 127.0.0.1:42235 was closed (Read error 127.0.0.1:42235: \
             Connection reset by peer); that rank's log says why it ended"
        );
    }

    #[test]
    fn a_timeout_without_an_address_names_the_candidates() {
        let error = failed("Timed out waiting 2000ms for recv operation to complete");
        let CollectiveError::Timeout { peer, timeout, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(peer.candidates, [1, 2]);
        assert_eq!(*timeout, Duration::from_secs(2));
        assert!(
            error
                .to_string()
                .contains("no answer from one of ranks 1, 2 within 2s"),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_address_is_given_as_it_is() {
        let printed = 5123u16.to_be();
        let error = failed(&format!("Connection closed by peer [10.0.0.9]:{printed}"));
        let CollectiveError::PeerLost { peer, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(peer.to_string(), "one of ranks 1, 2 at 10.0.0.9:5123");
    }

    #[test]
    fn texts_that_only_look_like_an_address_are_passed_over() {
        assert_eq!(address_in("sizes [2, 3] and [x]: no"), None);
        let text = format!("sizes [2, 3]: then [::1]:{}: reset", 258u16.to_be());
        let (_, address) = address_in(&text).unwrap();
        assert_eq!(address, "[::1]:258".parse().unwrap());
    }

    #[test]
    fn other_failures_are_neither_timeouts_nor_lost_peers() {
        assert!(matches!(
            failed("Invalid scalar type"),
            CollectiveError::Torch { .. }
        ));
    }
}
