//! Whether two runs of one plan came to the same end, to the bit: what `launch --verify-resume` says, and what the tests
//! hold a disturbed run to.

mod checkpoints;
mod losses;
mod tables;
#[cfg(test)]
mod tests;

use std::path::Path;

use serde::Serialize;

use crate::LaunchError;
use crate::run_dir::RunDir;

/// A kind of thing that two runs were compared in.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    pub what: What,
    /// How many there were: checkpoints, files, records of updates.
    pub count: usize,
    /// Bytes of them; none where that says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Each names file, tensor or step, and what either run has; empty where the runs are the same.
    pub differences: Vec<String>,
    /// What was not compared, and why that is no difference.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The model's tensors in the checkpoints that both runs kept, the last one of each job among them.
    Weights,
    /// The optimizer's in the same.
    Optimizer,
    /// `trainer.json` of the same, but for the ledger's hash: the ledger tells of each attempt.
    Trainer,
    /// CSV tables, metrics and the summary.
    Tables,
    /// What `events.jsonl` says of every update, also of those that were done again.
    Losses,
}

impl What {
    pub fn as_str(self) -> &'static str {
        match self {
            What::Weights => "weights",
            What::Optimizer => "optimizer state",
            What::Trainer => "trainer state",
            What::Tables => "tables and metrics",
            What::Losses => "losses",
        }
    }
}

impl Compared {
    fn new(what: What) -> Self {
        Compared {
            what,
            count: 0,
            bytes: None,
            differences: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn add(&mut self, bytes: u64) {
        self.count += 1;
        *self.bytes.get_or_insert(0) += bytes;
    }
}

/// Compares what two finished runs of the same plan hand on. What is missing, or cannot be read, is a difference.
///
/// # Errors
/// Where one of them is no run directory, or they are runs of different plans.
pub fn compare(undisturbed: &Path, disturbed: &Path) -> Result<Vec<Compared>, LaunchError> {
    let runs = Runs {
        one: RunDir::with_a_run(undisturbed)?,
        other: RunDir::with_a_run(disturbed)?,
    };
    let read = |dir: &RunDir| plan::read(&dir.plan()).map_err(LaunchError::io("read", &dir.plan()));
    let plan = read(&runs.one)?;
    if plan.hash != read(&runs.other)?.hash {
        return Err(LaunchError::OtherPlan {
            one: undisturbed.to_owned(),
            other: disturbed.to_owned(),
        });
    }
    let [weights, optimizer, trainer] = checkpoints::compare(&plan, &runs);
    let tables = tables::compare(&runs);
    let losses = losses::compare(&runs);
    Ok(vec![weights, optimizer, trainer, tables, losses])
}

/// The two runs.
struct Runs {
    one: RunDir,
    other: RunDir,
}

impl Runs {
    /// The name of the first one's folder and of the other's, to tell them apart in words.
    fn names(&self) -> [String; 2] {
        [&self.one, &self.other].map(|dir| {
            let name = dir.root().file_name().unwrap_or_default();
            name.display().to_string()
        })
    }
}
