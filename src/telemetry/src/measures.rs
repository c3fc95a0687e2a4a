//! A run's events as metrics: what is counted, measured and distributed, for OTLP and Prometheus alike.

use std::collections::{BTreeMap, BTreeSet};

use event::{EventKind, GpuUse, RunEvent, StepRecord};

/// What a metric is called and how its values come together. Names and units follow OpenTelemetry's conventions.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instrument {
    pub name: &'static str,
    /// UCUM's: `s`, `By`, `{step}`, `1`.
    pub unit: &'static str,
    pub description: &'static str,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Only grows.
    Counter,
    /// The newest value.
    Gauge,
    /// The newest value, of what adds up over its series.
    UpDownCounter,
    /// Seconds, by [`BOUNDS`].
    Histogram,
}

/// Upper bounds of the buckets of durations, seconds: from a step on a GPU to a checkpoint on a slow disk.
pub(crate) const BOUNDS: [f64; 13] = [
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Number(f64),
    Distribution(Distribution),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Distribution {
    /// As many as there are bounds, and one for what is above.
    pub buckets: [u64; BOUNDS.len() + 1],
    pub count: u64,
    pub sum: f64,
}

/// In the order in which they stand in a series' name.
pub(crate) type Labels = Vec<(&'static str, String)>;

/// All series so far. As many as jobs, ranks and names of metrics come to, however long a run is.
#[derive(Clone, Debug)]
pub(crate) struct Measures {
    /// When counting began, seconds since the Unix epoch.
    pub since: f64,
    pub series: BTreeMap<(&'static Instrument, Labels), Value>,
    active: BTreeSet<String>,
}

macro_rules! instruments {
    ($($constant:ident: $kind:ident $name:literal $unit:literal $description:literal;)*) => {
        $(static $constant: Instrument = Instrument {
            name: $name,
            unit: $unit,
            description: $description,
            kind: Kind::$kind,
        };)*
    };
}

instruments! {
    RUN_JOBS: Gauge "spinectl.run.jobs" "{job}" "Jobs of the plan";
    JOBS_DONE: Gauge "spinectl.run.jobs_done" "{job}" "Jobs that have succeeded, in earlier launches too";
    JOBS_FAILED: Gauge "spinectl.run.jobs_failed" "{job}" "Jobs that this launch has given up, those that never started included";
    JOBS_ACTIVE: Gauge "spinectl.run.jobs_active" "{job}" "Jobs that are under way";
    ATTEMPTS: Counter "spinectl.attempts" "{attempt}" "Times that a job's ranks were started";
    JOB_RETRIES: Counter "spinectl.retries" "{retry}" "Times that a job failed and is started anew";
    FAILURES: Counter "spinectl.rank.failures" "{failure}" "Failures of ranks, by class";
    WARNINGS: Counter "spinectl.warnings" "{warning}" "Warnings";
    STEPS: Counter "spinectl.steps" "{step}" "Updates of the weights, those done again included";
    SAMPLES: Counter "spinectl.samples" "{sample}" "Samples trained on, over all ranks";
    IMAGES: Counter "spinectl.images" "{image}" "Images trained on, over all ranks";
    STEP_DURATION: Histogram "spinectl.step.duration" "s" "Wall time of an update";
    PHASE_TIME: Counter "spinectl.phase.time" "s" "Wall time of rank 0 in the phases of updates";
    STEP: Gauge "spinectl.step.current" "{step}" "Updates done so far";
    STEP_LIMIT: Gauge "spinectl.step.limit" "{step}" "Updates in the whole job";
    EPOCH: Gauge "spinectl.epoch.current" "{epoch}" "Epoch of the newest update, from 0";
    LOSS: Gauge "spinectl.loss" "1" "Loss of the newest update; its parts by head";
    LEARNING_RATE: Gauge "spinectl.learning_rate" "1" "Learning rate of the newest update";
    GRADIENT_NORM: Gauge "spinectl.gradient.norm" "1" "L2 norm of the averaged gradient before clipping";
    LOSS_SCALE: Gauge "spinectl.loss_scale" "1" "The factor of the loss in fp16";
    EVALUATION: Gauge "spinectl.evaluation" "1" "Metrics of the newest evaluation";
    CHECKPOINT_DURATION: Histogram "spinectl.checkpoint.duration" "s" "From the copy of the state until a checkpoint was durable";
    CHECKPOINT_STALL: Counter "spinectl.checkpoint.stall.time" "s" "Time that training stood still for checkpoints";
    CHECKPOINT_SIZE: Gauge "spinectl.checkpoint.size" "By" "Size of the newest checkpoint";
    IDLE: Gauge "spinectl.rank.idle.time" "s" "Time since a rank last came further";
    PROCESS_MEMORY: UpDownCounter "process.memory.usage" "By" "Memory of the host that a rank's process holds";
    GPU_UTILIZATION: Gauge "hw.gpu.utilization" "1" "Share of the time in which a rank's GPU computed anything";
    GPU_MEMORY: UpDownCounter "hw.gpu.memory.usage" "By" "Memory in use on a rank's GPU, by all processes";
    GPU_MEMORY_LIMIT: UpDownCounter "hw.gpu.memory.limit" "By" "Memory of a rank's GPU";
}

/// Of ranks that are running: once they have ended there is nothing of the kind.
static OF_RANKS: [&Instrument; 5] = [
    &IDLE,
    &PROCESS_MEMORY,
    &GPU_UTILIZATION,
    &GPU_MEMORY,
    &GPU_MEMORY_LIMIT,
];

impl Measures {
    pub fn new(since: f64) -> Self {
        Measures {
            since,
            series: BTreeMap::new(),
            active: BTreeSet::new(),
        }
    }

    pub fn take(&mut self, event: &RunEvent) {
        let job = job_labels(event);
        match &event.kind {
            EventKind::RunStarted { jobs, done, .. } => {
                self.set(&RUN_JOBS, Vec::new(), *jobs as f64);
                self.set(&JOBS_DONE, Vec::new(), *done as f64);
                self.set(&JOBS_FAILED, Vec::new(), 0.0);
                self.set(&JOBS_ACTIVE, Vec::new(), 0.0);
            }
            EventKind::JobStarted { .. } => {
                self.active.extend(event.job.clone());
                self.set(&JOBS_ACTIVE, Vec::new(), self.active.len() as f64);
                self.add(&ATTEMPTS, job, 1.0);
            }
            EventKind::JobFinished { .. } => {
                self.add(&JOBS_DONE, Vec::new(), 1.0);
                self.end_job(event, &job);
            }
            EventKind::JobFailed { .. } => {
                self.add(&JOBS_FAILED, Vec::new(), 1.0);
                self.end_job(event, &job);
            }
            EventKind::JobStopped { .. } => self.end_job(event, &job),
            EventKind::JobRetried { .. } => {
                // It waits, and may never start again.
                self.end_job(event, &job);
                self.add(&JOB_RETRIES, job, 1.0);
            }
            EventKind::RunFinished { .. } => {
                self.active.clear();
                self.set(&JOBS_ACTIVE, Vec::new(), 0.0);
            }
            EventKind::RankFailed(report) => {
                let class = ("error.type", report.class.as_str().to_owned());
                self.add(&FAILURES, with(&job, class), 1.0);
            }
            EventKind::Warning { .. } => self.add(&WARNINGS, job, 1.0),
            EventKind::Step(step) => {
                self.step(&job, step);
                if let Some(bytes) = step.host_memory {
                    self.set(&PROCESS_MEMORY, of_rank(&job, event), bytes as f64);
                }
            }
            EventKind::Evaluated { set, metrics, .. } => {
                for (name, value) in metrics {
                    let labels = with(&job, ("spinectl.evaluation.set", set.clone()));
                    let name = ("spinectl.evaluation.metric", name.clone());
                    self.set(&EVALUATION, with(&labels, name), *value);
                }
            }
            EventKind::CheckpointWritten {
                bytes,
                seconds,
                stalled_seconds,
                ..
            } => {
                self.distribute(&CHECKPOINT_DURATION, job.clone(), *seconds);
                self.add(&CHECKPOINT_STALL, job.clone(), *stalled_seconds);
                self.set(&CHECKPOINT_SIZE, job, *bytes as f64);
            }
            EventKind::Pulse(pulse) => {
                self.set(&IDLE, of_rank(&job, event), pulse.idle_seconds);
            }
            EventKind::GpuUse(gpu) => self.gpu(&of_rank(&job, event), gpu),
            EventKind::JobResumed { .. }
            | EventKind::JobPaused
            | EventKind::JobCancelled { .. }
            | EventKind::JobReleased
            | EventKind::Heartbeat { .. }
            | EventKind::Stack { .. }
            | EventKind::Progress { .. }
            | EventKind::TrainingStarted { .. }
            | EventKind::Scores(_)
            | EventKind::Picture(_)
            | EventKind::Histogram(_)
            | EventKind::TableWritten { .. }
            | EventKind::WeightsLoaded { .. } => {}
        }
    }

    fn step(&mut self, job: &Labels, step: &StepRecord) {
        self.add(&STEPS, job.clone(), 1.0);
        self.add(&SAMPLES, job.clone(), step.samples as f64);
        self.add(&IMAGES, job.clone(), step.images as f64);
        self.distribute(&STEP_DURATION, job.clone(), step.seconds);
        for (phase, seconds) in &step.phases {
            let phase = ("spinectl.phase", phase.as_str().to_owned());
            self.add(&PHASE_TIME, with(job, phase), *seconds);
        }
        self.set(&STEP, job.clone(), step.step as f64);
        self.set(&STEP_LIMIT, job.clone(), step.total_steps as f64);
        self.set(&EPOCH, job.clone(), step.epoch as f64);
        let total = std::iter::once(("total", step.loss));
        let parts = step
            .losses
            .iter()
            .map(|(name, loss)| (name.as_str(), *loss));
        for (name, loss) in total.chain(parts) {
            let part = ("spinectl.loss.part", name.to_owned());
            self.set(&LOSS, with(job, part), loss);
        }
        self.set(&LEARNING_RATE, job.clone(), step.learning_rate);
        self.set(&GRADIENT_NORM, job.clone(), step.gradient_norm);
        if let Some(scale) = step.loss_scale {
            self.set(&LOSS_SCALE, job.clone(), scale);
        }
    }

    fn gpu(&mut self, rank: &Labels, gpu: &GpuUse) {
        let hardware = [
            ("hw.id", gpu.id.clone()),
            ("hw.type", "gpu".to_owned()),
            ("hw.vendor", "NVIDIA".to_owned()),
            ("hw.model", gpu.model.clone()),
        ];
        let labels: Labels = rank.iter().cloned().chain(hardware).collect();
        let bytes = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64);
        for (instrument, value) in [
            (&GPU_UTILIZATION, gpu.utilization),
            (&GPU_MEMORY, bytes(gpu.memory_used)),
            (&GPU_MEMORY_LIMIT, bytes(gpu.memory_total)),
        ] {
            if let Some(value) = value {
                self.set(instrument, labels.clone(), value);
            }
        }
    }

    fn end_job(&mut self, event: &RunEvent, job: &Labels) {
        if let Some(job) = &event.job {
            self.active.remove(job);
        }
        self.set(&JOBS_ACTIVE, Vec::new(), self.active.len() as f64);
        self.series
            .retain(|(of, labels), _| !OF_RANKS.contains(of) || !labels.starts_with(job));
    }

    fn set(&mut self, instrument: &'static Instrument, labels: Labels, value: f64) {
        self.series
            .insert((instrument, labels), Value::Number(value));
    }

    fn add(&mut self, instrument: &'static Instrument, labels: Labels, more: f64) {
        let series = self.series.entry((instrument, labels));
        if let Value::Number(sum) = series.or_insert(Value::Number(0.0)) {
            *sum += more;
        }
    }

    fn distribute(&mut self, instrument: &'static Instrument, labels: Labels, value: f64) {
        let series = self.series.entry((instrument, labels));
        let none = Value::Distribution(Distribution::default());
        if let Value::Distribution(so_far) = series.or_insert(none) {
            let bucket = BOUNDS.partition_point(|bound| *bound < value);
            if let Some(bucket) = so_far.buckets.get_mut(bucket) {
                *bucket += 1;
            }
            so_far.count += 1;
            so_far.sum += value;
        }
    }
}

fn job_labels(event: &RunEvent) -> Labels {
    let job = event.job.clone().map(|job| ("spinectl.job", job));
    job.into_iter().collect()
}

fn of_rank(job: &Labels, event: &RunEvent) -> Labels {
    let rank = event.rank.unwrap_or(0).to_string();
    with(job, ("spinectl.rank", rank))
}

fn with(labels: &Labels, label: (&'static str, String)) -> Labels {
    let mut labels = labels.clone();
    labels.push(label);
    labels
}

#[cfg(test)]
mod tests {
    use event::{Phase, Pulse, Samples};

    use super::*;

    fn job(kind: EventKind) -> RunEvent {
        RunEvent::job("a", 1, kind)
    }

    fn step(step: u64, seconds: f64) -> RunEvent {
        job(EventKind::Step(StepRecord {
            step,
            loss: 0.5 / step as f64,
            losses: BTreeMap::from([("box".to_owned(), 0.25)]),
            samples: 8,
            seconds,
            host_memory: Some(step << 20),
            phases: BTreeMap::from([(Phase::Forward, seconds / 2.0)]),
            ..StepRecord::default()
        }))
    }

    fn number(measures: &Measures, name: &str, label: Option<&str>) -> Option<f64> {
        let mut found = measures.series.iter().filter(|((instrument, labels), _)| {
            instrument.name == name && label.is_none_or(|it| labels.iter().any(|(_, l)| l == it))
        });
        match found.next() {
            Some((_, Value::Number(value))) => Some(*value),
            _ => None,
        }
    }

    #[test]
    fn updates_are_counted_and_distributed_and_the_newest_values_kept() {
        let mut measures = Measures::new(1.0);
        for event in [step(1, 0.02), step(2, 0.01), step(3, 1000.0)] {
            measures.take(&event);
        }
        assert_eq!(number(&measures, "spinectl.steps", None), Some(3.0));
        assert_eq!(number(&measures, "spinectl.samples", Some("a")), Some(24.0));
        assert_eq!(
            number(&measures, "spinectl.loss", Some("total")),
            Some(0.5 / 3.0)
        );
        assert_eq!(number(&measures, "spinectl.loss", Some("box")), Some(0.25));
        assert_eq!(
            number(&measures, "spinectl.phase.time", Some("forward")),
            Some(0.01 + 0.005 + 500.0)
        );
        let durations = measures.series.iter().find_map(|((it, _), value)| {
            (it.name == "spinectl.step.duration").then_some(value.clone())
        });
        let mut buckets = [0; BOUNDS.len() + 1];
        (buckets[0], buckets[1], buckets[BOUNDS.len()]) = (1, 1, 1);
        let expected = Distribution {
            buckets,
            count: 3,
            sum: 0.02 + 0.01 + 1000.0,
        };
        assert_eq!(durations, Some(Value::Distribution(expected)));
    }

    #[test]
    fn what_ranks_hold_is_measured_until_they_end() {
        let mut measures = Measures::new(1.0);
        let gpu = |rank, id: &str, utilization| RunEvent {
            rank: Some(rank),
            ..job(EventKind::GpuUse(GpuUse {
                id: id.to_owned(),
                utilization,
                memory_used: Some(1 << 30),
                memory_total: Some(8 << 30),
                ..GpuUse::default()
            }))
        };
        for event in [
            step(3, 0.1),
            gpu(0, "GPU-a", Some(0.5)),
            gpu(1, "MIG-b", None),
        ] {
            measures.take(&event);
        }
        let of = |measures: &Measures, name| {
            ["GPU-a", "MIG-b"].map(|id| number(measures, name, Some(id)))
        };
        let all = |measures: &Measures| {
            (
                of(measures, "hw.gpu.utilization"),
                of(measures, "hw.gpu.memory.usage"),
                of(measures, "hw.gpu.memory.limit"),
                number(measures, "process.memory.usage", Some("0")),
            )
        };
        let bytes = |gib: u64| Some((gib << 30) as f64);
        let expected = (
            [Some(0.5), None],
            [bytes(1), bytes(1)],
            [bytes(8), bytes(8)],
            Some(3072.0 * 1024.0),
        );
        assert_eq!(all(&measures), expected);
        let other = RunEvent::job("b", 1, EventKind::JobStopped { step: None });
        measures.take(&other);
        assert_eq!(all(&measures), expected, "that is another job");
        measures.take(&job(EventKind::JobStopped { step: None }));
        assert_eq!(
            all(&measures),
            ([None, None], [None, None], [None, None], None)
        );
        assert_eq!(number(&measures, "spinectl.steps", None), Some(1.0));
    }

    #[test]
    fn a_job_that_waits_for_a_retry_is_not_active_and_its_idle_ranks_are_forgotten() {
        let mut measures = Measures::new(1.0);
        let started = || EventKind::JobStarted { world_size: 1 };
        let pulse = Pulse {
            phase: Phase::Forward,
            step: 1,
            sequence: 1,
            waits: false,
            progress: 1,
            idle_seconds: 2.5,
            local_seconds: None,
            samples: Samples::default(),
        };
        let retried = EventKind::JobRetried {
            reason: String::new(),
            delay_seconds: 1.0,
        };
        measures.take(&job(started()));
        measures.take(&job(EventKind::Pulse(pulse)));
        let active = |measures: &Measures| number(measures, "spinectl.run.jobs_active", None);
        let idle = |measures: &Measures| number(measures, "spinectl.rank.idle.time", None);
        assert_eq!((active(&measures), idle(&measures)), (Some(1.0), Some(2.5)));
        measures.take(&job(retried));
        assert_eq!((active(&measures), idle(&measures)), (Some(0.0), None));
        measures.take(&job(started()));
        assert_eq!((active(&measures), idle(&measures)), (Some(1.0), None));
        assert_eq!(number(&measures, "spinectl.attempts", None), Some(2.0));
        measures.take(&job(EventKind::JobFinished {
            seconds: 1.0,
            metrics: BTreeMap::new(),
        }));
        assert_eq!(active(&measures), Some(0.0));
    }

    #[test]
    fn the_end_of_a_run_leaves_no_job_active_and_failed_ones_are_counted() {
        let mut measures = Measures::new(1.0);
        measures.take(&job(EventKind::JobStarted { world_size: 1 }));
        let reason = String::new();
        measures.take(&RunEvent::job("b", 1, EventKind::JobFailed { reason }));
        let state = "failed".to_owned();
        let seconds = 1.0;
        measures.take(&RunEvent::run(EventKind::RunFinished { state, seconds }));
        let count = |name| number(&measures, name, None);
        assert_eq!(count("spinectl.run.jobs_active"), Some(0.0));
        assert_eq!(count("spinectl.run.jobs_failed"), Some(1.0));
    }
}
