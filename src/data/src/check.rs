//! Reads a whole data set as a training would, and says beforehand what would stop or spoil one.
//!
//! Nothing is changed. Studies are read in parallel, one a thread, and of each in memory are a few slices, its label volume,
//! and the whole of a NIfTI image that is not stored by slices.

mod picture;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::Serialize;

use crate::data_set::DataSet;
use crate::error::Result;
use crate::geometry::Geometry;
use crate::nifti::{LabelVolume, read_labels};
use crate::study::StudyUid;
use crate::tables::{FractureBox, StudyLabels};
use crate::targets::VERTEBRAE;
use crate::volume::{StudyHeader, find_study, studies_below};

pub use picture::{Gray, Pictures};

/// How much is read.
#[derive(Debug, Clone, Default)]
pub struct CheckOptions {
    /// Read headers only: quicker by far, but damaged pixels stay undetected.
    pub headers_only: bool,
    /// Studies to leave out.
    pub exclude: BTreeSet<StudyUid>,
    /// Whether studies with problems get their pictures.
    pub pictures: bool,
}

/// How much a problem matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing is wrong.
    Ok,
    /// Training works, but somebody should know.
    Warning,
    /// Training on it stops.
    Error,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// How much it matters.
    pub severity: Severity,
    /// File, field, and what to do.
    pub message: String,
}

impl Problem {
    fn error(message: impl ToString) -> Self {
        Self {
            severity: Severity::Error,
            message: message.to_string(),
        }
    }

    fn warning(message: impl ToString) -> Self {
        Self {
            severity: Severity::Warning,
            message: message.to_string(),
        }
    }
}

/// What a data set holds and what is wrong with it.
#[derive(Debug, Clone, Serialize)]
pub struct CheckReport {
    /// Of the tables and the folders as such.
    pub problems: Vec<Problem>,
    /// Every study of `train.csv` and of `train_images/`, by name.
    pub studies: Vec<StudyCheck>,
}

/// One study.
#[derive(Debug, Clone, Serialize)]
pub struct StudyCheck {
    /// Its name.
    pub study: StudyUid,
    /// (slices, rows, columns); none where the study could not be put in order.
    pub shape: Option<[usize; 3]>,
    /// Distance between slices, rows and columns, mm.
    pub spacing: Option<[f64; 3]>,
    /// Whether `train.csv` has its labels.
    pub labelled: bool,
    /// Which of C1 to C7 its label volume holds; none where it has no volume, or one that cannot be read.
    pub segmented: Option<[bool; VERTEBRAE]>,
    /// The numbers of its slices, head first.
    #[serde(skip)]
    pub slice_numbers: Vec<u32>,
    /// What was found.
    pub problems: Vec<Problem>,
    /// Where something was found, and pictures were asked for.
    #[serde(skip)]
    pub pictures: Option<Pictures>,
}

impl StudyCheck {
    /// The gravest of its problems.
    pub fn severity(&self) -> Severity {
        gravest(&self.problems)
    }
}

impl CheckReport {
    /// The gravest problem of all.
    pub fn severity(&self) -> Severity {
        let studies = self.studies.iter().map(StudyCheck::severity);
        studies
            .max()
            .unwrap_or(Severity::Ok)
            .max(gravest(&self.problems))
    }

    /// How many studies have this as their gravest.
    pub fn count(&self, severity: Severity) -> usize {
        let of = |check: &&StudyCheck| check.severity() == severity;
        self.studies.iter().filter(of).count()
    }
}

fn gravest(problems: &[Problem]) -> Severity {
    let severities = problems.iter().map(|problem| problem.severity);
    severities.max().unwrap_or(Severity::Ok)
}

/// Reads everything; `progress` is told (done, total) studies, from any thread.
///
/// # Errors
/// [`DataError::Io`](crate::DataError::Io) where the folder of the images cannot be listed. All else is in the report.
pub fn check(
    data_set: &DataSet,
    options: &CheckOptions,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<CheckReport> {
    let images = data_set.images();
    let found: BTreeSet<StudyUid> = studies_below(&images)?.into_iter().collect();
    let mut problems = Vec::new();
    let tables = tables::read(data_set, &mut problems);
    if found.is_empty() {
        problems.push(Problem::error(format!(
            "{} holds no study: put a folder <StudyInstanceUID>/ of DICOM files, or a volume <name>.nii.gz, there for each",
            images.display()
        )));
    }
    tables::foreign_segmentations(data_set, &found, &mut problems);

    let all: Vec<&StudyUid> = found
        .iter()
        .chain(tables.labels.keys().filter(|study| !found.contains(*study)))
        .filter(|study| !options.exclude.contains(*study))
        .collect();
    let done = AtomicUsize::new(0);
    progress(0, all.len());
    let mut studies: Vec<StudyCheck> = all
        .par_iter()
        .map(|study| {
            let boxes = tables.boxes.get(*study).map_or(&[][..], Vec::as_slice);
            let labels = tables.labels.get(*study);
            let mut check = check_study(data_set, study, options);
            check.labelled = labels.is_some();
            if labels.is_none() && !tables.labels.is_empty() {
                let message = "train.csv has no row of it, so no training uses it";
                check.problems.push(Problem::warning(message));
            }
            tables::check_labels(labels, boxes, &mut check);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, all.len());
            check
        })
        .collect();
    studies.sort_by(|a, b| a.study.cmp(&b.study));
    Ok(CheckReport { problems, studies })
}

