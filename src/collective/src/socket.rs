//! What the kernel says of this process' descriptors.

use std::ffi::c_int;
use std::fmt;
use std::fs;
use std::io;
use std::mem::ManuallyDrop;
use std::net::{AddrParseError, SocketAddr, TcpStream};
use std::os::fd::{FromRawFd, RawFd};
use std::str::FromStr;

/// The port of a TCP socket that listens; other descriptors are refused. The descriptor is kept from later child processes.
pub(crate) fn listening_port(fd: RawFd) -> io::Result<u16> {
    let mut listens: c_int = 0;
    let mut length = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the outputs live across the calls, and the kernel checks the descriptor.
    let failed = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ACCEPTCONN,
            (&raw mut listens).cast(),
            &raw mut length,
        ) != 0
            || libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) != 0
    };
    if failed {
        return Err(io::Error::last_os_error());
    }
    if listens == 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it does not listen",
        ));
    }
    Ok(socket(fd)?.local.port())
}

/// Fails for a descriptor that is no file open for reading and writing. It is kept from later child processes.
pub(crate) fn check_file(fd: RawFd) -> io::Result<()> {
    let invalid = |reason| Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    // SAFETY: an all-zero stat is a valid value; it lives across the call, and the kernel checks the descriptor.
    let (about, mode) = unsafe {
        let mut about: libc::stat = std::mem::zeroed();
        if libc::fstat(fd, &raw mut about) != 0
            || libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) != 0
        {
            return Err(io::Error::last_os_error());
        }
        (about, libc::fcntl(fd, libc::F_GETFL))
    };
    if about.st_mode & libc::S_IFMT != libc::S_IFREG {
        return invalid("it is of another kind");
    }
    if mode & libc::O_ACCMODE != libc::O_RDWR {
        return invalid("it is not open for reading and writing");
    }
    Ok(())
}

/// An IP socket: its own address, and the one at the other end where it is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Socket {
    pub local: SocketAddr,
    pub peer: Option<SocketAddr>,
}

impl Socket {
    /// The other end of this connection is the other socket.
    pub fn meets(&self, other: &Socket) -> bool {
        self.peer == Some(other.local) && other.peer == Some(self.local)
    }
}

/// As other ranks are told: `local` or `local=peer`.
impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            Some(peer) => write!(f, "{}={peer}", self.local),
            None => write!(f, "{}", self.local),
        }
    }
}

impl FromStr for Socket {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        Ok(match text.split_once('=') {
            Some((local, peer)) => Socket {
                local: local.parse()?,
                peer: Some(peer.parse()?),
            },
            None => Socket {
                local: text.parse()?,
                peer: None,
            },
        })
    }
}

/// All IP sockets that this process has open, in order; none where /proc is not mounted.
pub(crate) fn open_sockets() -> Vec<Socket> {
    let Ok(descriptors) = fs::read_dir("/proc/self/fd") else {
        return Vec::new();
    };
    let mut sockets: Vec<Socket> = descriptors
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|fd| socket(fd).ok())
        .collect();
    sockets.sort();
    sockets.dedup();
    sockets
}

/// Fails for a descriptor that is closed, no socket, or no IP socket.
fn socket(fd: RawFd) -> io::Result<Socket> {
    // SAFETY: the descriptor is only asked for its addresses and never closed here; the kernel checks that it is one.
    let borrowed = ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(fd) });
    Ok(Socket {
        local: borrowed.local_addr()?,
        peer: borrowed.peer_addr().ok(),
    })
}
