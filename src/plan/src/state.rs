//! The states of a job and which transitions there are; and which job may start next.

use serde::{Deserialize, Serialize};

use crate::{JobId, JobSpec, Plan};

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for other jobs or for ranks.
    Pending,
    /// Its ranks are at work.
    Running,
    /// Done; its tables and checkpoint are durable. Final.
    Succeeded,
    /// Out of retries, or a failure that no retry can cure. A new launch tries again.
    Failed,
    /// Stopped on request; goes on from its newest checkpoint.
    Stopped,
}

impl JobState {
    pub fn as_str(self) -> &'static str {
        match self {
            JobState::Pending => "pending",
            JobState::Running => "running",
            JobState::Succeeded => "succeeded",
            JobState::Failed => "failed",
            JobState::Stopped => "stopped",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [
            JobState::Pending,
            JobState::Running,
            JobState::Succeeded,
            JobState::Failed,
            JobState::Stopped,
        ]
        .into_iter()
        .find(|state| state.as_str() == text)
    }

    /// Whether a job may go from this state to that one.
    pub fn may_become(self, next: JobState) -> bool {
        use JobState::*;
        match (self, next) {
            // A job found running at a launch belongs to a launcher that died.
            (Pending | Running | Stopped | Failed, Running) => true,
            (Running, Succeeded | Failed | Stopped) => true,
            // A plan that changed makes a finished job's outcome void.
            (_, Pending) => true,
            _ => false,
        }
    }
}

impl std::fmt::Display for JobState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A job and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub id: JobId,
    pub state: JobState,
    pub attempt: u32,
}

/// The jobs that may start now, in the plan's order: not yet run, and all that they need is there.
pub fn ready(plan: &Plan, state: impl Fn(&JobId) -> JobState) -> Vec<&JobSpec> {
    plan.jobs
        .iter()
        .filter(|job| matches!(state(&job.id), JobState::Pending | JobState::Stopped))
        .filter(|job| {
            job.needs
                .iter()
                .all(|need| state(need) == JobState::Succeeded)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use JobState::*;

    #[test]
    fn what_has_succeeded_only_a_new_plan_undoes() {
        for next in [Running, Failed, Stopped] {
            assert!(!Succeeded.may_become(next));
        }
        assert!(Succeeded.may_become(Pending));
    }

    #[test]
    fn nothing_succeeds_without_having_run() {
        for state in [Pending, Failed, Stopped] {
            assert!(!state.may_become(Succeeded));
        }
    }

    #[test]
    fn words_and_states_agree() {
        for state in [Pending, Running, Succeeded, Failed, Stopped] {
            assert_eq!(JobState::parse(state.as_str()), Some(state));
        }
    }
}
