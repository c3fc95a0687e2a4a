//! What a rank holds in memory, for people to look at: none of it where the system does not say.

use collective::cuda;
use tch::Device;

/// Bytes of this process in the host's memory.
pub(crate) fn host() -> Option<u64> {
    resident(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// The most bytes that tensors have held on the GPU at once.
pub(crate) fn device(device: Device) -> Option<u64> {
    device.is_cuda().then(cuda::peak_memory)?.ok()
}

/// `VmRSS:     1234 kB`, in bytes.
fn resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_memory_is_read_in_bytes() {
        let status = "VmSize:\t  90000 kB\nVmRSS:\t    1234 kB\nThreads:\t3\n";
        assert_eq!(resident(status), Some(1234 * 1024));
        assert_eq!(resident("VmRSS: many kB"), None);
        assert!(host().is_some_and(|bytes| bytes > 1 << 20));
    }
}
