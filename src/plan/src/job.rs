//! What a job is: the part of the recipe that it needs, and the jobs that it waits for.

use recipe::{
    BoxLoss, Checkpointing, Data, Elastic, Fold, Logs, Sequence, StudyModel, Tensorboard, Training,
};
use serde::{Deserialize, Serialize};

use crate::{Inputs, JobId};

/// A run's jobs, each after the ones that it needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The recipe's name.
    pub name: String,
    /// SHA-256 over all jobs' hashes.
    pub hash: String,
    /// Which rules the hashes are made by: [`ADDRESSES`](crate::ADDRESSES).
    #[serde(default = "crate::address::first_addresses")]
    pub addresses: u32,
    /// What the jobs read of the data set; none where nobody has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Inputs>,
    pub data: Data,
    pub checkpoint: Checkpointing,
    /// Whether nobody but its owner may read the run directory.
    #[serde(default)]
    pub private: bool,
    #[serde(default)]
    pub logs: Logs,
    #[serde(default)]
    pub tensorboard: Tensorboard,
    pub seed: u64,
    pub retries: u64,
    /// Seconds of the first delay between two attempts that came no further; it doubles each time.
    #[serde(default = "one_second")]
    pub back_off: f64,
    /// Seconds without progress after which a rank counts as stuck; see [`Timeouts`](crate::Timeouts).
    pub stall_timeout: f64,
    /// Updates between two comparisons of what the ranks of a job hold; 0: none.
    #[serde(default = "replica_check")]
    pub replica_check: u64,
    /// Whether a training may go on on fewer ranks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elastic: Option<Elastic>,
    pub jobs: Vec<JobSpec>,
}

/// Of a plan from before there were comparisons.
fn replica_check() -> u64 {
    recipe::REPLICA_CHECK
}

/// What plans of earlier versions waited.
fn one_second() -> f64 {
    1.0
}

impl Plan {
    /// How long whom is waited for.
    pub fn timeouts(&self) -> crate::Timeouts {
        crate::Timeouts::of(self.stall_timeout)
    }

    pub fn job(&self, id: &str) -> Option<&JobSpec> {
        self.jobs.iter().find(|job| job.id.as_str() == id)
    }
}

/// One job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    pub id: JobId,
    /// SHA-256 over all that this job's outcome depends on: docs/decisions/0036.
    pub hash: String,
    /// Jobs that must have succeeded before.
    pub needs: Vec<JobId>,
    pub kind: JobKind,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// Folds, and labels from the segmentations.
    Labels,
    /// Merges the localizers' out-of-fold boxes into `study_boxes`.
    StudyBoxes,
    /// Merges the out-of-fold ratios into `slice_labels`.
    SliceLabels,
    /// Merges the study models' out-of-fold probabilities and computes the run's summary.
    Summary,
    /// Trains one model and predicts the studies that it did not see, where it holds some out.
    Train {
        stage: TrainStage,
        /// The held-out part of the split.
        fold: Fold,
        /// Of the recipe's seeds; mixed with the recipe's own seed.
        seed: u64,
        training: Box<Training>,
        /// The job whose CNN its weights start from.
        start: Option<JobId>,
        /// SHA-256 of the file that its weights start from (`training.pretrained`), where it was there to be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pretrained_sha256: Option<String>,
    },
}

impl JobSpec {
    /// What a training job's model is called: its name in the recipe, or its architecture. None for jobs on tables.
    pub fn model(&self) -> Option<&str> {
        let JobKind::Train {
            stage, fold, seed, ..
        } = &self.kind
        else {
            return None;
        };
        let id = self.id.as_str().strip_prefix(stage.name())?;
        let id = id.strip_suffix(&format!("-fold{fold}-seed{seed}"))?;
        id.strip_prefix('-')
    }
}

/// What is trained, with the settings that only this stage has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainStage {
    Stage1a {
        box_loss: BoxLoss,
    },
    Stage1b {
        sequence: Sequence,
        crop: bool,
    },
    Stage2 {
        sequence: Sequence,
    },
    Stage3 {
        study: StudyModel,
        /// The job whose CNN is taken over, frozen.
        features: JobId,
    },
}

impl TrainStage {
    /// The stage's name as it starts job names and summary keys.
    pub fn name(&self) -> &'static str {
        match self {
            TrainStage::Stage1a { .. } => "stage1a",
            TrainStage::Stage1b { .. } => "stage1b",
            TrainStage::Stage2 { .. } => "stage2",
            TrainStage::Stage3 { .. } => "stage3",
        }
    }

    /// Images of one sample that batch normalisation sees at once; the CNN of stage 3 is frozen.
    pub fn images_per_sample(&self) -> u64 {
        match self {
            TrainStage::Stage1a { .. } => 1,
            TrainStage::Stage1b { sequence, .. } | TrainStage::Stage2 { sequence } => {
                sequence.images
            }
            TrainStage::Stage3 { study, .. } => study.max_images,
        }
    }
}

impl JobKind {
    /// Whether it trains a model on all ranks; the others work on tables in one process.
    pub fn is_training(&self) -> bool {
        matches!(self, JobKind::Train { .. })
    }

    pub fn training(&self) -> Option<&Training> {
        match self {
            JobKind::Train { training, .. } => Some(training),
            _ => None,
        }
    }
}
