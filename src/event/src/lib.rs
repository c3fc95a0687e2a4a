//! What happens in a run, as plain data: one [`RunEvent`] is one JSON object on one line.
//!
//! Ranks and the launcher write events; the terminal, `status`, TensorBoard and OpenTelemetry only
//! read them. An event holds no patient data beyond the StudyInstanceUID.

mod failure;
mod gpu;
mod line;
mod samples;
mod view;

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

pub use failure::{FailureClass, FailureReport};
pub use gpu::GpuUse;
pub use line::{EventError, parse_line, to_line};
pub use samples::Samples;
pub use view::{Histogram, Picture, Scores, Setting};

/// One thing that happened, when, and to which job and rank.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunEvent {
    /// Seconds since the Unix epoch, at the place where it happened.
    pub time: f64,
    /// The job it belongs to; none for events of the whole run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// The attempt at that job, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The rank that says it, or of which it is said; none where it is of no rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
    #[serde(flatten)]
    pub kind: EventKind,
}

/// The kinds of event, told apart by the key `event`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// The launcher has read its state and begins (or goes on).
    RunStarted {
        plan_hash: String,
        jobs: usize,
        done: usize,
        device: String,
        ranks: usize,
    },
    /// The launcher ends: `done`, `failed` or `stopped`.
    RunFinished { state: String, seconds: f64 },
    /// The ranks of a job have been started.
    JobStarted { world_size: usize },
    /// A job goes on from a checkpoint; later records of earlier attempts are void.
    JobResumed {
        step: u64,
        checkpoint: String,
        /// What was passed over to find a valid checkpoint, in words; empty where nothing was.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        skipped: Vec<String>,
    },
    /// Every rank of a job ended well.
    JobFinished {
        seconds: f64,
        metrics: BTreeMap<String, f64>,
    },
    /// A job will not be tried again.
    JobFailed { reason: String },
    /// A job failed and is started anew from its newest checkpoint.
    JobRetried { reason: String, delay_seconds: f64 },
    /// A job stopped on request, with a checkpoint at `step` if it had reached one.
    JobStopped { step: Option<u64> },
    /// A user holds the job back: it is not started, or asked to save and stop.
    JobPaused,
    /// As paused, for good; and so these jobs, which need it, are not run.
    JobCancelled { skipped: Vec<String> },
    /// A job that was paused or cancelled may run again.
    JobReleased,
    /// Where a rank is; written when it enters a phase that may last.
    Heartbeat {
        phase: Phase,
        step: u64,
        sequence: u64,
    },
    /// A rank's sign of life, every few seconds, from a thread that a stuck main thread does not stop.
    Pulse(Pulse),
    /// How busy a rank's GPU is: said by the launcher, of the rank.
    GpuUse(GpuUse),
    /// Where a rank's main thread is: the launcher asked. Function names, innermost first.
    Stack { frames: Vec<String> },
    /// A training begins, or goes on, with these settings; none of them names a file.
    TrainingStarted { settings: BTreeMap<String, Setting> },
    /// One update of the weights (of `accumulation` micro-batches on every rank).
    Step(StepRecord),
    /// Metrics over the held-out studies (or any set that `set` names).
    Evaluated {
        step: u64,
        set: String,
        metrics: BTreeMap<String, f64>,
    },
    /// The scores behind an evaluation, where something is there or is not.
    Scores(Scores),
    /// A picture is there to be looked at.
    Picture(Picture),
    /// How weights or gradients are spread.
    Histogram(Histogram),
    /// Work that has no steps: inference, labels, tables.
    Progress { what: String, done: u64, total: u64 },
    /// A checkpoint is complete and durable.
    CheckpointWritten {
        step: u64,
        bytes: u64,
        /// From the copy of the state until it was durable.
        seconds: f64,
        /// How much of this the training stood still.
        #[serde(default)]
        stalled_seconds: f64,
        /// How long it had been durable when this was said: a training looks after it between updates.
        #[serde(default)]
        age_seconds: f64,
    },
    /// A table that the next stage reads is complete and durable.
    TableWritten { table: String, rows: usize },
    /// A model starts from a file's weights: what was loaded and what was done to it, in words.
    WeightsLoaded {
        path: String,
        sha256: String,
        report: String,
    },
    /// Something that the user should know and that does not stop the run.
    Warning { message: String },
    /// A rank failed; the earliest of an attempt is the cause, the others followed.
    RankFailed(FailureReport),
}

