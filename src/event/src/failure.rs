//! Why a rank failed, as it is written to `failure-rank<r>.json` and into the event stream.

use serde::{Deserialize, Serialize};

use crate::{Phase, Samples};

/// One rank's failure. The earliest of an attempt is the cause; later ones are its consequences.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FailureReport {
    /// Seconds since the Unix epoch at which the failure was noticed.
    pub failed_at: f64,
    pub class: FailureClass,
    /// What failed, with its causes, in words.
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
    /// How the process ended: `exit 1`, `signal 9`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<String>,
    /// What the rank computed on: `cpu`, `cuda:1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Collectives that it had issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// What it worked on, as it last said; none where it had no sample in hand.
    #[serde(default, skip_serializing_if = "Samples::is_empty")]
    pub samples: Samples,
    /// Frames of its main thread, innermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stack: Vec<String>,
    /// State of its process as Linux told it, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// What the launcher did about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<String>,
    /// What the user can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl FailureReport {
    /// One of which no more is known yet. `failed_at`: seconds since the Unix epoch.
    pub fn new(failed_at: f64, class: FailureClass, message: impl Into<String>) -> Self {
        FailureReport {
            failed_at,
            class,
            message: message.into(),
            ..FailureReport::default()
        }
    }
}

/// What kind of failure it was; the retry policy looks at nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// A file of the data set is bad: trying again cannot help.
    Data,
    /// The plan or the recipe asks for what this program or machine does not have.
    Setup,
    /// The disk is full or not writable.
    Disk,
    /// A peer was lost or a collective timed out: usually the consequence of another rank's failure.
    Collective,
    /// The process was killed by a signal.
    Killed,
    /// The process came no further, and the launcher ended it.
    Stalled,
    /// The device has no memory left.
    DeviceMemory,
    /// The host has no memory left: the allocator said so, or the kernel killed the process for it.
    HostMemory,
    /// The device is gone, or can no longer be trusted.
    DeviceLost,
    /// The loss or the gradient is no longer finite: the same steps would come to the same.
    Diverged,
    /// Ranks that should hold the same weights do not: a machine computes wrong, and would again.
    Replicas,
    /// Anything else that a rank reported.
    #[default]
    Other,
}

impl FailureClass {
    /// The word that it has in events.
    pub fn as_str(self) -> &'static str {
        match self {
            FailureClass::Data => "data",
            FailureClass::Setup => "setup",
            FailureClass::Disk => "disk",
            FailureClass::Collective => "collective",
            FailureClass::Killed => "killed",
            FailureClass::Stalled => "stalled",
            FailureClass::DeviceMemory => "device_memory",
            FailureClass::HostMemory => "host_memory",
            FailureClass::DeviceLost => "device_lost",
            FailureClass::Diverged => "diverged",
            FailureClass::Replicas => "replicas",
            FailureClass::Other => "other",
        }
    }

    /// Whether starting the job anew from its newest checkpoint may help.
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            FailureClass::Collective
                | FailureClass::Killed
                | FailureClass::Stalled
                | FailureClass::Other
        )
    }

    /// The exit code with which a rank reports this class (DESIGN.md's codes).
    pub fn exit_code(self) -> i32 {
        match self {
            FailureClass::Data => 4,
            FailureClass::Setup | FailureClass::Disk | FailureClass::DeviceLost => 3,
            FailureClass::Collective
            | FailureClass::Killed
            | FailureClass::Stalled
            | FailureClass::DeviceMemory
            | FailureClass::HostMemory
            | FailureClass::Diverged
            | FailureClass::Replicas
            | FailureClass::Other => 1,
        }
    }

    /// The class that a library's own words give away: libtorch and CUDA raise one kind of error for all that ails a device.
    pub fn of_message(message: &str) -> Option<Self> {
        let message = message.to_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
        if says(&DEVICE_LOST) {
            Some(FailureClass::DeviceLost)
        } else if says(&DEVICE_MEMORY) {
            Some(FailureClass::DeviceMemory)
        } else if says(&HOST_MEMORY) {
            Some(FailureClass::HostMemory)
        } else {
            None
        }
    }
}

/// libtorch's allocator, cuBLAS and cuDNN, and CUDA's own text.
const DEVICE_MEMORY: [&str; 3] = [
    "cuda out of memory",
    "cuda error: out of memory",
    "status_alloc_failed",
];
/// libtorch's CPU allocator, the C library, C++.
const HOST_MEMORY: [&str; 4] = [
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory: you tried to allocate",
    "std::bad_alloc",
];
/// The texts of CUDA's and NVML's errors.
const DEVICE_LOST: [&str; 5] = [
    "fallen off the bus",
    "uncorrectable ecc",
    "no cuda-capable device",
    "device is lost",
    "gpu is lost",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_has_one_word() {
        for class in [
            FailureClass::Data,
            FailureClass::Setup,
            FailureClass::Disk,
            FailureClass::Collective,
            FailureClass::Killed,
            FailureClass::Stalled,
            FailureClass::DeviceMemory,
            FailureClass::HostMemory,
            FailureClass::DeviceLost,
            FailureClass::Diverged,
            FailureClass::Replicas,
            FailureClass::Other,
        ] {
            let word = serde_json::to_value(class).unwrap();
            assert_eq!(word.as_str(), Some(class.as_str()));
        }
    }

    #[test]
    fn libraries_give_the_class_away() {
        for (message, class) in [
            (
                "CUDA out of memory. Tried to allocate 2.00 GiB.",
                Some(FailureClass::DeviceMemory),
            ),
            (
                "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried",
                Some(FailureClass::HostMemory),
            ),
            (
                "CUDA error: uncorrectable ECC error encountered",
                Some(FailureClass::DeviceLost),
            ),
            ("CUDA error: an illegal memory access was encountered", None),
        ] {
            assert_eq!(FailureClass::of_message(message), class, "{message}");
        }
    }
}
