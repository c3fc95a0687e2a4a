//! The recipe as types. Defaults are the published pipeline's numbers (see `stages.rs`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::fold::Fold;
use crate::models::{Model, are_unlisted};
use crate::telemetry::Telemetry;
use crate::update::{Numerics, Optimization};

/// Everything that a user may say about a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recipe {
    /// Shown in plans and progress.
    pub name: String,
    /// Splits, initial weights, sample order and augmentation all derive from it.
    pub seed: u64,
    pub device: Device,
    /// Ranks on CPU; on GPUs, `gpus` says it.
    pub ranks: u64,
    /// GPUs to use; all that the machine has where absent.
    pub gpus: Option<u64>,
    /// Which stages to run; those that have a section, where absent.
    pub stages: Vec<String>,
    /// Which folds stage 2 and 3 hold out, one model each; `all` is a model that holds nothing out. Stage 1 always holds
    /// out every fold once: its tables need every study.
    pub folds: Vec<Fold>,
    /// How often a job that failed is started anew from its newest checkpoint.
    pub retries: u64,
    /// Seconds of the first delay between two attempts that came no further; it doubles each time, up to half a minute.
    pub back_off: f64,
    /// Seconds without progress after which a rank counts as stuck. All other timeouts follow from it, those of the
    /// collectives too: there is no second number that could contradict it.
    pub stall_timeout: f64,
    /// Updates between two comparisons of the ranks' weights, to the bit; 0 switches them off. They are compared ahead of
    /// every checkpoint too.
    pub replica_check: u64,
    /// Whether a job may run on fewer ranks than were asked for: where its batch cannot be spread over all of them, and once a
    /// device is lost. It is refused, and fails, where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elastic: Option<Elastic>,
    /// Whether the run directory is for its owner alone: mode 0700, and files in it that nobody else may read.
    pub private: bool,
    pub logs: Logs,
    pub telemetry: Telemetry,
    pub tensorboard: Tensorboard,
    pub data: Data,
    pub checkpoint: Checkpointing,
    pub stage1a: Option<Stage1a>,
    pub stage1b: Option<Stage1b>,
    pub stage2: Option<Stage2>,
    pub stage3: Option<Stage3>,
}

/// The default of `replica_check`, in updates.
pub const REPLICA_CHECK: u64 = 100;

/// Where the studies are and how they are split and windowed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Folder in Kaggle's layout: train_images/, segmentations/, train.csv.
    pub root: PathBuf,
    /// Number of folds of the split by patient.
    pub folds: u64,
    pub window: Window,
    /// A split made before, by `spinectl data folds`; made from the seed where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<PathBuf>,
    /// StudyInstanceUIDs to leave out.
    pub exclude: Vec<String>,
    /// How studies are read before anything is trained on them.
    pub check: Check,
    /// What a study that cannot be read does to the run.
    pub bad_study: BadStudy,
    /// Loader threads of a rank that decode studies ahead.
    pub workers: u64,
    /// Megabytes of decoded slices that a rank keeps.
    pub memory_mb: u64,
    /// Megabytes of samples that a rank's loader threads may be ahead of the training.
    pub prefetch_mb: u64,
    #[serde(default)]
    pub cache: Cache,
}

/// Decoded studies on disk, shared by all ranks and runs that name the same folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cache {
    /// The folder, relative to the one in which spinectl is started; no cache where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// Gigabytes (10^9 bytes) that it may take; then what was not used for longest goes.
    pub limit_gb: u64,
    /// Whether new entries are compressed: a fifth to a half smaller, and slower to read.
    pub compress: bool,
    /// Whether volumes as decoded are kept beside the cropped and resized slices.
    pub volumes: bool,
}

impl Default for Cache {
    fn default() -> Self {
        Cache {
            dir: None,
            limit_gb: 100,
            compress: false,
            volumes: false,
        }
    }
}

/// How much of every study is read by the first job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// All of it: a training of hours does not end at a damaged slice.
    Pixels,
    /// The headers: what cannot be put in order is found, damaged pixels are not.
    Headers,
}

