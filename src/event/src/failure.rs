//! Why a rank failed, as it is written to `failure-rank<r>.json` and into the event stream.

use serde::{Deserialize, Serialize};

use crate::Phase;

/// One rank's failure. The earliest of an attempt is the cause; later ones are its consequences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
}

/// What kind of failure it was; the retry policy looks at nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The loss or the gradient is no longer finite: the same steps would come to the same.
    Diverged,
    /// Ranks that should hold the same weights do not: a machine computes wrong, and would again.
    Replicas,
    /// Anything else that a rank reported.
    Other,
}

impl FailureClass {
    /// Whether starting the job anew from its newest checkpoint may help.
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            FailureClass::Collective | FailureClass::Killed | FailureClass::Other
        )
    }

    /// The exit code with which a rank reports this class (DESIGN.md's codes).
    pub fn exit_code(self) -> i32 {
        match self {
            FailureClass::Data => 4,
            FailureClass::Setup | FailureClass::Disk => 3,
            FailureClass::Collective
            | FailureClass::Killed
            | FailureClass::Diverged
            | FailureClass::Replicas
            | FailureClass::Other => 1,
        }
    }
}
