//! What a data set holds, as digests of its parts: a job depends on those that it reads, wherever they lie.

use serde::{Deserialize, Serialize};

use crate::{JobKind, TrainStage};

/// What the jobs of a plan read of the data set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// Digest of every study's labels, whatever its fold: ranks hold what they read against it.
    pub labels: String,
    /// By fold, ascending. One part for all studies where the folds are known only when the first job has read them.
    pub parts: Vec<Part>,
}

/// The studies of a fold: how many there are, and digests of their names with what each [`Read`] is of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// None: all studies.
    pub fold: Option<u64>,
    pub studies: u64,
    /// Slices of all its studies; files are counted, so that a file of many frames counts as one.
    pub slices: u64,
    pub segmented: u64,
    /// Slices of its segmented studies.
    pub segmented_slices: u64,
    /// Names and sizes of the images' files.
    pub images: String,
    /// Contents of the segmentations.
    pub segmentations: String,
    /// The eight labels of each study.
    pub labels: String,
}

/// A kind of file that a job may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    Images,
    Segmentations,
    Labels,
}

impl Read {
    pub(crate) fn of(self, part: &Part) -> &str {
        match self {
            Read::Images => &part.images,
            Read::Segmentations => &part.segmentations,
            Read::Labels => &part.labels,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Read::Images => "images",
            Read::Segmentations => "segmentations",
            Read::Labels => "labels",
        }
    }
}

const PIXELS: &[Read] = &[Read::Images, Read::Segmentations];
const ALL: &[Read] = &[Read::Images, Read::Segmentations, Read::Labels];

impl Inputs {
    /// What a job reads: by itself, or as what the first job has made of it. Stage 1 learns from segmentations alone; where a
    /// study is held out is one more reason to read it, for then the job's metrics come from it.
    pub fn read_by(&self, kind: &JobKind) -> &'static [Read] {
        // Folds that the first job makes are made of all of it.
        if self.parts.iter().any(|part| part.fold.is_none()) {
            return ALL;
        }
        match kind {
            JobKind::StudyBoxes => PIXELS,
            JobKind::Train { stage, .. } => match stage {
                TrainStage::Stage1a { .. } | TrainStage::Stage1b { .. } => PIXELS,
                TrainStage::Stage2 { .. } | TrainStage::Stage3 { .. } => ALL,
            },
            JobKind::Labels | JobKind::SliceLabels | JobKind::Summary => ALL,
        }
    }
}

impl Part {
    /// `fold 2`, in sentences.
    pub(crate) fn name(&self) -> String {
        match self.fold {
            Some(fold) => format!("fold {fold}"),
            None => "all studies".to_owned(),
        }
    }
}