/// What becomes of a run that meets a study that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadStudy {
    /// The run stops and names it.
    Stop,
    /// The first job says so once and lists it in left_out.csv; no job uses it.
    LeaveOut,
}

/// How HU become 0..255: level 400, width 1800 HU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// Each slice's own minimum and maximum after the clip, as the reference does.
    PerSlice,
    /// The window's own ends.
    Fixed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    Cuda,
    Cpu,
}

/// On how many ranks a training may run; its global batch is the same on any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elastic {
    pub min: u64,
    pub max: u64,
}

/// When and how checkpoints are written and which are kept. None of it changes what is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Checkpointing {
    /// Updates between two checkpoints; one is always written at the end of a job.
    pub every: u64,
    /// How many of the newest are kept.
    pub keep_last: u64,
    /// A checkpoint whose count of updates is a multiple of it is kept for good; none where it is 0.
    pub keep_every: u64,
    /// The checkpoint of the best evaluation is kept, too: by which metric, and which of its values are good. Jobs of
    /// different stages have different metrics; each takes the first, by name, that its evaluations have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub keep_best: BTreeMap<String, Mode>,
    /// They are written beside the training, from a copy of its state in memory.
    pub asynchronous: bool,
    /// Whether each rank writes a part of them.
    pub shards: Shards,
}

/// Whether each rank of a job copies and writes a part of its checkpoints, or rank 0 all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shards {
    /// Where the state is large and all ranks see the same folder.
    #[default]
    Auto,
    /// Wherever there is more than one rank; a folder that not all of them see is an error.
    On,
    Off,
}

impl Default for Checkpointing {
    fn default() -> Self {
        Checkpointing {
            every: 100,
            keep_last: 2,
            keep_every: 0,
            keep_best: BTreeMap::new(),
            asynchronous: true,
            shards: Shards::Auto,
        }
    }
}

/// Which values of a metric are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    Min,
    Max,
}

/// How much of what ranks print is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Logs {
    /// Megabytes (10^6 bytes) of a rank's log in an attempt, beyond which a new file is begun.
    pub max_mb: u64,
    /// How many of the older files are kept.
    pub keep: u64,
}

impl Default for Logs {
    fn default() -> Self {
        Logs {
            max_mb: 64,
            keep: 4,
        }
    }
}

/// What a run shows beside its curves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tensorboard {
    /// Studies, or samples, of which every evaluation makes a picture; 0: none.
    pub pictures: u64,
    /// Whether every evaluation tells how weights and gradients are spread.
    pub histograms: bool,
}

impl Default for Tensorboard {
    fn default() -> Self {
        Tensorboard {
            pictures: 2,
            histograms: false,
        }
    }
}

/// What every trained model has. Where a stage has several, what they share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// Backbone, by timm's name.
    pub arch: String,
    /// One model is trained for each seed; in stage 3 they are those of the stage-2 model.
    pub seeds: Vec<u64>,
    /// Side of the square input image in pixels.
    pub image_size: u64,
    pub epochs: u64,
    /// Samples of one update over all ranks: slices (1a), sequences (1b, 2), studies (3).
    pub batch: u64,
    /// Samples that one rank takes through the model at once.
    pub micro_batch: u64,
    /// On how many GPUs each of the stage's jobs runs. The batch is the same on any number.
    #[serde(default, skip_serializing_if = "Gpus::is_all")]
    pub gpus: Gpus,
    #[serde(flatten)]
    pub optimization: Optimization,
    #[serde(flatten)]
    pub numerics: Numerics,
    /// Rate of stochastic depth in the CNN's last block; earlier ones have less.
    pub drop_path: f64,
    /// Rate of dropout on the CNN's pooled features.
    pub drop_rate: f64,
    /// Epochs between two evaluations on the held-out studies; one always ends a job.
    pub evaluate_every: u64,
    pub augment: Augment,
    /// Whose CNN the weights start from.
    pub start_from: StartFrom,
    /// A safetensors file whose CNN the weights start from, such as timm's for ImageNet; the heads start from random
    /// weights. Like `data.root`, relative to the folder in which spinectl is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretrained: Option<PathBuf>,
}

