//! The tables of the data set and those that one stage hands to the next: what their rows are.
//!
//! Reading and writing are [`read_table`](crate::csv_table::read_table) and
//! [`write_table`](crate::csv_table::write_table).

use crate::csv_table::{Cells, Row};
use crate::error::Result;
use crate::leakage::OutOfFold;
use crate::study::StudyUid;

pub use crate::csv_table::{read_table, write_table};

/// Number of cervical vertebrae, C1 to C7.
pub const VERTEBRAE: usize = 7;

/// The eight labels of a study, in the order of the competition.
pub const LABELS: [&str; 8] = ["patient_overall", "C1", "C2", "C3", "C4", "C5", "C6", "C7"];

const STUDY: &str = "StudyInstanceUID";
const PATIENT: &str = "PatientID";
const FOLD: &str = "fold";
const FLAG: &str = "0 or 1";
const FRACTION: &str = "a number of 0 to 1";
const INDEX: &str = "a whole number of 0 or more";

/// A row of `train.csv`: which vertebrae of a study are fractured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StudyLabels {
    /// The study.
    pub study: StudyUid,
    /// 1 where any vertebra is fractured.
    pub patient_overall: u8,
    /// C1 to C7, 1 where fractured.
    pub vertebrae: [u8; VERTEBRAE],
    /// Whose study it is, where the table has a column PatientID. Never shown, never written.
    pub patient: Option<String>,
}

impl StudyLabels {
    /// In the order of [`LABELS`]: patient_overall, C1 to C7.
    pub fn all(&self) -> [u8; LABELS.len()] {
        let mut all = [self.patient_overall; LABELS.len()];
        all[1..].copy_from_slice(&self.vertebrae);
        all
    }
}

impl Row for StudyLabels {
    fn columns() -> Vec<String> {
        [STUDY]
            .into_iter()
            .chain(LABELS)
            .map(String::from)
            .collect()
    }

    fn optional_columns() -> Vec<String> {
        vec![PATIENT.to_owned()]
    }

    fn read(cells: &Cells<'_>) -> Result<Self> {
        let flag = |name: &str| cells.parse(name, FLAG, |&flag: &u8| flag <= 1);
        let [overall, vertebrae @ ..] = LABELS;
        Ok(Self {
            study: cells.study(STUDY)?,
            patient_overall: flag(overall)?,
            vertebrae: each(vertebrae, flag)?,
            patient: cells.optional(PATIENT).map(str::to_owned),
        })
    }

    fn write(&self) -> Vec<String> {
        [self.study.to_string(), self.patient_overall.to_string()]
            .into_iter()
            .chain(self.vertebrae.map(|flag| flag.to_string()))
            .collect()
    }

    fn key(&self) -> Option<String> {
        Some(self.study.to_string())
    }
}

/// A row of `train_bounding_boxes.csv`: a fracture on one slice. A slice may have several.
#[derive(Debug, Clone, PartialEq)]
pub struct FractureBox {
    /// The study.
    pub study: StudyUid,
    /// Left edge, pixels.
    pub x: f64,
    /// Upper edge, pixels.
    pub y: f64,
    /// Width, pixels.
    pub width: f64,
    /// Height, pixels.
    pub height: f64,
    /// The `<n>` of the slice's `<n>.dcm`.
    pub slice_number: u32,
}

impl Row for FractureBox {
    fn columns() -> Vec<String> {
        [STUDY, "x", "y", "width", "height", "slice_number"]
            .map(String::from)
            .to_vec()
    }

    fn read(cells: &Cells<'_>) -> Result<Self> {
        let edge = |name| cells.parse(name, "a number", |v: &f64| v.is_finite());
        let side = |name| {
            cells.parse(name, "a positive number", |v: &f64| {
                v.is_finite() && *v > 0.0
            })
        };
        Ok(Self {
            study: cells.study(STUDY)?,
            x: edge("x")?,
            y: edge("y")?,
            width: side("width")?,
            height: side("height")?,
            slice_number: cells.parse("slice_number", INDEX, |_| true)?,
        })
    }

    fn write(&self) -> Vec<String> {
        let numbers = [self.x, self.y, self.width, self.height].map(|v| v.to_string());
        [self.study.to_string()]
            .into_iter()
            .chain(numbers)
            .chain([self.slice_number.to_string()])
            .collect()
    }
}

/// A row of the table of folds: the one fold in which a study is held out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StudyFold {
    /// The study.
    pub study: StudyUid,
    /// From 0.
    pub fold: u32,
}

