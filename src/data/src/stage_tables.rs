//! The tables that one job writes and the next reads, beside the ones that PIPELINE.md names: slice targets from
//! segmentations, and out-of-fold predictions of single models.

use crate::csv_table::{Cells, Row};
use crate::error::Result;
use crate::study::StudyUid;
use crate::targets::VERTEBRAE;

const STUDY: &str = "StudyInstanceUID";
const SLICE: &str = "slice_number";
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
}

impl Row for LocatedSlice {
    fn columns() -> Vec<String> {
        columns([STUDY, SLICE].into_iter().chain(BOX).chain(["has_box"]))
    }

    fn read(cells: &Cells<'_>) -> Result<Self> {
        Ok(LocatedSlice {
            study: cells.study(STUDY)?,
            slice_number: cells.parse(SLICE, "a slice number", |_| true)?,
            bounds: numbers(cells, &columns(BOX), "a number")?,
            has_box: cells.parse("has_box", "a probability", |v: &f32| {
                (0.0..=1.0).contains(v)
            })?,
        })
    }

    fn write(&self) -> Vec<String> {
        let mut cells = vec![self.study.to_string(), self.slice_number.to_string()];
        cells.extend(texts(&self.bounds));
        cells.push(self.has_box.to_string());
        cells
    }

    fn key(&self) -> Option<String> {
        Some(format!("{}, slice {}", self.study, self.slice_number))
    }
}

/// What a slice model that did not see the study says of a slice: vertebra ratios (stage 1b) or fractures (stage 2).
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SliceScores {
    pub study: StudyUid,
    pub slice_number: u32,
    /// C1..C7, 0..1.
    pub scores: [f32; VERTEBRAE],
}

impl Row for SliceScores {
    fn columns() -> Vec<String> {
        let mut all = columns([STUDY, SLICE]);
        all.extend(vertebrae(""));
        all
    }

    fn read(cells: &Cells<'_>) -> Result<Self> {
        Ok(SliceScores {
            study: cells.study(STUDY)?,
            slice_number: cells.parse(SLICE, "a slice number", |_| true)?,
            scores: numbers(cells, &vertebrae(""), "a number of 0 to 1")?,
        })
    }

    fn write(&self) -> Vec<String> {
        let mut cells = vec![self.study.to_string(), self.slice_number.to_string()];
        cells.extend(texts(&self.scores));
        cells
    }

    fn key(&self) -> Option<String> {
        Some(format!("{}, slice {}", self.study, self.slice_number))
    }
}
