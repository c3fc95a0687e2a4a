//! The lock by which the launcher hears at once that this process dies: its main thread holds it as long as it lives.

use std::os::fd::RawFd;

/// Takes the lock behind a descriptor of the launcher's. Without it the launcher hears of a death when the process's memory has
/// been given back.
pub fn hold(fd: RawFd) {
    let length = size_of::<libc::pthread_mutex_t>();
    let (access, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: the launcher has put a robust mutex at the start of this memory, which stays mapped to the end. Nobody else takes
    // it while this process lives, so that this does not wait.
    unsafe {
        let memory = libc::mmap(std::ptr::null_mut(), length, access, shared, fd, 0);
        libc::close(fd);
        if memory != libc::MAP_FAILED {
            libc::pthread_mutex_lock(memory.cast());
        }
    }
}