impl Row for StudyFold {
    fn columns() -> Vec<String> {
        [STUDY, FOLD].map(String::from).to_vec()
    }

    fn read(cells: &Cells<'_>) -> Result<Self> {
        Ok(Self {
            study: cells.study(STUDY)?,
            fold: cells.parse(FOLD, INDEX, |_| true)?,
        })
    }

    fn write(&self) -> Vec<String> {
        vec![self.study.to_string(), self.fold.to_string()]
    }

    fn key(&self) -> Option<String> {
        Some(self.study.to_string())
    }
}

/// A row of `study_boxes`: where the vertebrae C1 to C7 are in a study.
#[derive(Debug, Clone, PartialEq)]
pub struct StudyBox {
    /// The study.
    pub study: StudyUid,
    /// Left edge, as a fraction of the image's width.
    pub x0: f32,
    /// Upper edge, as a fraction of the height.
    pub y0: f32,
    /// Right edge, as a fraction of the width; past `x0`.
    pub x1: f32,
    /// Lower edge, as a fraction of the height; past `y0`.
    pub y1: f32,
    /// First slice with a vertebra, as an index into the study's slices, head first.
    pub slice_from: u32,
    /// Last slice with a vertebra.
    pub slice_to: u32,
    /// Last slice of the study.
    pub slice_max: u32,
    /// The fold in which the study was held out from the model that found the box.
    pub fold: u32,
}

impl StudyBox {
    /// x0, y0, x1, y1: what slices are cropped to.
    pub fn bounds(&self) -> [f64; 4] {
        [self.x0, self.y0, self.x1, self.y1].map(f64::from)
    }
}

impl Row for StudyBox {
    fn columns() -> Vec<String> {
        [
            STUDY,
            "x0",
            "y0",
            "x1",
            "y1",
            "slice_from",
            "slice_to",
            "slice_max",
            FOLD,
        ]
        .map(String::from)
        .to_vec()
    }

    fn read(cells: &Cells<'_>) -> Result<Self> {
        let [x0, y0] = [
            cells.fraction("x0", FRACTION)?,
            cells.fraction("y0", FRACTION)?,
        ];
        let slice_from = cells.parse("slice_from", INDEX, |_| true)?;
        let slice_to = cells.parse("slice_to", "a whole number not below slice_from", |&n| {
            n >= slice_from
        })?;
        Ok(Self {
            study: cells.study(STUDY)?,
            x0,
            y0,
            x1: cells.parse("x1", "a number above x0, at most 1", |&v| {
                v > x0 && v <= 1.0
            })?,
            y1: cells.parse("y1", "a number above y0, at most 1", |&v| {
                v > y0 && v <= 1.0
            })?,
            slice_from,
            slice_to,
            slice_max: cells.parse("slice_max", "a whole number not below slice_to", |&n| {
                n >= slice_to
            })?,
            fold: cells.parse(FOLD, INDEX, |_| true)?,
        })
    }

    fn write(&self) -> Vec<String> {
        [self.study.to_string()]
            .into_iter()
            .chain([self.x0, self.y0, self.x1, self.y1].map(|v| v.to_string()))
            .chain(
                [self.slice_from, self.slice_to, self.slice_max, self.fold].map(|n| n.to_string()),
            )
            .collect()
    }

    fn key(&self) -> Option<String> {
        Some(self.study.to_string())
    }
}

impl OutOfFold for StudyBox {
    fn origin(&self) -> (&StudyUid, Option<u32>) {
        (&self.study, Some(self.fold))
    }
}

/// A row of `slice_labels`: how much of each vertebra a slice shows, and how much of that is of a fractured one.
#[derive(Debug, Clone, PartialEq)]
pub struct SliceLabels {
    /// The study.
    pub study: StudyUid,
    /// The `<n>` of the slice's `<n>.dcm`.
    pub slice_number: u32,
    /// C1 to C7: the slice's pixels of the vertebra relative to its largest slice, as predicted.
    pub ratio: [f32; VERTEBRAE],
    /// C1 to C7: the ratio times the study's label of the vertebra.
    pub fracture: [f32; VERTEBRAE],
    /// The fold in which the study was held out from the models that predicted.
    pub fold: u32,
}

/// "C1" to "C7" followed by `suffix`.
fn vertebra_columns(suffix: &str) -> [String; VERTEBRAE] {
    std::array::from_fn(|i| format!("C{}{suffix}", i + 1))
}

