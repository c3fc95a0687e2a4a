//! A socket of rank 0's as the place where ranks meet, on one machine or many.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::os::fd::{IntoRawFd, RawFd};

use crate::error::{CollectiveError, Result};
use crate::socket;

/// Where rank 0 serves. Whoever can connect is served: libtorch's store asks nobody who he is.
#[derive(Clone, Debug)]
pub struct Tcp {
    /// The machine of rank 0, by name or address.
    pub master_addr: String,
    pub master_port: u16,
    /// A socket that already listens at `master_port`, for rank 0 to serve on. [`crate::Store::connect`] takes it over.
    pub listen_fd: Option<RawFd>,
}

impl fmt::Display for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.master_addr, self.master_port)
    }
}

impl Tcp {
    /// Why `rank` of a world of so many cannot meet others here.
    pub(super) fn objection(&self, rank: usize, world_size: usize) -> Option<String> {
        if rank != 0 && self.listen_fd.is_some() {
            return Some(format!(
                "rank {rank} was given a listening socket, but rank 0 serves"
            ));
        }
        (self.master_port == 0 && world_size > 1)
            .then(|| "MASTER_PORT is 0, where nobody can be found".to_owned())
    }

    /// Rank 0's socket; the port becomes the one that it really has.
    ///
    /// # Errors
    /// `Err` of the outer kind for a socket that is of no use, of the inner kind for a port that cannot be had.
    pub(crate) fn listen(&mut self) -> Result<io::Result<RawFd>> {
        let Some(fd) = self.listen_fd else {
            return Ok(self.bind().map(IntoRawFd::into_raw_fd));
        };
        let invalid = |reason| Err(CollectiveError::invalid("rendezvous", reason));
        match socket::listening_port(fd) {
            Err(error) => invalid(format!(
                "listen_fd {fd} is not a socket that listens: {error}"
            )),
            Ok(port) if self.master_port != 0 && self.master_port != port => invalid(format!(
                "listen_fd {fd} listens at port {port}, but MASTER_PORT is {}",
                self.master_port
            )),
            Ok(port) => {
                self.master_port = port;
                Ok(Ok(fd))
            }
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
    ///
    /// # Errors
    /// Says why there is none.
    pub(crate) fn local_address(&self) -> std::result::Result<IpAddr, String> {
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
            .map_err(|error| error.to_string())?;
        let mut last = "the name has no address".to_owned();
        for target in targets {
            match towards(target) {
                Ok(ip) => return Ok(ip),
                Err(error) => last = format!("no route to {target}: {error}"),
            }
        }
        Err(last)
    }
}
