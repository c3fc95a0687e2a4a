//! How busy the GPU of a rank is, as its driver tells.

use serde::{Deserialize, Serialize};

/// One GPU over the last seconds. It counts what every process does there, not only the rank's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GpuUse {
    /// Its UUID: `GPU-...`, or `MIG-...` of a part of one.
    pub id: String,
    /// Such as `NVIDIA H100 80GB HBM3`.
    pub model: String,
    /// Share of the time in which it computed anything, 0 to 1; none of a part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization: Option<f64>,
    /// Bytes in use and in all; none where it shares the host's memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_used: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_total: Option<u64>,
}