impl Row for SliceLabels {
    fn columns() -> Vec<String> {
        [STUDY, "slice_number"]
            .map(String::from)
            .into_iter()
            .chain(vertebra_columns("_pred"))
            .chain(vertebra_columns("_frac"))
            .chain([FOLD.to_owned()])
            .collect()
    }

    fn read(cells: &Cells<'_>) -> Result<Self> {
        let fraction = |name: String| cells.fraction(&name, FRACTION);
        Ok(Self {
            study: cells.study(STUDY)?,
            slice_number: cells.parse("slice_number", INDEX, |_| true)?,
            ratio: each(vertebra_columns("_pred"), fraction)?,
            fracture: each(vertebra_columns("_frac"), fraction)?,
            fold: cells.parse(FOLD, INDEX, |_| true)?,
        })
    }

    fn write(&self) -> Vec<String> {
        [self.study.to_string(), self.slice_number.to_string()]
            .into_iter()
            .chain(self.ratio.map(|v| v.to_string()))
            .chain(self.fracture.map(|v| v.to_string()))
            .chain([self.fold.to_string()])
            .collect()
    }

    fn key(&self) -> Option<String> {
        Some(format!("{}, slice {}", self.study, self.slice_number))
    }
}

impl OutOfFold for SliceLabels {
    fn origin(&self) -> (&StudyUid, Option<u32>) {
        (&self.study, Some(self.fold))
    }
}

/// A row of a submission: the probability of one label of one study.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// The study.
    pub study: StudyUid,
    /// Which of [`LABELS`].
    pub label: usize,
    /// Probability.
    pub fractured: f64,
}

impl Row for Prediction {
    fn columns() -> Vec<String> {
        ["row_id", "fractured"].map(String::from).to_vec()
    }

    fn read(cells: &Cells<'_>) -> Result<Self> {
        const EXPECTED: &str =
            "<StudyInstanceUID>_<label>, with a label of patient_overall, C1 to C7";
        let row_id: String = cells.parse("row_id", EXPECTED, |_| true)?;
        // From the end, because a study's name may have an underscore, as patient_overall has. No label ends another.
        let parts = LABELS.iter().enumerate().find_map(|(label, name)| {
            let study = row_id.strip_suffix(name)?.strip_suffix('_')?;
            Some((StudyUid::new(study).ok()?, label))
        });
        let (study, label) = parts.ok_or_else(|| cells.unusable("row_id", EXPECTED))?;
        Ok(Self {
            study,
            label,
            fractured: cells.fraction("fractured", FRACTION)?,
        })
    }

    fn write(&self) -> Vec<String> {
        let label = LABELS.get(self.label).copied().unwrap_or_default();
        vec![
            format!("{}_{label}", self.study),
            self.fractured.to_string(),
        ]
    }

    fn key(&self) -> Option<String> {
        self.write().into_iter().next()
    }
}

/// A row of `oof_study`: a study's eight probabilities by models that were not trained on it.
#[derive(Debug, Clone, PartialEq)]
pub struct StudyPrediction {
    /// The study.
    pub study: StudyUid,
    /// The fold in which it was held out.
    pub fold: u32,
    /// Probabilities in the order of [`LABELS`].
    pub probabilities: [f64; LABELS.len()],
}

impl Row for StudyPrediction {
    fn columns() -> Vec<String> {
        [STUDY, FOLD]
            .into_iter()
            .chain(LABELS)
            .map(String::from)
            .collect()
    }

    fn read(cells: &Cells<'_>) -> Result<Self> {
        Ok(Self {
            study: cells.study(STUDY)?,
            fold: cells.parse(FOLD, INDEX, |_| true)?,
            probabilities: each(LABELS, |name| cells.fraction(name, FRACTION))?,
        })
    }

    fn write(&self) -> Vec<String> {
        [self.study.to_string(), self.fold.to_string()]
            .into_iter()
            .chain(self.probabilities.map(|v| v.to_string()))
            .collect()
    }

    fn key(&self) -> Option<String> {
        Some(self.study.to_string())
    }
}

impl OutOfFold for StudyPrediction {
    fn origin(&self) -> (&StudyUid, Option<u32>) {
        (&self.study, Some(self.fold))
    }
}

/// Applies `read` to every name, up to the first error.
fn each<N, T: Default + Copy, const COUNT: usize>(
    names: [N; COUNT],
    read: impl Fn(N) -> Result<T>,
) -> Result<[T; COUNT]> {
    let mut values = [T::default(); COUNT];
    for (value, name) in values.iter_mut().zip(names) {
        *value = read(name)?;
    }
    Ok(values)
}
