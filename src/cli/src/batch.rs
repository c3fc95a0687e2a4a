//! How the batches of a plan are spread over ranks, checked before anything starts.

use std::collections::BTreeMap;

use plan::{JobKind, Plan, Spread};

use crate::exit;

/// The ranks of each trained stage and its batch on them, by its name; all that cannot be spread is told at once.
pub fn spreads(plan: &Plan, ranks: usize) -> anyhow::Result<BTreeMap<&'static str, Spread>> {
    let mut spreads = BTreeMap::new();
    let mut faults = BTreeMap::new();
    for job in &plan.jobs {
        let JobKind::Train {
            stage, training, ..
        } = &job.kind
        else {
            continue;
        };
        match plan::spread(training, ranks, plan.elastic) {
            Ok(spread) => {
                spreads.insert(stage.name(), spread);
            }
            Err(error) => {
                faults.insert(stage.name(), error);
            }
        }
    }
    if faults.is_empty() {
        return Ok(spreads);
    }
    let lines: Vec<String> = faults
        .iter()
        .map(|(stage, error)| format!("{stage}.training: {error}"))
        .collect();
    Err(exit::wrong_use(lines.join("\n")))
}
