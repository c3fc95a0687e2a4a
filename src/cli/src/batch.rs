//! How the batches of a plan are spread over ranks, checked before anything starts.

use std::collections::BTreeMap;

use plan::{JobKind, Plan, Split};

use crate::exit;

/// The split of each trained stage, by its name; all that cannot be split is told at once.
pub fn splits(plan: &Plan, ranks: usize) -> anyhow::Result<BTreeMap<&'static str, Split>> {
    let mut splits = BTreeMap::new();
    let mut faults = BTreeMap::new();
    for job in &plan.jobs {
        let JobKind::Train {
            stage, training, ..
        } = &job.kind
        else {
            continue;
        };
        match plan::accumulation(training, ranks) {
            Ok(split) => {
                splits.insert(stage.name(), split);
            }
            Err(error) => {
                faults.insert(stage.name(), error);
            }
        }
    }
    if faults.is_empty() {
        return Ok(splits);
    }
    let lines: Vec<String> = faults
        .iter()
        .map(|(stage, error)| format!("{stage}.training: {error}"))
        .collect();
    Err(exit::wrong_use(lines.join("\n")))
}
