//! Where the ranks of one machine meet: a loopback socket that is open before they start.
//!
//! The kernel picks the port and the socket itself is handed to rank 0, so ports never collide and
//! nobody else on the network can join. Another user of this machine can: libtorch's store asks
//! nobody who he is.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// A listening socket for rank 0 and the port by which the others reach it.
#[derive(Debug)]
pub(crate) struct Rendezvous {
    pub listener: TcpListener,
    pub port: u16,
}

impl Rendezvous {
    pub const ADDRESS: &str = "127.0.0.1";

    pub fn bind() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        Ok(Rendezvous { listener, port })
    }
}