/// The GPUs of one job, of those that the launch has; with `--device cpu`, the ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gpus {
    /// All of them: jobs run one after another.
    #[default]
    All,
    /// As many as are free, in equal parts where several jobs are ready.
    Auto,
    #[serde(untagged)]
    Count(u64),
}

impl Gpus {
    fn is_all(&self) -> bool {
        *self == Gpus::All
    }
}

/// What a model's CNN starts from; its heads always start from random weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartFrom {
    Random,
    /// The localizer of the same fold.
    Stage1a,
    /// The ratio model of the same fold.
    Stage1b,
}

/// Random changes of the input image, one set of parameters for a whole sequence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Augment {
    /// Probability of a mirror image (left-right).
    pub flip: f64,
    /// Contrast changes by up to this share.
    pub contrast: f64,
    /// Shift by up to this share of the side.
    pub shift: f64,
    /// Scale by up to this share.
    pub scale: f64,
    /// Rotation by up to so many degrees.
    pub rotate: f64,
    /// Probability of each of: contrast, the geometry (shift, scale, rotate), cut-out.
    pub probability: f64,
    /// Number of holes that are cut out, each 10 % of the side.
    pub cutout: u64,
    /// Probability of a distortion: by a grid or elastic, with equal odds.
    pub distortion: f64,
    /// Cells of the distorting grid along a side.
    pub grid_steps: u64,
    /// Each row and column of the grid grows or shrinks by up to this share.
    pub grid_limit: f64,
    /// Strength of the elastic field: what random displacements of single pixels are multiplied by once they are smoothed.
    /// In pixels of an image of 512; grows with the image.
    pub elastic_alpha: f64,
    /// Standard deviation of the Gaussian that smoothes them, likewise.
    pub elastic_sigma: f64,
}

/// Stage 1a: boxes of the vertebrae in single slices.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stage1a {
    pub training: Training,
    /// Several models; where it is empty, `training` is the only one's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<Model>,
    pub box_loss: BoxLoss,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoxLoss {
    /// Root of the mean squared error, as the write-up says.
    Rmse,
    /// Mean absolute error, as the published code does.
    L1,
}

/// The window of consecutive slices that one sample of stage 1b and 2 holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sequence {
    /// Images of a sample; each holds 3 adjacent slices as its channels.
    pub images: u64,
    /// Windows start on every so-many-th slice (and at the first and last possible one).
    pub grid: u64,
    /// Hidden size of the LSTM in each direction; features + 16 where absent.
    pub lstm_hidden: Option<u64>,
    pub position: Position,
}

/// What the position embedding of an image encodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Position {
    /// Where the slice stands in the study: the stated intent.
    Study,
    /// Where the image stands in the window: what the published code does.
    Window,
}

/// Stage 1b: how much of each vertebra a slice shows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stage1b {
    pub training: Training,
    /// Several models; where it is empty, `training` is the only one's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<Model>,
    pub sequence: Sequence,
    /// Whether images are cropped to the study's box of stage 1a.
    pub crop: bool,
}

/// Stage 2: the large-batch slice model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stage2 {
    pub training: Training,
    /// Several models; where it is empty, `training` is the only one's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<Model>,
    pub sequence: Sequence,
}

/// Stage 3: the study model over the frozen CNN of stage 2.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stage3 {
    #[serde(skip)]
    pub training: Training,
    /// What a resolved recipe says of `training`: not what follows stage 2.
    #[serde(rename = "training")]
    pub(crate) written: Map<String, Json>,
    /// Several models; where it is empty, `training` is the only one's.
    #[serde(skip_serializing_if = "are_unlisted")]
    pub models: Vec<Model>,
    pub study: StudyModel,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyModel {
    /// Longer sequences of images are resampled to this many.
    pub max_images: u64,
    /// Images that go through the frozen CNN at once.
    pub chunk: u64,
    /// Slices taken beyond the study's slice range on both sides.
    pub margin: u64,
    /// Hidden size of the LSTM in each direction.
    pub lstm_hidden: u64,
}