/// Where a rank is, and whether it comes further.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pulse {
    pub phase: Phase,
    pub step: u64,
    /// Collectives that it had issued when it came here.
    pub sequence: u64,
    /// It waits for other ranks, as far as it knows.
    pub waits: bool,
    /// How often it has come further, and for how many seconds it has not.
    pub progress: u64,
    pub idle_seconds: f64,
    /// Mean seconds of its recent updates that it spent by itself (data wait and forward); none before the first update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_seconds: Option<f64>,
    /// What it works on, or waits for in a data wait.
    #[serde(default, skip_serializing_if = "Samples::is_empty")]
    pub samples: Samples,
}

/// One update of the weights as rank 0 saw it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Updates done so far, counted from 1.
    pub step: u64,
    /// Updates in the whole job.
    pub total_steps: u64,
    /// Epoch of this update, counted from 0.
    pub epoch: u64,
    /// Epochs in the whole job; none where that was not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
    /// Loss, mean over the global batch.
    pub loss: f64,
    /// The parts of the loss by head, where there are several.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub losses: BTreeMap<String, f64>,
    pub learning_rate: f64,
    /// Learning rates by parameter group, where they differ.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub learning_rates: BTreeMap<String, f64>,
    /// L2 norm of the averaged gradient before clipping.
    pub gradient_norm: f64,
    /// And after it; none where nothing is clipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clipped_norm: Option<f64>,
    /// The factor of the loss in fp16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<f64>,
    /// Samples and images of the global batch (over all ranks).
    pub samples: u64,
    pub images: u64,
    /// Wall time of the update, and of its phases on rank 0, in seconds.
    pub seconds: f64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub phases: BTreeMap<Phase, f64>,
    /// Bytes that rank 0 holds in the host's memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_memory: Option<u64>,
    /// The most bytes that its tensors have held on the GPU at once; none on a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_memory: Option<u64>,
}

/// What a rank is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    StartUp,
    Rendezvous,
    DataWait,
    Forward,
    Backward,
    AllReduce,
    Optimizer,
    Checkpoint,
    Evaluate,
    Inference,
    Tables,
}

impl Phase {
    /// Whether a rank in this phase may be waiting for the others.
    pub fn waits_for_others(self) -> bool {
        matches!(self, Phase::Rendezvous | Phase::Backward | Phase::AllReduce)
    }

    /// The phase in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::StartUp => "start-up",
            Phase::Rendezvous => "rendezvous",
            Phase::DataWait => "data wait",
            Phase::Forward => "forward",
            Phase::Backward => "backward",
            Phase::AllReduce => "all-reduce",
            Phase::Optimizer => "optimizer",
            Phase::Checkpoint => "checkpoint",
            Phase::Evaluate => "evaluate",
            Phase::Inference => "inference",
            Phase::Tables => "tables",
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl RunEvent {
    /// An event of the whole run, now.
    pub fn run(kind: EventKind) -> Self {
        RunEvent {
            time: now(),
            job: None,
            attempt: None,
            rank: None,
            kind,
        }
    }

    /// An event of a job, now, said by the launcher.
    pub fn job(job: &str, attempt: u32, kind: EventKind) -> Self {
        RunEvent {
            time: now(),
            job: Some(job.to_owned()),
            attempt: Some(attempt),
            rank: None,
            kind,
        }
    }
}

/// Seconds since the Unix epoch.
pub fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64())
}
