//! Which NVIDIA GPUs a run may use, told from what the driver shows, without libtorch.

use serde::Serialize;

use crate::LaunchError;

/// The GPUs that ranks will see, and how that was found out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Gpus {
    /// How many a run may use.
    pub count: usize,
    /// Models as the driver names them; empty where it does not.
    pub models: Vec<String>,
    /// What was found, one sentence each.
    pub evidence: Vec<String>,
}

/// Looks for GPUs.
pub fn find() -> Gpus {
    Gpus::default()
}

/// The GPUs, where there are at least `n`.
pub fn require(n: usize) -> Result<Gpus, LaunchError> {
    Err(LaunchError::Gpus(format!("{n}")))
}
