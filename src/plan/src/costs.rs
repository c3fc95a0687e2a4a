//! What the jobs of a plan cost: device time, disk and memory, as far as that can be told before they have run.

use std::collections::BTreeMap;

use recipe::Device;
use serde::Serialize;

use crate::memory::{Memory, memory};
use crate::schedule::Task;
use crate::volume::{flops, flops_per_image, slices, volume};
use crate::{Checkpointing, JobId, JobKind, Plan, TrainStage};

/// Seconds that the first job takes for a slice on a machine of many cores.
const SECONDS_PER_SLICE: f64 = 1e-3;
/// Seconds of a job that merges tables.
const TABLE_SECONDS: f64 = 5.0;
/// Bytes of a row of a table, and of a sample in the ledger.
const ROW: f64 = 120.0;
const LEDGER_ENTRY: f64 = 70.0;

/// What jobs are to run on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    pub device: Device,
    /// Floating-point operations that a device (with `Cpu`, a rank) sustains in a second, where nothing was measured.
    pub flops: f64,
}

/// What a run has shown of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// Wall seconds of all its attempts times its devices, where it has succeeded.
    pub finished: Option<f64>,
    /// Seconds of an update times its devices, for each of its images; of the median update.
    pub per_image: Option<f64>,
}

/// A run to measure by.
#[derive(Clone, Copy, Debug)]
pub struct Run<'r> {
    pub plan: &'r Plan,
    pub measured: &'r BTreeMap<JobId, Measured>,
}

/// Where an estimate of time comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The job has run, and has not changed since.
    Ran,
    /// From jobs of the same stage and architecture in the run.
    Measured,
    /// From the FLOP/s of other stages in the run.
    OtherStages,
    /// From the FLOP/s that were assumed.
    Assumed,
    /// Work on tables: a rule of thumb.
    Host,
}

impl Source {
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Ran => "ran",
            Source::Measured => "measured",
            Source::OtherStages => "other stages",
            Source::Assumed => "assumed",
            Source::Host => "host",
        }
    }
}

/// What a job costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JobCost {
    /// Seconds on one device; of jobs on tables, on the host.
    pub seconds: f64,
    pub source: Source,
    pub flops: f64,
    /// Bytes that stay in the run directory, at their most while it runs.
    pub disk: u64,
    pub memory: Memory,
}

impl JobCost {
    /// Seconds of devices; jobs on tables take none.
    pub fn device_seconds(&self, kind: &JobKind) -> f64 {
        match kind.is_training() {
            true => self.seconds,
            false => 0.0,
        }
    }
}

/// The costs of a plan's jobs, in its order, with the ranks that each will have.
pub fn costs(
    plan: &Plan,
    machine: Machine,
    ranks: impl Fn(&JobKind) -> usize,
    run: Option<Run>,
) -> Vec<JobCost> {
    let rates = run.map(Rates::of).unwrap_or_default();
    let cost = |job: &crate::JobSpec| {
        let flops = flops(plan, &job.kind);
        let (seconds, source) = match run.and_then(|run| ran(&run, job)) {
            Some(seconds) => (seconds, Source::Ran),
            None => time(plan, &job.kind, flops, machine, &rates),
        };
        JobCost {
            seconds,
            source,
            flops,
            disk: disk(plan, &job.kind),
            memory: memory(plan, &job.kind, machine.device, ranks(&job.kind)),
        }
    };
    plan.jobs.iter().map(cost).collect()
}

/// The jobs as the scheduler takes them. `widths`: on how many devices a job can run, ascending.
pub fn tasks(plan: &Plan, costs: &[JobCost], widths: impl Fn(&JobKind) -> Vec<usize>) -> Vec<Task> {
    let places: BTreeMap<&JobId, usize> = plan.jobs.iter().map(|job| &job.id).zip(0..).collect();
    let jobs = plan.jobs.iter().zip(costs);
    let task = jobs.map(|(job, cost)| Task {
        needs: job
            .needs
            .iter()
            .filter_map(|need| places.get(need).copied())
            .collect(),
        widths: widths(&job.kind),
        work: cost.seconds,
        memory: cost.memory.host,
        disk: cost.disk,
    });
    task.collect()
}

