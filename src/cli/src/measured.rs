//! What a run has shown: how long its jobs took, and which are done.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use event::EventKind;
use plan::{Had, JobId, JobState, Measured, Plan, Run};

use crate::exit;

/// A run, read once.
pub struct MeasuredRun {
    pub plan: Plan,
    measured: BTreeMap<JobId, Measured>,
    had: BTreeMap<JobId, Had>,
}

impl MeasuredRun {
    /// # Errors
    /// A folder that holds no run.
    pub fn read(run_dir: &Path) -> anyhow::Result<Self> {
        let status = launcher::status(run_dir)?;
        let plan = plan::read(&run_dir.join("plan.json"))?;
        let mut updates = updates(&run_dir.join("events.jsonl"))?;
        let mut measured = BTreeMap::new();
        let mut had = BTreeMap::new();
        for job in status.jobs {
            let known = updates.remove(job.id.as_str()).unwrap_or_default();
            let is_done = job.state == JobState::Succeeded;
            let devices = known.world_size.max(1) as f64;
            let of = Measured {
                finished: is_done.then_some(job.seconds * devices),
                per_image: median(known.per_image),
            };
            let of_run = match (is_done, job.attempt) {
                (true, _) => Had::Done,
                (false, 0) => Had::Nothing,
                (false, _) => Had::Begun,
            };
            had.insert(job.id.clone(), of_run);
            measured.insert(job.id, of);
        }
        Ok(MeasuredRun {
            plan,
            measured,
            had,
        })
    }

    /// For estimates of other jobs.
    pub fn run(&self) -> Run<'_> {
        Run {
            plan: &self.plan,
            measured: &self.measured,
        }
    }

    pub fn had(&self, job: &JobId) -> Had {
        self.had.get(job).copied().unwrap_or(Had::Nothing)
    }

    /// Whether the run has done this job as the plan has it.
    pub fn has_done(&self, job: &plan::JobSpec) -> bool {
        let then = self.plan.job(job.id.as_str());
        then.is_some_and(|then| then.hash == job.hash) && self.had(&job.id) == Had::Done
    }
}

/// The updates of a job.
#[derive(Default)]
struct Updates {
    /// Of the newest attempt.
    world_size: usize,
    /// Seconds times ranks, for each image.
    per_image: Vec<f64>,
}

/// By job. A line that is no event is passed over: a killed launcher may leave half of one.
fn updates(path: &Path) -> anyhow::Result<BTreeMap<String, Updates>> {
    let file = File::open(path).map_err(|error| {
        exit::fault(
            exit::MACHINE,
            format!("cannot read {}: {error}", path.display()),
        )
    })?;
    let mut by_job: BTreeMap<String, Updates> = BTreeMap::new();
    for line in BufReader::new(file).split(b'\n') {
        let line = line?;
        let Ok(event) = event::parse_line(&String::from_utf8_lossy(&line)) else {
            continue;
        };
        let Some(job) = event.job else { continue };
        match event.kind {
            EventKind::JobStarted { world_size } => {
                by_job.entry(job).or_default().world_size = world_size;
            }
            EventKind::Step(step) if step.images > 0 => {
                let of = by_job.entry(job).or_default();
                let device_seconds = step.seconds * of.world_size.max(1) as f64;
                of.per_image.push(device_seconds / step.images as f64);
            }
            _ => {}
        }
    }
    Ok(by_job)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.retain(|value| value.is_finite() && *value > 0.0);
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
