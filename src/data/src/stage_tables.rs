//! The tables that one job writes and the next reads, beside the ones that PIPELINE.md names: slice targets from
//! segmentations, and out-of-fold predictions of single models.

use crate::csv_table::{Cells, Row};
use crate::error::Result;
use crate::leakage::OutOfFold;
use crate::study::StudyUid;
use crate::targets::VERTEBRAE;

const STUDY: &str = "StudyInstanceUID";
const SLICE: &str = "slice_number";
const FOLD: &str = "fold";
const BOX: [&str; 4] = ["x0", "y0", "x1", "y1"];

fn columns<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    names.into_iter().map(String::from).collect()
}

fn vertebrae(suffix: &str) -> Vec<String> {
    (1..=VERTEBRAE).map(|v| format!("C{v}{suffix}")).collect()
}

fn numbers<const N: usize>(
    cells: &Cells<'_>,
    names: &[String],
    expected: &'static str,
) -> Result<[f32; N]> {
    let mut values = [0.0; N];
    for (value, name) in values.iter_mut().zip(names) {
        *value = cells.parse(name, expected, |v: &f32| v.is_finite())?;
    }
    Ok(values)
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(T::to_string).collect()
}

/// The fold that a row states; none in tables of earlier versions, which did not.
fn fold(cells: &Cells<'_>) -> Result<Option<u32>> {
    let stated = cells.optional(FOLD);
    stated
        .map(|_| cells.parse(FOLD, "a whole number of 0 or more", |_| true))
        .transpose()
}

fn fold_text(fold: Option<u32>) -> String {
    fold.map(|fold| fold.to_string()).unwrap_or_default()
}

/// `slice_targets.csv`: what a segmentation says of a slice.
#[derive(Clone, Debug, PartialEq)]
pub struct SliceTargets {
    pub study: StudyUid,
    /// The `<n>` of the slice's `<n>.dcm`; rows of a study stand head first.
    pub slice_number: u32,
    /// x0, y0, x1, y1 as shares of the sides; zeros where there is no vertebra.
    pub bounds: [f32; 4],
    pub has_box: bool,
    pub ratio: [f32; VERTEBRAE],
}

impl Row for SliceTargets {
    fn columns() -> Vec<String> {
        let mut all = columns([STUDY, SLICE].into_iter().chain(BOX).chain(["has_box"]));
        all.extend(vertebrae("_ratio"));
        all
    }

    fn read(cells: &Cells<'_>) -> Result<Self> {
        Ok(SliceTargets {
            study: cells.study(STUDY)?,
            slice_number: cells.parse(SLICE, "a slice number", |_| true)?,
            bounds: numbers(cells, &columns(BOX), "a share of the image's side")?,
            has_box: cells.parse("has_box", "0 or 1", |v: &u8| *v <= 1)? == 1,
            ratio: numbers(cells, &vertebrae("_ratio"), "a ratio of 0 to 1")?,
        })
    }

    fn write(&self) -> Vec<String> {
        let mut cells = vec![self.study.to_string(), self.slice_number.to_string()];
        cells.extend(texts(&self.bounds));
        cells.push(u8::from(self.has_box).to_string());
        cells.extend(texts(&self.ratio));
        cells
    }

    fn key(&self) -> Option<String> {
        Some(format!("{}, slice {}", self.study, self.slice_number))
    }
}

/// `left_out.csv`: a study that cannot be read and that no job uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub study: StudyUid,
    /// File, field, and what to do.
    pub reason: String,
}

impl Row for LeftOut {
    fn columns() -> Vec<String> {
        columns([STUDY, "reason"])
    }

    fn read(cells: &Cells<'_>) -> Result<Self> {
        Ok(LeftOut {
            study: cells.study(STUDY)?,
            reason: cells.optional("reason").unwrap_or_default().to_owned(),
        })
    }

    fn write(&self) -> Vec<String> {
        vec![self.study.to_string(), self.reason.clone()]
    }

    fn key(&self) -> Option<String> {
        Some(self.study.to_string())
    }
}

