//! How the batches of a plan are spread over ranks, checked before anything starts.

use std::collections::{BTreeMap, BTreeSet};

use plan::{JobKind, Plan, Spread};

use crate::exit;

/// The ranks of each training job and its batch on them, by its id; all that cannot be spread is told at once.
pub fn spreads(plan: &Plan, ranks: usize) -> anyhow::Result<BTreeMap<&str, Spread>> {
    let mut spreads = BTreeMap::new();
    // A stage's folds and seeds are alike; its models may not be.
    let mut models: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut faults: BTreeMap<(&str, String), BTreeSet<&str>> = BTreeMap::new();
    for job in &plan.jobs {
        let JobKind::Train {
            stage, training, ..
        } = &job.kind
        else {
            continue;
        };
        let model = job.model().unwrap_or(&training.arch);
        models.entry(stage.name()).or_default().insert(model);
        match plan::spread(training, ranks, plan.elastic) {
            Ok(spread) => {
                spreads.insert(job.id.as_str(), spread);
            }
            Err(error) => {
                let fault = (stage.name(), error.to_string());
                faults.entry(fault).or_default().insert(model);
            }
        }
    }
    if faults.is_empty() {
        return Ok(spreads);
    }
    let line = |((stage, error), of): (&(&str, String), &BTreeSet<&str>)| {
        let several = models.get(stage).is_some_and(|models| models.len() > 1);
        let of: Vec<&str> = of.iter().copied().collect();
        match several {
            true => format!("{stage}.models ({}): {error}", of.join(", ")),
            false => format!("{stage}.training: {error}"),
        }
    };
    let lines: Vec<String> = faults.iter().map(line).collect();
    Err(exit::wrong_use(lines.join("\n")))
}
