//! What a rank says of the libtorch that it is linked to, as `spinectl doctor` asks for it: the command line links none.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What was found. Each `Err` says what is missing, in words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// The version that libtorch's folder names; none where it names none.
    pub libtorch_version: Option<String>,
    /// The folder that it was loaded from.
    pub libtorch_folder: Option<PathBuf>,
    /// Threads that an operator on the CPU uses.
    pub threads: i32,
    /// Whether a store on loopback and a Gloo group of one rank came to be, and took a tensor.
    pub gloo: Result<(), String>,
    /// Whether libtorch's GPU half loads. It may do so without a GPU.
    pub cuda: Result<(), String>,
    /// The GPUs that libtorch sees.
    pub devices: Result<Vec<DeviceMemory>, String>,
    /// NCCL's version: 2.27.3.
    pub nccl: Result<String, String>,
}

/// Bytes of a GPU's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMemory {
    pub free: u64,
    pub total: u64,
}
