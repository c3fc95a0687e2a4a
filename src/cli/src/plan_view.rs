//! A plan as a table, as JSON and as a Mermaid graph.

use std::collections::BTreeMap;
use std::fmt::Write;

use plan::{Checkpointing, Fold, JobId, JobKind, JobSpec, Plan, Spread};
use serde::Serialize;

use crate::table::{self, Column};
use crate::units;

/// A plan, and what it comes to on so many ranks.
#[derive(Serialize)]
pub struct PlanView<'p> {
    name: &'p str,
    hash: &'p str,
    /// Ranks that are there; where the recipe is elastic, a training job may take fewer.
    ranks: usize,
    /// What is to be said of those that do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    elastic: Vec<String>,
    /// Bytes of the checkpoints that stay, as far as the architectures' sizes are known.
    checkpoint_bytes: u64,
    jobs: Vec<JobView<'p>>,
}

#[derive(Serialize)]
struct JobView<'p> {
    id: &'p JobId,
    hash: &'p str,
    needs: &'p [JobId],
    ranks: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    training: Option<TrainingView<'p>>,
}

#[derive(Serialize)]
struct TrainingView<'p> {
    stage: &'static str,
    arch: &'p str,
    fold: Fold,
    seed: u64,
    epochs: u64,
    batch: u64,
    micro_batch: usize,
    accumulation: usize,
    /// Bytes of one checkpoint; absent where the architecture's size is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint_bytes: Option<u64>,
}

impl<'p> PlanView<'p> {
    /// `spreads` is of [`crate::batch::spreads`] with the same ranks.
    pub fn new(plan: &'p Plan, ranks: usize, spreads: &BTreeMap<&str, Spread>) -> Self {
        let jobs: Vec<JobView> = plan
            .jobs
            .iter()
            .map(|job| JobView::new(job, spreads))
            .collect();
        let one_each: u64 = jobs
            .iter()
            .filter_map(|job| job.training.as_ref()?.checkpoint_bytes)
            .sum();
        // Those that are kept for good come on top.
        let Checkpointing {
            keep_last,
            keep_best,
            ..
        } = &plan.checkpoint;
        let at_a_time = keep_last + u64::from(!keep_best.is_empty());
        PlanView {
            name: &plan.name,
            hash: &plan.hash,
            ranks,
            elastic: plan::elastic_words(plan, ranks),
            checkpoint_bytes: one_each.saturating_mul(at_a_time),
            jobs,
        }
    }

    /// One row a job, in the order in which they run, and the sums below.
    pub fn table(&self) -> String {
        let mut table = table::new(&[
            Column::Text("job"),
            Column::Text("after"),
            Column::Number("epochs"),
            Column::Number("batch"),
            Column::Text("= micro-batch x ranks x accumulation"),
            Column::Number("checkpoint"),
        ]);
        for job in &self.jobs {
            let training = job.training.as_ref();
            table.add_row([
                job.id.to_string(),
                after(job.needs),
                table::or_dash(training.map(|training| training.epochs)),
                table::or_dash(training.map(|training| training.batch)),
                table::or_dash(training.map(|training| {
                    format!(
                        "{} x {} x {}",
                        training.micro_batch, job.ranks, training.accumulation
                    )
                })),
                table::or_dash(training.map(|training| {
                    training
                        .checkpoint_bytes
                        .map_or_else(|| "?".into(), units::bytes)
                })),
            ]);
        }
        let short_hash = self.hash.get(..12).unwrap_or(self.hash);
        let unknown = self
            .jobs
            .iter()
            .filter_map(|job| job.training.as_ref())
            .filter(|training| training.checkpoint_bytes.is_none())
            .count();
        let without = match unknown {
            0 => String::new(),
            count => format!(" and those of {count} models of unknown size"),
        };
        let elastic: String = self
            .elastic
            .iter()
            .map(|line| format!("{line}\n"))
            .collect();
        format!(
            "{}\n\n{elastic}{}: {} on {}; {} of checkpoints stay on disk{without}; plan {short_hash}\n",
            table.trim_fmt(),
            self.name,
            units::count(self.jobs.len(), "job", "jobs"),
            units::count(self.ranks, "rank", "ranks"),
            units::bytes(self.checkpoint_bytes),
        )
    }

    /// A graph that GitHub and GitLab draw in a ```mermaid block.
    pub fn mermaid(&self) -> String {
        let number: BTreeMap<&JobId, usize> = self
            .jobs
            .iter()
            .enumerate()
            .map(|(index, job)| (job.id, index))
            .collect();
        let mut text = String::from("flowchart LR\n");
        for (index, job) in self.jobs.iter().enumerate() {
            // Writing to a string does not fail.
            let _ = writeln!(text, "    j{index}[\"{}\"]", job.id);
        }
        for (index, job) in self.jobs.iter().enumerate() {
            for need in job.needs.iter().filter_map(|need| number.get(need)) {
                let _ = writeln!(text, "    j{need} --> j{index}");
            }
        }
        text
    }
}

impl<'p> JobView<'p> {
    fn new(job: &'p JobSpec, spreads: &BTreeMap<&str, Spread>) -> Self {
        let spread = spreads.get(job.id.as_str());
        let training = match &job.kind {
            JobKind::Train {
                stage,
                fold,
                seed,
                training,
                ..
            } => spread.map(|spread| TrainingView {
                stage: stage.name(),
                arch: &training.arch,
                fold: *fold,
                seed: *seed,
                epochs: training.epochs,
                batch: training.batch,
                micro_batch: spread.split.micro_batch,
                accumulation: spread.split.accumulation,
                checkpoint_bytes: plan::cost(&job.kind).map(|cost| cost.checkpoint_bytes),
            }),
            _ => None,
        };
        JobView {
            id: &job.id,
            hash: &job.hash,
            needs: &job.needs,
            ranks: spread.map_or(1, |spread| spread.ranks),
            training,
        }
    }
}

/// The jobs that one waits for; many are counted.
fn after(needs: &[JobId]) -> String {
    match needs {
        [] => "-".into(),
        [one] => one.to_string(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}
