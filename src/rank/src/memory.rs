//! How this process keeps its memory.

/// Asks the C library to keep what tensors on the host give back instead of handing it to the system and fetching it, zeroed
/// page by page, a moment later: an update on CPUs takes a third less time so (docs/benchmarks.md). A libc that knows no such
/// wish stays as it is.
pub fn keep() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt changes settings of the allocator alone, and no other thread runs yet.
    unsafe {
        // From the heap, up to 1 GiB at once; never trimmed; grown by 64 MiB at least.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}
