//! What a prediction leaves beside its submission: how each study ended, and what the models said of one study.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::atomic_file;
use crate::error::Result;
use crate::study::StudyUid;

/// How each study of a prediction ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PredictionReport {
    /// The jobs whose models took part: architecture, fold and seed are in their names.
    pub models: Vec<String>,
    /// Each probability is the mean of the study and its mirror image.
    pub flip: bool,
    pub studies: Vec<StudyOutcome>,
}

/// How one study ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StudyOutcome {
    /// The name of its folder or file, which need not be fit to name a study.
    pub study: String,
    /// Why it has no rows in the submission; none where it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// What was noticed about a study that could be predicted all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What the models said of one study, means over all of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyDetails {
    pub study: StudyUid,
    pub models: Vec<String>,
    pub flip: bool,
    /// By label: patient_overall, C1 to C7.
    pub probabilities: BTreeMap<String, f64>,
    /// x0, y0, x1, y1 as shares of the image's sides: what the study models saw.
    pub bounds: [f64; 4],
    /// First and last place (from 0, head first, both included) of the slices that show the spine.
    pub slices: [usize; 2],
    /// Every slice, head first.
    pub boxes: Vec<SliceBox>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The box of the vertebrae in one slice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SliceBox {
    pub slice_number: u32,
    /// x0, y0, x1, y1 as shares of the sides, not cut to the image.
    pub bounds: [f32; 4],
    /// Probability that the slice shows a vertebra.
    pub has_box: f32,
}

/// The report's place: `<submission>.report.json`, beside the submission.
pub fn report_path(submission: &Path) -> PathBuf {
    let mut name = submission.as_os_str().to_owned();
    name.push(".report.json");
    name.into()
}

/// Writes a value as JSON; the file appears whole or not at all.
///
/// # Errors
/// [`DataError::Io`](crate::DataError::Io).
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    atomic_file::replace(path, |file| {
        serde_json::to_writer_pretty(&mut *file, value)?;
        file.write_all(b"\n")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_lies_beside_its_submission_and_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = report_path(&folder.path().join("submission.csv"));
        assert!(path.ends_with("submission.csv.report.json"));
        let report = PredictionReport {
            models: vec!["stage1a-resnest14d-fold0-seed0".into()],
            flip: true,
            studies: vec![StudyOutcome {
                study: "not a <study>".into(),
                failure: Some("cannot name a study".into()),
                warnings: Vec::new(),
            }],
        };
        write_json(&path, &report).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let back: PredictionReport = serde_json::from_str(&text).unwrap();
        assert_eq!(back, report);
    }
}
