//! What a launch would keep of a run and what it would do again, as a table and as JSON.

use std::collections::BTreeMap;
use std::path::Path;

use plan::{Change, Fate, Plan};
use serde::Serialize;

use crate::measured::MeasuredRun;
use crate::table::{self, Column};
use crate::{inputs, units};

/// The difference between a run and a plan.
#[derive(Serialize)]
pub struct PlanDiff<'d> {
    run_dir: &'d Path,
    /// The run's plan, and the plan that a launch would have.
    earlier_hash: &'d str,
    hash: &'d str,
    /// Why a launch would not go on with the run at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    counts: BTreeMap<Fate, usize>,
    jobs: Vec<Change>,
}

impl<'d> PlanDiff<'d> {
    pub fn new(run_dir: &'d Path, run: &'d MeasuredRun, plan: &'d Plan) -> Self {
        let refused = inputs::may_follow(&run.plan, plan, run_dir);
        let jobs = plan::diff(&run.plan, plan, |job| run.had(job));
        let mut counts = BTreeMap::new();
        for job in &jobs {
            *counts.entry(job.fate).or_default() += 1;
        }
        PlanDiff {
            run_dir,
            earlier_hash: &run.plan.hash,
            hash: &plan.hash,
            refused: refused.err().map(|error| error.to_string()),
            counts,
            jobs,
        }
    }

    /// One row a job, and the sums below.
    pub fn table(&self) -> String {
        let mut table = table::new(&[
            Column::Text("job"),
            Column::Text("fate"),
            Column::Text("why"),
        ]);
        for job in &self.jobs {
            let why = match (job.fate, job.why.split_first()) {
                (_, Some((first, rest))) if rest.len() > 2 => {
                    format!("{first}; {} and {} more", rest[0], rest.len() - 1)
                }
                (_, Some(_)) => job.why.join("; "),
                (Fate::Kept, None) => "done, and nothing that it depends on has changed".to_owned(),
                (Fate::Open, None) => "not done yet".to_owned(),
                (Fate::Gone, None) => "not in this plan: its files stay".to_owned(),
                (_, None) => "not in the run's plan".to_owned(),
            };
            table.add_row([job.id.as_str(), job.fate.as_str(), &why]);
        }
        let counts: Vec<String> = self
            .counts
            .iter()
            .map(|(fate, count)| format!("{count} {}", fate.as_str()))
            .collect();
        let run = self.run_dir.display();
        let refused = match &self.refused {
            None => String::new(),
            Some(why) => format!("\nA launch would not go on with this run: {why}"),
        };
        format!(
            "{}\n\n{}: {} in {run}{refused}\n",
            table.trim_fmt(),
            units::count(self.jobs.len(), "job", "jobs"),
            counts.join(", "),
        )
    }
}
