//! What ends a training, and of which class it is for the retry policy.

use std::io;

use event::FailureClass;

#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// No failure: it ends work that has no step boundary to stop at. Ranks that share work return it together.
    #[error("stopped on request")]
    Stopped,
    #[error(transparent)]
    Data(#[from] data::DataError),
    #[error(transparent)]
    Collective(#[from] collective::CollectiveError),
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    #[error(transparent)]
    Network(nn::NnError),
    #[error(
        "update {step}: the {what} is {value}; the last good checkpoint is untouched: lower the learning rate, \
         or set clip_norm, and launch again with --resume auto"
    )]
    NotFinite {
        step: u64,
        what: &'static str,
        value: f64,
    },
    #[error(
        "update {step}: a gradient is not finite, though fp16's loss scale has come down to {scale}: it is not the scale \
         that is too large; write precision: bf16 or fp32, or lower the learning rate, and launch again with --resume auto"
    )]
    LossScale { step: u64, scale: f64 },
    #[error(
        "after update {step} the replicas differ: {who}; the first variable that differs is `{variable}`. The last good \
         checkpoint is untouched. A rank that computes other bits mostly has a bad GPU or bad memory: look at `nvidia-smi -q \
         -d ECC` and `dmesg` there, leave that GPU out, and launch again with --resume auto"
    )]
    Replicas {
        step: u64,
        /// The ranks that differ, in words.
        who: String,
        variable: String,
    },
    #[error(
        "the training set has {samples} samples, fewer than one batch of {batch}: lower training.batch, or add studies"
    )]
    TooFewSamples { samples: usize, batch: usize },
    #[error(
        "checkpoint {path} does not fit this model: {report}; it was written by another version or recipe"
    )]
    Mismatch { path: String, report: String },
    #[error("checkpoint {path}: {problem}; delete the folder to fall back to an older one")]
    TrainerState { path: String, problem: String },
    #[error(
        "{root} holds no finished model of job {job} as this plan describes it: launch with that stage, or finish the run \
         with --resume auto"
    )]
    Unfinished { job: String, root: String },
    #[error(
        "job {job}: a rank's micro-batch is one image, and batch normalisation needs two: raise micro_batch, or take \
         fewer ranks for this batch"
    )]
    OneImage { job: String },
    #[error("{path}: {problem}")]
    Input { path: String, problem: String },
    #[error(
        "{path} has changed since the run was launched: its SHA-256 is {found}, and the plan has {expected}. Put the file \
         of the launch back, or launch with the new one into another run directory"
    )]
    PretrainedChanged {
        path: String,
        expected: String,
        found: String,
    },
    #[error("{0}")]
    Tables(String),
    #[error("cannot write {path}: {source}")]
    Write {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error(
        "checkpoint.keep_best names {asked}, and the evaluations of this job have no such metric: add one of {known}, with min \
         or max"
    )]
    UnknownMetric { asked: String, known: String },
    #[error(
        "cannot start the thread that writes checkpoints: {0}; raise the limit on processes (`ulimit -u`), or write \
         checkpoint.asynchronous: false"
    )]
    Thread(#[source] io::Error),
    #[error(
        "{root} on {} is not the folder that rank 0 sees, and parts of one checkpoint go into one folder: put the run directory on a \
         file system that all machines share, or write checkpoint.shards: off",
        ranks_of(ranks)
    )]
    NotShared { root: String, ranks: Vec<usize> },
    #[error("ranks exchanged what is not a table: {0}")]
    Gather(serde_json::Error),
}

/// `rank 3`, `ranks 1, 2`
fn ranks_of(ranks: &[usize]) -> String {
    let numbers: Vec<String> = ranks.iter().map(usize::to_string).collect();
    match ranks {
        [rank] => format!("rank {rank}"),
        _ => format!("ranks {}", numbers.join(", ")),
    }
}

impl From<nn::NnError> for TrainError {
    /// A collective inside a network fails as any other collective does.
    fn from(error: nn::NnError) -> Self {
        match error {
            nn::NnError::Outside(inner) => match inner.downcast() {
                Ok(collective) => TrainError::Collective(*collective),
                Err(other) => TrainError::Network(nn::NnError::Outside(other)),
            },
            other => TrainError::Network(other),
        }
    }
}

impl TrainError {
    /// Whether the device had no memory left, whatever of libtorch says it.
    pub(crate) fn is_out_of_device_memory(&self) -> bool {
        FailureClass::of_message(&self.to_string()) == Some(FailureClass::DeviceMemory)
    }

    /// The class of the failure, for the retry policy and the exit code.
    pub fn class(&self) -> FailureClass {
        match self {
            TrainError::Data(error) => data_class(error),
            TrainError::Tables(_) => FailureClass::Data,
            TrainError::Collective(_) => FailureClass::Collective,
            TrainError::Checkpoint(
                checkpoint::Error::Write { .. } | checkpoint::Error::PartsMissing { .. },
            ) => FailureClass::Disk,
            TrainError::Checkpoint(checkpoint::Error::Busy { .. }) => FailureClass::Other,
            TrainError::Checkpoint(_) => FailureClass::Setup,
            TrainError::Write { .. } => FailureClass::Disk,
            TrainError::NotFinite { .. } | TrainError::LossScale { .. } => FailureClass::Diverged,
            TrainError::Replicas { .. } => FailureClass::Replicas,
            TrainError::TooFewSamples { .. }
            | TrainError::Mismatch { .. }
            | TrainError::PretrainedChanged { .. }
            | TrainError::Unfinished { .. }
            | TrainError::UnknownMetric { .. }
            | TrainError::OneImage { .. }
            | TrainError::NotShared { .. }
            | TrainError::Input { .. }
            | TrainError::Network(nn::NnError::UnknownArchitecture { .. }) => FailureClass::Setup,
            TrainError::Stopped
            | TrainError::Torch(_)
            | TrainError::Network(_)
            | TrainError::TrainerState { .. }
            | TrainError::Thread(_)
            | TrainError::Gather(_) => FailureClass::Other,
        }
    }
}

/// A file that cannot be written is the disk's fault; everything else that the data crate refuses is the data's.
fn data_class(error: &data::DataError) -> FailureClass {
    match error {
        data::DataError::Io { source, .. }
            if matches!(
                source.kind(),
                io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            FailureClass::Disk
        }
        _ => FailureClass::Data,
    }
}
