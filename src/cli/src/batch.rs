//! How the batches of a plan are spread over ranks, checked before anything starts.

use std::collections::{BTreeMap, BTreeSet};

use plan::{JobKind, Plan, Spread};

use crate::exit;

/// The ranks of each training job and its batch on them, by its id; all that cannot be spread is told at once.
pub fn spreads(plan: &Plan, ranks: usize) -> anyhow::Result<BTreeMap<&str, Spread>> {
    let mut spreads = BTreeMap::new();
    // Of a stage's folds and seeds alike.
    let mut faults = BTreeSet::new();
    for job in &plan.jobs {
        let JobKind::Train {
            stage, training, ..
        } = &job.kind
        else {
            continue;
        };
        match plan::spread(training, ranks, plan.elastic) {
            Ok(spread) => {
                spreads.insert(job.id.as_str(), spread);
            }
            Err(error) => {
                faults.insert(format!("{}.training: {error}", stage.name()));
            }
        }
    }
    if faults.is_empty() {
        return Ok(spreads);
    }
    let lines: Vec<String> = faults.into_iter().collect();
    Err(exit::wrong_use(lines.join("\n")))
}