/// What a localizer that did not see the study says of a slice.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LocatedSlice {
    pub study: StudyUid,
    pub slice_number: u32,
    /// x0, y0, x1, y1 as shares of the sides, not cut to the image.
    pub bounds: [f32; 4],
    /// Probability that the slice shows a vertebra.
    pub has_box: f32,
    /// The fold that the model holds out; none in tables of earlier versions.
    pub fold: Option<u32>,
}

impl Row for LocatedSlice {
    fn columns() -> Vec<String> {
        let rest = ["has_box", FOLD];
        columns([STUDY, SLICE].into_iter().chain(BOX).chain(rest))
    }

    fn optional_columns() -> Vec<String> {
        columns([FOLD])
    }

    fn read(cells: &Cells<'_>) -> Result<Self> {
        Ok(LocatedSlice {
            study: cells.study(STUDY)?,
            slice_number: cells.parse(SLICE, "a slice number", |_| true)?,
            bounds: numbers(cells, &columns(BOX), "a number")?,
            has_box: cells.parse("has_box", "a probability", |v: &f32| {
                (0.0..=1.0).contains(v)
            })?,
            fold: fold(cells)?,
        })
    }

    fn write(&self) -> Vec<String> {
        let mut cells = vec![self.study.to_string(), self.slice_number.to_string()];
        cells.extend(texts(&self.bounds));
        cells.extend([self.has_box.to_string(), fold_text(self.fold)]);
        cells
    }

    fn key(&self) -> Option<String> {
        Some(format!("{}, slice {}", self.study, self.slice_number))
    }
}

impl OutOfFold for LocatedSlice {
    fn origin(&self) -> (&StudyUid, Option<u32>) {
        (&self.study, self.fold)
    }
}

/// What a slice model that did not see the study says of a slice: vertebra ratios (stage 1b) or fractures (stage 2).
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SliceScores {
    pub study: StudyUid,
    pub slice_number: u32,
    /// C1..C7, 0..1.
    pub scores: [f32; VERTEBRAE],
    /// The fold that the model holds out; none in tables of earlier versions.
    pub fold: Option<u32>,
}

impl Row for SliceScores {
    fn columns() -> Vec<String> {
        let mut all = columns([STUDY, SLICE]);
        all.extend(vertebrae(""));
        all.push(FOLD.to_owned());
        all
    }

    fn optional_columns() -> Vec<String> {
        columns([FOLD])
    }

    fn read(cells: &Cells<'_>) -> Result<Self> {
        Ok(SliceScores {
            study: cells.study(STUDY)?,
            slice_number: cells.parse(SLICE, "a slice number", |_| true)?,
            scores: numbers(cells, &vertebrae(""), "a number of 0 to 1")?,
            fold: fold(cells)?,
        })
    }

    fn write(&self) -> Vec<String> {
        let mut cells = vec![self.study.to_string(), self.slice_number.to_string()];
        cells.extend(texts(&self.scores));
        cells.push(fold_text(self.fold));
        cells
    }

    fn key(&self) -> Option<String> {
        Some(format!("{}, slice {}", self.study, self.slice_number))
    }
}

impl OutOfFold for SliceScores {
    fn origin(&self) -> (&StudyUid, Option<u32>) {
        (&self.study, self.fold)
    }
}

/// What any out-of-fold table says of where its rows come from: read alone where only that is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub study: StudyUid,
    /// The fold that the model holds out; none in tables of earlier versions.
    pub fold: Option<u32>,
}

impl Row for Origin {
    fn columns() -> Vec<String> {
        columns([STUDY, FOLD])
    }

    fn optional_columns() -> Vec<String> {
        columns([FOLD])
    }

    fn read(cells: &Cells<'_>) -> Result<Self> {
        Ok(Origin {
            study: cells.study(STUDY)?,
            fold: fold(cells)?,
        })
    }

    fn write(&self) -> Vec<String> {
        vec![self.study.to_string(), fold_text(self.fold)]
    }
}

impl OutOfFold for Origin {
    fn origin(&self) -> (&StudyUid, Option<u32>) {
        (&self.study, self.fold)
    }
}