fn check_study(data_set: &DataSet, study: &StudyUid, options: &CheckOptions) -> StudyCheck {
    let mut check = StudyCheck {
        study: study.clone(),
        shape: None,
        spacing: None,
        labelled: false,
        segmented: None,
        slice_numbers: Vec::new(),
        problems: Vec::new(),
        pictures: None,
    };
    let images = data_set.images();
    let header = match find_study(&images, study) {
        Ok(header) => header,
        Err(error) => {
            check.problems.push(Problem::error(error));
            if options.pictures {
                check.pictures = picture::of_folder(&images.join(study.as_str()));
            }
            return check;
        }
    };
    let geometry = &header.geometry;
    let [between_rows, between_columns] = geometry.spacing;
    check.shape = Some(geometry.shape());
    check.spacing = Some([geometry.slice_spacing(), between_rows, between_columns]);
    check.slice_numbers.clone_from(&header.slice_numbers);
    let findings = header.findings.iter().map(Problem::warning);
    check.problems.extend(findings);
    if let Some(labels) = segmentation(data_set, study, geometry).transpose() {
        match labels {
            Ok((volume, path)) => {
                let holds = |v: usize| volume.labels.contains(&(v as u8 + 1));
                let present: [bool; VERTEBRAE] = std::array::from_fn(holds);
                if present == [false; VERTEBRAE] {
                    check.problems.push(Problem::warning(format!(
                        "segmentation {} holds none of the labels 1 to 7 (C1 to C7): stage 1 learns nothing from it",
                        path.display()
                    )));
                }
                check.segmented = Some(present);
            }
            Err(error) => check.problems.push(Problem::error(error)),
        }
    }
    if !options.headers_only {
        let mut pictures = Pictures::of(&header);
        check.problems.extend(read_pixels(&header, &mut pictures));
        if options.pictures && check.severity() > Severity::Ok {
            check.pictures = Some(pictures);
        }
    }
    check
}

/// The study's label volume, where it has one.
fn segmentation(
    data_set: &DataSet,
    study: &StudyUid,
    geometry: &Geometry,
) -> Result<Option<(LabelVolume, PathBuf)>> {
    let Some(path) = data_set.segmentation(study)? else {
        return Ok(None);
    };
    Ok(Some((read_labels(&path, geometry)?, path)))
}

/// After so many unreadable slices a study is read no further.
const GIVEN_UP: usize = 5;
/// Every CT of a neck holds air and bone; HU.
const AIR_BELOW: i16 = -200;
const BONE_ABOVE: i16 = 200;

/// Decodes every slice, goes on where one cannot be read, and keeps what a picture needs.
fn read_pixels(header: &StudyHeader, pictures: &mut Pictures) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut flat: Vec<u32> = Vec::new();
    let (mut lowest, mut highest) = (i16::MAX, i16::MIN);
    let slices = header.geometry.slices;
    let mut next = 0;
    while next < slices {
        let read = header.for_each_slice(next..slices, |index, hu| {
            pictures.take(index, hu);
            let least = hu.iter().copied().min().unwrap_or(i16::MAX);
            let most = hu.iter().copied().max().unwrap_or(i16::MIN);
            if least == most {
                flat.extend(header.slice_numbers.get(index));
            }
            (lowest, highest) = (lowest.min(least), highest.max(most));
            next = index + 1;
            Ok(())
        });
        let Err(error) = read else { break };
        problems.push(Problem::error(error));
        // Of a file with several slices all are as good as its worst.
        if header.slice_path(next) == header.slice_path(next + 1) {
            break;
        }
        if problems.len() == GIVEN_UP {
            let message = "it is not read further after so many slices that cannot be read";
            problems.push(Problem::error(message));
            break;
        }
        next += 1;
    }
    if let [first, ..] = flat.as_slice() {
        problems.push(Problem::warning(format!(
            "{} of its slices hold one value only, the first of them slice {first}: they may be empty exports",
            flat.len()
        )));
    }
    if highest > lowest && (lowest >= AIR_BELOW || highest <= BONE_ABOVE) {
        problems.push(Problem::warning(format!(
            "its values of {lowest} to {highest} are not those of a CT with air and bone: RescaleSlope or \
             RescaleIntercept may be wrong, or it shows no neck"
        )));
    }
    problems
}

/// The labels and boxes of a data set's tables, by study.
#[derive(Default)]
struct Tables {
    labels: BTreeMap<StudyUid, StudyLabels>,
    boxes: BTreeMap<StudyUid, Vec<FractureBox>>,
}
