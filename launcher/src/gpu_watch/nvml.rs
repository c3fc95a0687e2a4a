//! The GPUs that CUDA's names mean, as NVIDIA's management library (NVML) knows them. Its errors are all one: it does not tell.

use nvml_wrapper::{Device, Nvml};

pub(super) struct Gpu<'n> {
    device: Device<'n>,
    /// Its UUID.
    pub id: String,
    pub model: String,
}

impl<'n> Gpu<'n> {
    /// The GPU that an entry of CUDA_VISIBLE_DEVICES means: a number, where numbers go `by_address`, the beginning of a
    /// GPU's UUID, or the UUID of a part of one (MIG).
    pub fn find(nvml: &'n Nvml, name: &str, by_address: bool) -> Option<Self> {
        let device = if name.starts_with("MIG-") {
            nvml.device_by_uuid(name).ok()?
        } else if name.starts_with("GPU-") {
            let is_it = |device: &Device<'_>| device.uuid().is_ok_and(|id| id.starts_with(name));
            let mut found = all(nvml).filter(is_it);
            // A beginning that several share names none of them.
            found.next().filter(|_| found.next().is_none())?
        } else {
            let place = name.parse().ok().filter(|_| by_address)?;
            in_order(nvml).into_iter().nth(place)?
        };
        Some(Gpu {
            id: device.uuid().ok()?,
            model: device.name().ok()?,
            device,
        })
    }

    /// Share of the last moment in which it computed anything, 0 to 1.
    pub fn utilization(&self) -> Option<f64> {
        let percent = self.device.utilization_rates().ok()?.gpu;
        Some(f64::from(percent.min(100)) / 100.0)
    }

    /// Bytes in use and in all.
    pub fn memory(&self) -> Option<(u64, u64)> {
        let memory = self.device.memory_info().ok()?;
        Some((memory.used, memory.total))
    }
}

/// Those that this process may use: CUDA does not count the others either.
fn all(nvml: &Nvml) -> impl Iterator<Item = Device<'_>> {
    let count = nvml.device_count().unwrap_or(0);
    (0..count).filter_map(|index| nvml.device_by_index(index).ok())
}

/// As CUDA counts them with CUDA_DEVICE_ORDER=PCI_BUS_ID.
fn in_order(nvml: &Nvml) -> Vec<Device<'_>> {
    let placed = all(nvml).filter_map(|device| Some((device.pci_info().ok()?, device)));
    let mut placed: Vec<_> = placed
        .map(|(at, device)| ((at.domain, at.bus, at.device), device))
        .collect();
    placed.sort_by_key(|(at, _)| *at);
    placed.into_iter().map(|(_, device)| device).collect()
}
