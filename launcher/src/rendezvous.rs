//! Where the ranks of one machine meet: a file without a name that they inherit.
//!
//! c10d's store takes a socket or a file. A socket serves every user of the machine, for the store asks nobody who he is; this
//! file can be reached only through a descriptor, and the kernel opens /proc/PID/fd to nobody but the same user and root. It
//! is gone with the last process that holds it.

use std::fs::File;
use std::io;

use rustix::fs::{MemfdFlags, memfd_create};

/// A new, empty one. Child processes do not inherit it unless they are told to.
pub(crate) fn meeting_file() -> io::Result<File> {
    Ok(memfd_create(c"spinectl-rendezvous", MemfdFlags::CLOEXEC)?.into())
}
