//! What the kernel says of this process' sockets.

use std::ffi::c_int;
use std::fs;
use std::io;
use std::mem::ManuallyDrop;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, RawFd};

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
    Ok(local_address(fd)?.port())
}

/// The local addresses of all IP sockets that this process has open; none where /proc is not mounted.
pub(crate) fn local_addresses() -> Vec<SocketAddr> {
    let Ok(descriptors) = fs::read_dir("/proc/self/fd") else {
        return Vec::new();
    };
    let mut addresses: Vec<SocketAddr> = descriptors
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|fd| local_address(fd).ok())
        .collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

/// Fails for a descriptor that is closed, no socket, or no IP socket.
fn local_address(fd: RawFd) -> io::Result<SocketAddr> {
    // SAFETY: the descriptor is only asked for its address and never closed here; the kernel checks that it is one.
    let borrowed = ManuallyDrop::new(unsafe { TcpListener::from_raw_fd(fd) });
    borrowed.local_addr()
}
