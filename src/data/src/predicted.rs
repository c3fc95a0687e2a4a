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

/// What the models said of one study, means over all of them: a file of its own, in the format that docs/predictions.md
/// tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyDetails {
    /// [`DETAILS_VERSION`].
    pub format_version: u32,
    pub study: StudyUid,
    pub models: Vec<String>,
    pub flip: bool,
    /// By label: patient_overall, C1 to C7.
    pub probabilities: BTreeMap<String, f64>,
    /// x0, y0, x1, y1 as shares of the image's sides: what the study models saw.
    pub bounds: [f64; 4],
    /// First and last place (from 0, head first, both included) of the slices that show the spine.
    pub slice_range: [usize; 2],
    /// Every slice, head first.
    pub slices: Vec<SliceDetails>,
    /// By vertebra, C1 to C7.
    pub curves: BTreeMap<String, Curve>,
    /// In words that name no file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Another meaning or name of a field is another version; another field is not.
pub const DETAILS_VERSION: u32 = 1;

/// One slice, and the box of the vertebrae in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SliceDetails {
    pub slice_number: u32,
    /// Distance from the first slice along the slices' normal, towards the feet.
    pub position_mm: f64,
    /// x0, y0, x1, y1 as shares of the sides, not cut to the image.
    pub bounds: [f32; 4],
    /// Probability that the slice shows a vertebra.
    pub has_box: f32,
}

/// One vertebra along the spine: a value for each slice, 0..1. Empty where the run has no models of that stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// How much of the vertebra the slice shows, of what its largest slice shows (stage 1b).
    pub ratio: Vec<f32>,
    /// The same if the vertebra is fractured, else 0 (stage 2).
    pub fracture: Vec<f32>,
}

impl StudyDetails {
    /// Whether everything in it is a number: JSON has no other.
    pub fn is_finite(&self) -> bool {
        let boxes = self.slices.iter().flat_map(|slice| slice.bounds);
        let sure = self.slices.iter().map(|slice| slice.has_box);
        let curves = self.curves.values();
        let scores = curves.flat_map(|curve| curve.ratio.iter().chain(&curve.fracture));
        self.probabilities.values().all(|p| p.is_finite())
            && boxes.chain(sure).all(f32::is_finite)
            && scores.copied().all(f32::is_finite)
    }
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

    #[test]
    fn one_value_that_is_no_number_is_seen_wherever_it_stands() {
        let details = || StudyDetails {
            format_version: DETAILS_VERSION,
            study: StudyUid::new("1.2").unwrap(),
            models: Vec::new(),
            flip: false,
            probabilities: [("C1".to_owned(), 0.5)].into(),
            bounds: [0.0, 0.0, 1.0, 1.0],
            slice_range: [0, 0],
            slices: vec![SliceDetails {
                slice_number: 1,
                position_mm: 0.0,
                bounds: [0.0; 4],
                has_box: 0.5,
            }],
            curves: [("C1".to_owned(), Curve::default())].into(),
            warnings: Vec::new(),
        };
        assert!(details().is_finite());
        let spoilt: [fn(&mut StudyDetails); 5] = [
            |d| d.probabilities = [("C1".to_owned(), f64::NAN)].into(),
            |d| d.slices[0].bounds[3] = f32::INFINITY,
            |d| d.slices[0].has_box = f32::NAN,
            |d| d.curves.values_mut().for_each(|c| c.ratio.push(f32::NAN)),
            |d| {
                d.curves
                    .values_mut()
                    .for_each(|c| c.fracture.push(f32::NAN))
            },
        ];
        for (number, spoil) in spoilt.into_iter().enumerate() {
            let mut details = details();
            spoil(&mut details);
            assert!(!details.is_finite(), "{number}");
        }
    }
}
