//! A plan as a table, as JSON and as a Mermaid graph.

use std::collections::BTreeMap;
use std::fmt::Write;

use plan::{Fold, JobCost, JobId, JobKind, JobSpec, Memory, Plan, Source, Spread};
use serde::Serialize;

use crate::forecast::{self, Forecast};
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
    #[serde(flatten)]
    forecast: &'p Forecast<'p>,
    jobs: Vec<JobView<'p>>,
}

#[derive(Serialize)]
struct JobView<'p> {
    id: &'p JobId,
    hash: &'p str,
    needs: &'p [JobId],
    ranks: usize,
    /// Whether the run that was asked about has done it.
    done: bool,
    /// On one device; of jobs on tables, on the host.
    seconds: f64,
    seconds_from: Source,
    flops: f64,
    disk_bytes: u64,
    memory_bytes: Memory,
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
    /// `spreads` is of [`crate::batch::spreads`] with the same ranks, as is the forecast.
    pub fn new(
        plan: &'p Plan,
        ranks: usize,
        spreads: &BTreeMap<&str, Spread>,
        forecast: &'p Forecast<'p>,
    ) -> Self {
        let costs = forecast.costs.iter().zip(&forecast.done);
        let jobs = plan.jobs.iter().zip(costs);
        let jobs: Vec<JobView> = jobs
            .map(|(job, (cost, done))| JobView::new(job, spreads, cost, *done))
            .collect();
        let one_each: u64 = jobs
            .iter()
            .filter_map(|job| job.training.as_ref()?.checkpoint_bytes)
            .sum();
        PlanView {
            name: &plan.name,
            hash: &plan.hash,
            ranks,
            elastic: plan::elastic_words(plan, ranks),
            checkpoint_bytes: one_each.saturating_mul(plan::at_a_time(&plan.checkpoint)),
            forecast,
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
            Column::Number(self.forecast.hours_heading()),
            Column::Text("from"),
            Column::Number("GPU memory"),
            Column::Number("memory"),
            Column::Number("disk"),
        ]);
        for job in &self.jobs {
            let training = job.training.as_ref();
            let hours = training.map(|_| forecast::number(job.seconds / 3600.0));
            let from = match job.done {
                true => "done",
                false => job.seconds_from.as_str(),
            };
            table.add_row([
                job.id.to_string(),
                after(&shown_needs(job.needs, &self.jobs)),
                table::or_dash(training.map(|training| training.epochs)),
                table::or_dash(training.map(|training| training.batch)),
                table::or_dash(training.map(|training| {
                    format!(
                        "{} x {} x {}",
                        training.micro_batch, job.ranks, training.accumulation
                    )
                })),
                table::or_dash(hours),
                from.to_owned(),
                table::or_dash(job.memory_bytes.device.map(units::bytes)),
                units::bytes(job.memory_bytes.host),
                units::bytes(job.disk_bytes),
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
            "{}\n\n{elastic}{}: {} on {}; {} of checkpoints stay on disk{without}; plan {short_hash}\n{}",
            table.trim_fmt(),
            self.name,
            units::count(self.jobs.len(), "job", "jobs"),
            units::count(self.ranks, "rank", "ranks"),
            units::bytes(self.checkpoint_bytes),
            self.forecast.text(),
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
            let hours = match &job.training {
                Some(_) => format!(
                    "<br/>{} {}",
                    forecast::number(job.seconds / 3600.0),
                    self.forecast.hours_heading()
                ),
                None => String::new(),
            };
            let _ = writeln!(text, "    j{index}[\"{}{hours}\"]", job.id);
        }
        for (index, job) in self.jobs.iter().enumerate() {
            let needs = shown_needs(job.needs, &self.jobs);
            for need in needs.into_iter().filter_map(|need| number.get(need)) {
                let _ = writeln!(text, "    j{need} --> j{index}");
            }
        }
        let path = self.forecast.critical_path.jobs.iter();
        let done = self.jobs.iter().filter(|job| job.done).map(|job| job.id);
        let classes = [
            (
                "critical",
                path.copied().collect::<Vec<_>>(),
                "stroke-width:3px",
            ),
            ("done", done.collect(), "opacity:0.5"),
        ];
        for (class, jobs, style) in classes {
            let jobs = jobs.into_iter().filter_map(|job| number.get(job));
            let jobs: Vec<String> = jobs.map(|index| format!("j{index}")).collect();
            if !jobs.is_empty() {
                let _ = writeln!(text, "    classDef {class} {style}");
                let _ = writeln!(text, "    class {} {class}", jobs.join(","));
            }
        }
        text
    }
}

impl<'p> JobView<'p> {
    fn new(job: &'p JobSpec, spreads: &BTreeMap<&str, Spread>, cost: &JobCost, done: bool) -> Self {
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
            done,
            seconds: cost.seconds,
            seconds_from: cost.source,
            flops: cost.flops,
            disk_bytes: cost.disk,
            memory_bytes: cost.memory,
            training,
        }
    }
}

/// What a job waits for, without the first job of all where another one has waited for that already.
fn shown_needs<'n>(needs: &'n [JobId], jobs: &[JobView]) -> Vec<&'n JobId> {
    let first = jobs.first().map(|job| job.id);
    let others = needs.iter().filter(|need| Some(*need) != first);
    let others: Vec<&JobId> = others.collect();
    match others.is_empty() {
        true => needs.iter().collect(),
        false => others,
    }
}

/// The jobs that one waits for; many are counted.
fn after(needs: &[&JobId]) -> String {
    match needs {
        [] => "-".into(),
        [one] => one.to_string(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}