/// The time of a job that the run has done as this plan has it.
fn ran(run: &Run, job: &crate::JobSpec) -> Option<f64> {
    let then = run.plan.job(job.id.as_str())?;
    let measured = run.measured.get(&job.id)?;
    measured.finished.filter(|_| then.hash == job.hash)
}

fn time(plan: &Plan, kind: &JobKind, flops: f64, machine: Machine, rates: &Rates) -> (f64, Source) {
    let Some((stage, arch)) = model(kind) else {
        let seconds = match kind {
            JobKind::Labels => slices(plan) * SECONDS_PER_SLICE,
            _ => TABLE_SECONDS,
        };
        return (seconds, Source::Host);
    };
    let same = rates.of.get(&(stage, arch.to_owned()));
    let (rate, source) = match (same, rates.mean()) {
        (Some(pace), _) => (pace.rate(), Source::Measured),
        (None, Some(rate)) => (rate, Source::OtherStages),
        (None, None) => (machine.flops, Source::Assumed),
    };
    (flops / rate.max(1.0), source)
}

fn model(kind: &JobKind) -> Option<(&'static str, &str)> {
    let JobKind::Train {
        stage, training, ..
    } = kind
    else {
        return None;
    };
    Some((stage.name(), &training.arch))
}

/// Seconds of a device for one operation, summed over jobs: each counts as one, however much of it has run.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    jobs: f64,
    seconds: f64,
}

impl Pace {
    /// FLOP/s.
    fn rate(&self) -> f64 {
        self.jobs / self.seconds
    }
}

/// FLOP/s of a device in a run, by stage and architecture. The FLOPs cancel out for jobs of the same kind: what is left is time.
#[derive(Debug, Default)]
struct Rates {
    of: BTreeMap<(&'static str, String), Pace>,
}

impl Rates {
    fn of(run: Run) -> Self {
        let mut rates = Rates::default();
        for job in &run.plan.jobs {
            let (Some((stage, arch)), Some(measured)) =
                (model(&job.kind), run.measured.get(&job.id))
            else {
                continue;
            };
            // Stage 3 spends its time on features, which no update tells of.
            let is_study = matches!(
                &job.kind,
                JobKind::Train {
                    stage: TrainStage::Stage3 { .. },
                    ..
                }
            );
            let update = measured.per_image.filter(|_| !is_study);
            let (flops, seconds) = match (measured.finished, update) {
                (Some(seconds), _) => (flops(run.plan, &job.kind), seconds),
                (None, Some(seconds)) => (flops_per_image(&job.kind).0, seconds),
                (None, None) => continue,
            };
            if seconds > 0.0 && flops > 0.0 {
                let pace = rates.of.entry((stage, arch.to_owned())).or_default();
                pace.jobs += 1.0;
                pace.seconds += seconds / flops;
            }
        }
        rates
    }

    /// Of all stages.
    fn mean(&self) -> Option<f64> {
        let all = Pace {
            jobs: self.of.values().map(|pace| pace.jobs).sum(),
            seconds: self.of.values().map(|pace| pace.seconds).sum(),
        };
        (all.seconds > 0.0).then(|| all.rate())
    }
}

/// How many checkpoints of a job stay; those that are kept for good come on top.
pub fn at_a_time(of: &Checkpointing) -> u64 {
    of.keep_last + u64::from(!of.keep_best.is_empty())
}

/// Checkpoints that stay with the one that is being written, the out-of-fold table and the ledger.
fn disk(plan: &Plan, kind: &JobKind) -> u64 {
    let JobKind::Train { stage, .. } = kind else {
        return (slices(plan) * ROW) as u64;
    };
    let checkpoint = crate::cost(kind).map_or(0, |cost| cost.checkpoint_bytes);
    let checkpoints = at_a_time(&plan.checkpoint).saturating_add(1);
    let folds = plan.data.folds.max(1) as f64;
    let rows = match stage {
        TrainStage::Stage3 { .. } => 0.0,
        _ => slices(plan) / folds,
    };
    let tables = rows * ROW + volume(plan, kind).samples * LEDGER_ENTRY;
    checkpoint
        .saturating_mul(checkpoints)
        .saturating_add(tables as u64)
}

#[cfg(test)]
mod tests;
