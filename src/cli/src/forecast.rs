//! What a plan will cost on so many devices: time, disk, memory, critical path, and what more devices would gain.

use std::fmt::Write;

use plan::schedule::{Limits, critical_path};
use plan::{JobCost, JobId, JobKind, JobSpec, Machine, Plan, Source};
use recipe::Device;
use serde::Serialize;

use crate::measured::MeasuredRun;
use crate::table::{self, Column};
use crate::{exit, units};

/// What a GPU sustains where nothing was measured: resnest50d in fp16 at 512 pixels on an H200 (docs/gpu.md).
const GPU_TFLOPS: f64 = 54.0;
/// And a rank on a CPU: two cores with AVX-512 on a small ResNeSt (docs/benchmarks.md).
const CPU_TFLOPS: f64 = 0.05;
/// Numbers of devices for which the whole run is simulated, and that for which it is planned.
const NUMBERS: [usize; 6] = [1, 2, 4, 8, 16, 32];

/// What a forecast goes by.
#[derive(Clone, Copy)]
pub struct Grounds<'g> {
    pub device: Device,
    /// What a device sustains, in 10^12 floating-point operations a second.
    pub tflops: Option<f64>,
    pub run: Option<&'g MeasuredRun>,
}

/// The forecast of a plan.
#[derive(Serialize)]
pub struct Forecast<'p> {
    #[serde(skip)]
    device: Device,
    /// In the plan's order.
    #[serde(skip)]
    pub costs: Vec<JobCost>,
    /// Which of them are done.
    #[serde(skip)]
    pub done: Vec<bool>,
    /// Of all training jobs; where ranks are on CPUs, of ranks.
    pub device_hours: f64,
    /// Of those that are not done.
    pub device_hours_left: f64,
    /// 10^12 floating-point operations a second of a device, for what was not measured.
    pub assumed_tflops: f64,
    /// Whether the numbers of studies and slices are the data set's own; else they are the competition's.
    pub data_set_is_known: bool,
    /// At the most, with all jobs of the plan.
    pub disk_bytes: u64,
    pub critical_path: CriticalPath<'p>,
    /// How long what is not done takes on other numbers of devices; those on which a job cannot run are left out.
    pub by_devices: Vec<OnDevices>,
}

/// The chain of jobs that the run cannot be shorter than, done or not.
#[derive(Serialize)]
pub struct CriticalPath<'p> {
    pub seconds: f64,
    pub jobs: Vec<&'p JobId>,
}

/// The run on so many devices, as the scheduler would run it; work is taken to be shared without loss.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct OnDevices {
    pub devices: usize,
    pub seconds: f64,
    /// Over the first of these.
    pub speed_up: f64,
}

impl<'p> Forecast<'p> {
    /// `ranks` are those of `PlanView`: what there is.
    pub fn of(plan: &'p Plan, ranks: usize, grounds: Grounds) -> anyhow::Result<Self> {
        let assumed_tflops = grounds.tflops.unwrap_or(match grounds.device {
            Device::Cuda => GPU_TFLOPS,
            Device::Cpu => CPU_TFLOPS,
        });
        let machine = Machine {
            device: grounds.device,
            flops: assumed_tflops * 1e12,
        };
        let widest = |kind: &JobKind| widths(plan, kind, ranks).last().copied().unwrap_or(1);
        let run = grounds.run.map(MeasuredRun::run);
        let costs = plan::costs(plan, machine, widest, run);
        let is_done = |job: &JobSpec| grounds.run.is_some_and(|run| run.has_done(job));
        let done: Vec<bool> = plan.jobs.iter().map(is_done).collect();
        let hours = |job: usize| {
            let both = costs.get(job).zip(plan.jobs.get(job));
            both.map_or(0.0, |(cost, job)| cost.device_seconds(&job.kind) / 3600.0)
        };
        let jobs = 0..plan.jobs.len();
        let left = jobs.clone().map(|job| match done.get(job) {
            Some(true) => 0.0,
            _ => hours(job),
        });
        let tasks = plan::tasks(plan, &costs, |kind| widths(plan, kind, ranks));
        let (path, seconds) = critical_path(&tasks, ranks).map_err(launcher::LaunchError::from)?;
        let path = path
            .into_iter()
            .filter_map(|job| Some(&plan.jobs.get(job)?.id));
        Ok(Forecast {
            device: grounds.device,
            device_hours: jobs.map(hours).sum(),
            device_hours_left: left.sum(),
            assumed_tflops,
            data_set_is_known: plan.inputs.is_some(),
            disk_bytes: costs.iter().map(|cost| cost.disk).sum(),
            critical_path: CriticalPath {
                seconds,
                jobs: path.collect(),
            },
            by_devices: by_devices(plan, &costs, &done, ranks),
            costs,
            done,
        })
    }

