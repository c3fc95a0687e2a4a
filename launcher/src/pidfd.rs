//! A process as a descriptor, and its end as something to await, instead of polling or SIGCHLD.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor that stands for this process also when its number is given to another one.
pub(crate) fn open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointers; it returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else owns it; the kernel made it close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A child that has not been reaped yet.
#[derive(Debug)]
pub(crate) struct Pidfd(AsyncFd<OwnedFd>);

impl Pidfd {
    /// `pid` must be a child that is not reaped while this opens, so that it is no other process.
    pub fn open(pid: u32) -> io::Result<Self> {
        let fd = open(pid)?;
        // SAFETY: the descriptor is owned and never replaced, so it stays open until it is dropped.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        Ok(Pidfd(fd?))
    }

    /// Returns when the process has ended (or cannot be watched any longer).
    pub async fn ended(&self) {
        // The readiness is never cleared: a process ends once.
        let _ = self.0.readable().await;
    }
}
