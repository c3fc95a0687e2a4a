//! Which rank an error of Gloo's is about.
//!
//! Gloo's messages name an address at most. When a process group is built, each rank writes the socket address it listens at
//! into the store, inside a record of Gloo's own; finding that address in the records gives the rank.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
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
    /// Gloo's record of each other rank.
    pub(crate) records: Vec<(usize, Vec<u8>)>,
}

impl Peers {
    pub(crate) fn error(&self, operation: &str, failure: Failure) -> CollectiveError {
        let operation = operation.to_owned();
        let rank = self.rank;
        match kind(&failure) {
            FailureKind::Timeout => CollectiveError::Timeout {
                rank,
                operation,
                peer: self.peer(&failure.text),
                timeout: self.timeout,
                detail: failure.text,
            },
            FailureKind::Network => {
                CollectiveError::PeerLost { rank, operation, peer: self.peer(&failure.text), detail: failure.text }
            }
            _ => CollectiveError::local(&format!("rank {rank}: {operation}"), failure),
        }
    }

    fn peer(&self, text: &str) -> Peer {
        let others = || (0..self.world_size).filter(|rank| *rank != self.rank).collect();
        let Some((ip, printed_port)) = address_in(text) else {
            return Peer { candidates: others(), address: None };
        };
        let record = sockaddr_start(ip, printed_port);
        let named = self.records.iter().find(|(_, bytes)| holds(bytes, &record, ip)).map(|(rank, _)| *rank);
        Peer {
            candidates: named.map_or_else(others, |rank| vec![rank]),
            // Gloo prints the port without turning it from network order.
            address: Some(SocketAddr::new(ip, printed_port.swap_bytes())),
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
    } else if says(&["closed by peer", "connection reset", "connection refused", "broken pipe", "read error", "write error"]) {
        FailureKind::Network
    } else {
        FailureKind::Other
    }
}

/// The first `[ip]:port` in a text, the port as printed.
fn address_in(text: &str) -> Option<(IpAddr, u16)> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('[') {
        rest = after;
        let Some((ip, tail)) = after.split_once("]:") else { return None };
        let digits = tail.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        if let (Ok(ip), Ok(port)) = (ip.parse(), digits.parse()) {
            return Some((ip, port));
        }
    }
    None
}

/// The first bytes of a `sockaddr_in` or `sockaddr_in6`: family, then the port in network order, whose bytes Gloo printed as
/// a number of this machine's order.
fn sockaddr_start(ip: IpAddr, printed_port: u16) -> [u8; 4] {
    let family = if ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 } as u16;
    let [f0, f1] = family.to_ne_bytes();
    let [p0, p1] = printed_port.to_ne_bytes();
    [f0, f1, p0, p1]
}

fn holds(record: &[u8], start: &[u8; 4], ip: IpAddr) -> bool {
    record.windows(start.len()).enumerate().filter(|(_, window)| window == start).any(|(at, _)| {
        let after = record.get(at + start.len()..).unwrap_or_default();
        match ip {
            IpAddr::V4(ip) => after.first_chunk::<4>().is_some_and(|octets| Ipv4Addr::from(*octets) == ip),
            // Four bytes of flow information lie between.
            IpAddr::V6(ip) => after
                .get(4..)
                .and_then(|tail| tail.first_chunk::<16>())
                .is_some_and(|octets| Ipv6Addr::from(*octets) == ip),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> Peers {
        // Gloo's records as rank 0 of three reads them from the store: listening at ports 43687 and 42235.
        let record = |port: u16| {
            let mut bytes = b"\x02\0\0\0\0\0\0\0vm\x88\0\0\0\0\0\0\0".to_vec();
            bytes.extend(2u16.to_ne_bytes());
            bytes.extend(port.to_be_bytes());
            bytes.extend([127, 0, 0, 1]);
            bytes.extend([0; 120]);
            bytes
        };
        Peers {
            rank: 0,
            world_size: 3,
            timeout: Duration::from_secs(2),
            records: vec![(1, record(43687)), (2, record(42235))],
        }
    }

    fn failed(text: &str) -> CollectiveError {
        peers().error("all_reduce #7", Failure { kind: FailureKind::Other, text: text.to_owned() })
    }

    #[test]
    fn a_closed_connection_names_the_rank_that_listens_there() {
        let printed = 42235u16.swap_bytes();
        let error = failed(&format!("Read error [127.0.0.1]:{printed}: Connection reset by peer"));
        assert_eq!(
            error.to_string(),
            format!(
                "rank 0: all_reduce #7: the connection to rank 2 at 127.0.0.1:42235 was closed (Read error \
                 [127.0.0.1]:{printed}: Connection reset by peer); that rank's log says why it ended"
            )
        );
    }

    #[test]
    fn a_timeout_without_an_address_names_the_candidates() {
        let error = failed("Timed out waiting 2000ms for recv operation to complete");
        let CollectiveError::Timeout { peer, timeout, .. } = &error else { panic!("{error}") };
        assert_eq!(peer.candidates, [1, 2]);
        assert_eq!(*timeout, Duration::from_secs(2));
        assert!(error.to_string().contains("no answer from one of ranks 1, 2 within 2s"), "{error}");
    }

    #[test]
    fn an_unknown_address_is_given_as_it_is() {
        let error = failed("Connection closed by peer [10.0.0.9]:1");
        let CollectiveError::PeerLost { peer, .. } = &error else { panic!("{error}") };
        assert_eq!(peer, &Peer { candidates: vec![1, 2], address: Some("10.0.0.9:256".parse().unwrap()) });
    }

    #[test]
    fn texts_that_only_look_like_an_address_are_passed_over() {
        assert_eq!(address_in("sizes [2, 3] and [x]: no"), None);
        assert_eq!(address_in("sizes [2, 3]: then [::1]:258: reset"), Some((IpAddr::V6(Ipv6Addr::LOCALHOST), 258)));
    }

    #[test]
    fn other_failures_are_neither_timeouts_nor_lost_peers() {
        assert!(matches!(failed("Invalid scalar type"), CollectiveError::Torch { .. }));
    }
}
