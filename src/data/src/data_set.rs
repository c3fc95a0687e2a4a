//! The folder of a data set in the competition's layout: which file is where.

use std::path::{Path, PathBuf};

use crate::error::{DataError, Result};
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
    ///
    /// # Errors
    /// [`DataError::Study`] where there are two: nobody knows which of them is meant.
    pub fn segmentation(&self, study: &StudyUid) -> Result<Option<PathBuf>> {
        let paths =
            VOLUME_ENDINGS.map(|ending| self.segmentations().join(format!("{study}{ending}")));
        match paths.each_ref().map(|path| path.is_file()) {
            [true, true] => {
                let [first, second] = paths;
                Err(DataError::Study {
                    path: first,
                    problem: format!("is there a second time, as {}", second.display()),
                    remedy: "keep one of the two",
                })
            }
            there => Ok(paths
                .into_iter()
                .zip(there)
                .find(|(_, there)| *there)
                .map(|(path, _)| path)),
        }
    }
}

/// How the file of a volume ends.
pub const VOLUME_ENDINGS: [&str; 2] = [".nii", ".nii.gz"];
