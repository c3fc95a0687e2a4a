//! The 8-bit slices of a sample on the host, where its device fetches them from.

use collective::cuda;
use tch::{Device, Tensor};

/// (N, H, W) of one sample. For a GPU they lie in pinned memory, so that the copy to it runs beside the computation; the
/// threads that load samples put them there.
#[derive(Debug)]
pub struct HostPixels(Memory);

#[derive(Debug)]
enum Memory {
    Pageable(Vec<u8>),
    /// (bytes,) u8, in memory of libtorch's, which is not used again before copies out of it are done.
    Pinned(Tensor),
}

impl HostPixels {
    /// Takes `bytes` to where `device` wants them. Where there is no more pinned memory they stay where they are, and the
    /// copy to the device is slower.
    pub fn new(bytes: Vec<u8>, device: Device) -> Self {
        let pinned = device
            .is_cuda()
            .then(|| cuda::pinned(&bytes).ok())
            .flatten();
        HostPixels(match pinned {
            Some(pinned) => Memory::Pinned(pinned),
            None => Memory::Pageable(bytes),
        })
    }
}

/// Bytes on the host that a device may fetch.
pub trait HostBytes {
    /// All of them.
    fn bytes(&self) -> &[u8];

    /// Their pinned memory, (bytes,) u8, if that is where they are.
    fn pinned(&self) -> Option<&Tensor> {
        None
    }
}

impl HostBytes for &[u8] {
    fn bytes(&self) -> &[u8] {
        self
    }
}

impl HostBytes for &HostPixels {
    fn bytes(&self) -> &[u8] {
        match &self.0 {
            Memory::Pageable(bytes) => bytes,
            // SAFETY: a contiguous tensor of so many bytes on the host, which lives as long as the borrow, and which nobody
            // writes to.
            Memory::Pinned(tensor) => unsafe {
                std::slice::from_raw_parts(tensor.data_ptr().cast::<u8>(), tensor.numel())
            },
        }
    }

    fn pinned(&self) -> Option<&Tensor> {
        match &self.0 {
            Memory::Pageable(_) => None,
            Memory::Pinned(tensor) => Some(tensor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_memory_hold_the_same_bytes() {
        let bytes: Vec<u8> = (0..=255).collect();
        let pageable = HostPixels::new(bytes.clone(), Device::Cpu);
        assert!((&pageable).pinned().is_none());
        let tensor = HostPixels(Memory::Pinned(Tensor::from_slice(&bytes)));
        assert_eq!((&pageable).bytes(), bytes);
        assert_eq!((&tensor).bytes(), bytes);
    }
}
