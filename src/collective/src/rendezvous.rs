//! Where the ranks of a job meet: what they are told, and the addresses that follow from it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::os::fd::{IntoRawFd, RawFd};
use std::time::Duration;

use crate::error::{CollectiveError, Result};
use crate::ffi::Failure;
use crate::socket;

/// Where and how the ranks of a job meet.
#[derive(Clone, Debug)]
pub struct Rendezvous {
    pub rank: usize,
    pub world_size: usize,
    /// The machine of rank 0, by name or address.
    pub master_addr: String,
    pub master_port: u16,
    /// A socket that already listens at `master_port`, for rank 0 to serve on. [`crate::Store::connect`] takes it over.
    pub listen_fd: Option<RawFd>,
    /// For all ranks to arrive, and for every later wait on the store.
    pub timeout: Duration,
}

impl Rendezvous {
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
        if self.rank != 0 && self.listen_fd.is_some() {
            return invalid(format!(
                "rank {} was given a listening socket, but rank 0 serves",
                self.rank
            ));
        }
        if milliseconds(self.timeout) == 0 {
            return invalid(format!(
                "a timeout of {:?}; give at least a millisecond",
                self.timeout
            ));
        }
        if self.master_port == 0 && self.world_size > 1 {
            return invalid("MASTER_PORT is 0, where nobody can be found".to_owned());
        }
        Ok(())
    }

    /// Rank 0's socket, and the port it really has.
    pub(crate) fn listen(&mut self) -> Result<RawFd> {
        match self.listen_fd {
            Some(fd) => {
                let port = socket::listening_port(fd).map_err(|error| {
                    let reason = format!("listen_fd {fd} is not a socket that listens: {error}");
                    CollectiveError::invalid("rendezvous", reason)
                })?;
                if self.master_port != 0 && self.master_port != port {
                    let reason = format!(
                        "listen_fd {fd} listens at port {port}, but MASTER_PORT is {}",
                        self.master_port
                    );
                    return Err(CollectiveError::invalid("rendezvous", reason));
                }
                self.master_port = port;
                Ok(fd)
            }
            None => match self.bind() {
                Ok(listener) => Ok(listener.into_raw_fd()),
                Err(error) => Err(self.failed("listen", error.to_string())),
            },
        }
    }

    fn bind(&self) -> io::Result<TcpListener> {
        let at_every = |ip: IpAddr| TcpListener::bind((ip, self.master_port));
        TcpListener::bind((self.master_addr.as_str(), self.master_port)).or_else(|error| {
            match error.kind() {
                io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Err(error),
                // A name that leads here by way of a proxy, or is not known yet: a Kubernetes service.
                _ => at_every(Ipv6Addr::UNSPECIFIED.into())
                    .or_else(|_| at_every(Ipv4Addr::UNSPECIFIED.into())),
            }
        })
    }

    /// The address that this machine has on the way to rank 0. No packet is sent.
    pub(crate) fn local_address(&self) -> Result<IpAddr> {
        let towards = |target: SocketAddr| -> io::Result<IpAddr> {
            let any: IpAddr = if target.is_ipv4() {
                Ipv4Addr::UNSPECIFIED.into()
            } else {
                Ipv6Addr::UNSPECIFIED.into()
            };
            let probe = UdpSocket::bind((any, 0))?;
            probe.connect(target)?;
            Ok(probe.local_addr()?.ip())
        };
        let targets = (self.master_addr.as_str(), self.master_port.max(1))
            .to_socket_addrs()
            .map_err(|error| self.failed("resolve", error.to_string()))?;
        let mut last = "the name has no address".to_owned();
        for target in targets {
            match towards(target) {
                Ok(ip) => return Ok(ip),
                Err(error) => last = format!("no route to {target}: {error}"),
            }
        }
        Err(self.failed("resolve", last))
    }

    pub(crate) fn address(&self) -> String {
        format!("{}:{}", self.master_addr, self.master_port)
    }

    pub(crate) fn missing(&self, missing: Vec<usize>) -> CollectiveError {
        CollectiveError::RanksMissing {
            rank: self.rank,
            address: self.address(),
            missing,
            timeout: self.timeout,
        }
    }

    pub(crate) fn failed(&self, operation: &str, detail: String) -> CollectiveError {
        CollectiveError::Rendezvous {
            rank: self.rank,
            operation: operation.to_owned(),
            address: self.address(),
            detail,
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
