//! The folder of a data set in the competition's layout: which file is where.

use std::path::{Path, PathBuf};

use crate::study::StudyUid;

/// A folder that holds `train_images/`, `segmentations/`, `train.csv` and `train_bounding_boxes.csv`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataSet {
    root: PathBuf,
}

impl DataSet {
    /// The data set in `root`, which is not looked at yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `train_images/`: a folder or a volume for each study.
    pub fn images(&self) -> PathBuf {
        self.root.join("train_images")
    }

    /// `train.csv`: the eight labels of each study.
    pub fn labels(&self) -> PathBuf {
        self.root.join("train.csv")
    }

    /// `train_bounding_boxes.csv`: fractures on slices. A data set may lack it.
    pub fn fracture_boxes(&self) -> PathBuf {
        self.root.join("train_bounding_boxes.csv")
    }

    /// `segmentations/`: label volumes of some of the studies.
    pub fn segmentations(&self) -> PathBuf {
        self.root.join("segmentations")
    }

    /// The label volume of a study; none where it has none.
    pub fn segmentation(&self, study: &StudyUid) -> Option<PathBuf> {
        VOLUME_ENDINGS
            .map(|ending| self.segmentations().join(format!("{study}{ending}")))
            .into_iter()
            .find(|path| path.is_file())
    }
}

/// How the file of a volume ends.
pub const VOLUME_ENDINGS: [&str; 2] = [".nii", ".nii.gz"];