    /// Refuses jobs that take more of a GPU than there is.
    pub fn fit(&self, plan: &Plan, ranks: usize, limit: u64) -> anyhow::Result<()> {
        let mut lines = Vec::new();
        for (job, cost) in plan.jobs.iter().zip(&self.costs) {
            let Some(needed) = cost.memory.device.filter(|needed| *needed > limit) else {
                continue;
            };
            let JobKind::Train { stage, .. } = &job.kind else {
                continue;
            };
            let stage = stage.name();
            let widest = widths(plan, &job.kind, ranks).last().copied().unwrap_or(1);
            let advice = match plan::micro_batch_that_fits(&job.kind, widest, limit) {
                Some(size) => format!("write {stage}.training.micro_batch: {size}"),
                None => format!(
                    "no micro-batch fits: write {stage}.training.gradient_checkpointing: true, a smaller image_size or fewer images"
                ),
            };
            lines.push(format!(
                "\n  {} takes about {} of each GPU: {advice}",
                job.id,
                units::bytes(needed)
            ));
        }
        match lines.is_empty() {
            true => Ok(()),
            false => Err(exit::fault(
                exit::MACHINE,
                format!(
                    "{} of {} do not fit a GPU of {}:{}",
                    lines.len(),
                    units::count(plan.jobs.len(), "job", "jobs"),
                    units::bytes(limit),
                    lines.concat()
                ),
            )),
        }
    }

    /// What an hour of a device is called.
    pub fn hours_heading(&self) -> &'static str {
        match self.device {
            Device::Cuda => "GPU-hours",
            Device::Cpu => "rank-hours",
        }
    }

    /// The sums, in lines.
    pub fn text(&self) -> String {
        let hours = self.hours_heading();
        let mut text = format!("{hours}: {} in all", number(self.device_hours));
        // Writing to a string does not fail.
        if self.done.contains(&true) {
            let _ = write!(text, ", {} left", number(self.device_hours_left));
        }
        let has = |source| self.costs.iter().any(|cost| cost.source == source);
        let mut grounds = Vec::new();
        if has(Source::Ran) || has(Source::Measured) || has(Source::OtherStages) {
            grounds.push("from the run's step times".to_owned());
        }
        if has(Source::Assumed) {
            let each = match self.device {
                Device::Cuda => "GPU",
                Device::Cpu => "rank",
            };
            grounds.push(format!(
                "from FLOPs at an assumed {} TFLOP/s a {each} (--tflops)",
                self.assumed_tflops
            ));
        }
        if !self.data_set_is_known {
            grounds.push("for the competition's 2,019 studies".to_owned());
        }
        let _ = writeln!(text, ", {}", grounds.join(", "));
        let _ = writeln!(text, "disk: {} at the most", units::bytes(self.disk_bytes));
        let path: Vec<&str> = self
            .critical_path
            .jobs
            .iter()
            .map(|id| id.as_str())
            .collect();
        let _ = writeln!(
            text,
            "critical path: {} over {}",
            units::duration(self.critical_path.seconds),
            path.join(" -> ")
        );
        let mut table = table::new(&[
            Column::Number(match self.device {
                Device::Cuda => "GPUs",
                Device::Cpu => "ranks",
            }),
            Column::Number("time"),
            Column::Number("speed-up"),
        ]);
        for on in &self.by_devices {
            table.add_row([
                on.devices.to_string(),
                units::duration(on.seconds),
                format!("{:.2}", on.speed_up),
            ]);
        }
        let _ = writeln!(text, "\n{}", table.trim_fmt());
        text
    }
}

/// The numbers of devices that a job can run on where there are so many; none for jobs on tables.
fn widths(plan: &Plan, kind: &JobKind, devices: usize) -> Vec<usize> {
    match kind.training() {
        Some(training) => plan::widths(training, devices, plan.elastic),
        None => Vec::new(),
    }
}

/// What is not done, simulated.
fn by_devices(plan: &Plan, costs: &[JobCost], done: &[bool], ranks: usize) -> Vec<OnDevices> {
    let mut numbers: Vec<usize> = NUMBERS.into_iter().chain([ranks]).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut first = None;
    let on = |devices: usize| {
        // On some numbers a batch cannot be spread.
        let can =
            |job: &JobSpec| !job.kind.is_training() || !widths(plan, &job.kind, devices).is_empty();
        if !plan.jobs.iter().all(can) {
            return None;
        }
        let tasks = plan::tasks(plan, costs, |kind| widths(plan, kind, devices));
        let is_done = |job: usize| done.get(job) == Some(&true);
        let seconds = plan::simulate(&tasks, Limits::devices(devices), is_done)
            .ok()?
            .makespan;
        let first = *first.get_or_insert(seconds);
        Some(OnDevices {
            devices,
            seconds,
            speed_up: if seconds > 0.0 { first / seconds } else { 1.0 },
        })
    };
    numbers.into_iter().filter_map(on).collect()
}

/// Three digits at least: `0.012`, `1.23`, `123`.
pub fn number(value: f64) -> String {
    match value {
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
