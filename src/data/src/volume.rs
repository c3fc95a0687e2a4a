//! A CT study as one volume, head first: found by its name, from DICOM slices or a NIfTI image.
//!
//! A study stands in a data set as a folder of DICOM files, as a file `<name>.nii` or `<name>.nii.gz`, or as a folder with
//! one such file in it.

mod duplicates;
mod export;
mod finding;
mod folder;
mod place;
mod series;
mod steps;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::export::export_nifti;
pub use self::finding::{Finding, FindingKind};
pub(crate) use self::folder::files;
use self::folder::read_folder;
use self::place::nifti_stem;
pub use self::place::{named_below, studies_below, study_path};
use crate::dicom;
use crate::error::{DataError, Result};
use crate::geometry::{Geometry, cross, dot};
use crate::nifti::NiftiImage;
use crate::study::StudyUid;

/// A CT study in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Volume {
    /// The study.
    pub study: StudyUid,
    /// Hounsfield units, (slices, rows, columns), head first.
    pub hu: Vec<i16>,
    /// The number of each slice, as in [`StudyHeader`].
    pub slice_numbers: Vec<u32>,
    /// The grid.
    pub geometry: Geometry,
}

/// A CT study without its pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct StudyHeader {
    /// The study: the name by which it was looked for, or else that of its files.
    pub study: StudyUid,
    /// The folder of DICOM slices, or the NIfTI file.
    pub path: PathBuf,
    /// The number by which tables name each slice, head first: the `<n>` of `<n>.dcm` where the slices are files of such
    /// names, and else 1, 2, 3 ... from the head, in hospital folders, multi-frame files and NIfTI volumes.
    pub slice_numbers: Vec<u32>,
    /// Distance of each slice from the first one along the normal, mm, increasing. Equal steps tell an even series.
    pub depths: Vec<f64>,
    /// The grid.
    pub geometry: Geometry,
    /// What was noticed and handled.
    pub findings: Vec<Finding>,
    source: Source,
}

/// Where slices come from.
#[derive(Debug, Clone, PartialEq)]
enum Source {
    /// The file and the frame of each slice, head first.
    Dicom(Vec<(Arc<Path>, usize)>),
    Nifti(Box<NiftiImage>),
}

/// Reads all slices of the study at `path`.
///
/// # Errors
/// As [`study_header`] and [`StudyHeader::read_slices`].
pub fn read_study(path: &Path) -> Result<Volume> {
    let header = study_header(path)?;
    Ok(Volume {
        hu: header.read_slices(0..header.slice_numbers.len())?,
        study: header.study,
        slice_numbers: header.slice_numbers,
        geometry: header.geometry,
    })
}

/// Finds a study below `images` (the data set's train_images/, or any folder that holds a folder or a NIfTI file for each
/// study) and reads its headers.
///
/// # Errors
/// As [`study_path`] and [`study_header`].
pub fn find_study(images: &Path, study: &StudyUid) -> Result<StudyHeader> {
    let header = study_header(&study_path(images, study)?)?;
    Ok(StudyHeader {
        study: study.clone(),
        ..header
    })
}

/// Reads the headers of the study at `path`, a folder or a NIfTI file, and orders its slices head first.
///
/// In a folder every file is looked at, whatever its name, and those that are no slices are passed over with a finding. A
/// folder without DICOM files holds a study if exactly one NIfTI file is in it. Subfolders are not entered.
///
/// DICOM slices are ordered by ImagePositionPatient projected on the slices' normal; names and InstanceNumber play no part.
/// NIfTI volumes are turned so that slices run to the feet, rows to the back and columns to the left, as far as exchanging
/// and reversing axes goes. What else is handled, noted in [`StudyHeader::findings`] or refused is told in
/// `docs/decisions/0019-what-makes-a-series-a-volume.md`.
///
/// # Errors
/// [`DataError::StudyMissing`]; [`DataError::Study`] for a folder without a volume, or with another name than its study's
/// UID where it is named by one; [`DataError::MixedSlices`] and [`DataError::Series`] for slices that make no volume;
/// and what [`dicom::read_headers`] and [`NiftiImage::open`] say of a file.
pub fn study_header(path: &Path) -> Result<StudyHeader> {
    if path.is_file() {
        return nifti_study(path, path);
    }
    let found = read_folder(path)?;
    if found.slices.is_empty() {
        return match found.niftis.as_slice() {
            [one] => nifti_study(path, one),
            several => Err(no_study(path, several, &found.passed_over)),
        };
    }
    let mut series = series::order(path, found.slices)?;
    within_limits(path, &series.geometry)?;
    if let Some(name) = path.file_name().and_then(|name| name.to_str())
        && StudyUid::new(name).is_ok_and(|named| named.is_dicom() && named != series.study)
    {
        return Err(DataError::Study {
            path: path.to_path_buf(),
            problem: format!("holds slices of study {}", series.study),
            remedy: "name the folder by the study that it holds",
        });
    }
    let others: Vec<&Path> = (found.niftis.iter().chain(&found.passed_over))
        .map(PathBuf::as_path)
        .collect();
    if !others.is_empty() {
        let message = format!(
            "files that are no slices are passed over: {}",
            finding::names(others.into_iter())
        );
        let passed_over = Finding::new(FindingKind::PassedOver, message);
        series.findings.insert(0, passed_over);
    }
    let slices = series.slices.into_iter();
    Ok(StudyHeader {
        study: series.study,
        path: path.to_path_buf(),
        slice_numbers: series.slice_numbers,
        depths: series.depths,
        geometry: series.geometry,
        findings: series.findings,
        source: Source::Dicom(
            slices
                .map(|slice| (slice.file, slice.header.frame))
                .collect(),
        ),
    })
}

/// Slices of a study, and its voxels: more than any CT of a neck, and what a damaged header may make memory hold.
const MOST_SLICES: usize = 3_000;
const MOST_VOXELS: usize = 400_000_000;

fn within_limits(path: &Path, geometry: &Geometry) -> Result<()> {
    let [slices, rows, cols] = geometry.shape();
    let voxels = slices.saturating_mul(rows).saturating_mul(cols);
    if slices <= MOST_SLICES && voxels <= MOST_VOXELS {
        return Ok(());
    }
    Err(DataError::Study {
        path: path.to_path_buf(),
        problem: format!(
            "has {slices} slices of {rows} x {cols}, more than {MOST_SLICES} slices or {MOST_VOXELS} voxels"
        ),
        remedy: "cut the neck out of it, or copy the file again if that is not what it holds",
    })
}

fn no_study(path: &Path, niftis: &[PathBuf], others: &[PathBuf]) -> DataError {
    let shown = |path: &PathBuf| path.display().to_string();
    let named = |paths: &[PathBuf]| finding::listed(paths.iter().map(shown));
    let (problem, remedy) = match (niftis, others) {
        ([], []) => (
            "holds no file".into(),
            "put the study's slices there, or take it out of the table",
        ),
        ([], others) => (
            format!("holds no DICOM slice, but {}", named(others)),
            "put the study's slices there, or take it out of the table",
        ),
        (several, _) => (
            format!("holds several NIfTI files: {}", named(several)),
            "keep the CT image there, and put segmentations elsewhere",
        ),
    };
    DataError::Study {
        path: path.to_path_buf(),
        problem,
        remedy,
    }
}

/// The study of the NIfTI image `file`, which is at `path` itself or alone in the folder there.
fn nifti_study(path: &Path, file: &Path) -> Result<StudyHeader> {
    let image = NiftiImage::open(file)?;
    within_limits(path, image.geometry())?;
    let names = [finding::name(path), finding::name(file)];
    let study = names
        .iter()
        .find_map(|name| StudyUid::new(nifti_stem(name).unwrap_or(name)).ok());
    let Some(study) = study else {
        return Err(DataError::Study {
            path: path.to_path_buf(),
            problem: "has a name that cannot be a study's".into(),
            remedy: "name it with letters, digits, dots, hyphens and underscores",
        });
    };
    let geometry = *image.geometry();
    if geometry.slices < 2 {
        return Err(DataError::Study {
            path: path.to_path_buf(),
            problem: "holds one slice only, which is no volume".into(),
            remedy: "take the study out of the table",
        });
    }
    let normal = cross(geometry.row, geometry.col);
    let depth = dot(geometry.step, normal) / dot(normal, normal).sqrt();
    let to_feet = normal.map(|v| v / (dot(normal, normal).sqrt() * depth.signum()));
    Ok(StudyHeader {
        study,
        path: file.to_path_buf(),
        slice_numbers: (1..).take(geometry.slices).collect(),
        depths: (0..geometry.slices)
            .map(|index| index as f64 * depth.abs())
            .collect(),
        findings: series::looks(&geometry, to_feet),
        geometry,
        source: Source::Nifti(Box::new(image)),
    })
}

impl StudyHeader {
    /// All files that the study's voxels come from, each once.
    pub fn files(&self) -> Vec<PathBuf> {
        match &self.source {
            Source::Nifti(image) => vec![image.path().to_path_buf()],
            Source::Dicom(slices) => {
                let mut seen = std::collections::BTreeSet::new();
                slices
                    .iter()
                    .filter(|(file, _)| seen.insert(file))
                    .map(|(file, _)| file.to_path_buf())
                    .collect()
            }
        }
    }

    /// The file of the slice at `index` of the ordered study.
    pub fn slice_path(&self, index: usize) -> Option<PathBuf> {
        match &self.source {
            Source::Dicom(slices) => slices.get(index).map(|(file, _)| file.to_path_buf()),
            Source::Nifti(image) => {
                (index < self.geometry.slices).then(|| image.path().to_path_buf())
            }
        }
    }

    /// Whether the study is one of DICOM files, where any run of slices costs what it holds. Of a compressed NIfTI image a
    /// part costs as much as the whole.
    pub fn is_dicom(&self) -> bool {
        matches!(self.source, Source::Dicom(_))
    }

    /// Reads a run of slices, by index in the ordered study: HU, (slices, rows, columns). A file of many frames is opened
    /// once for neighbouring ones, and a NIfTI file once in all.
    ///
    /// # Errors
    /// What [`dicom::read_frames`] and [`NiftiImage::read_slices`] say, and [`DataError::Study`] where `range` goes past the
    /// last slice or a file has changed since its header was read.
    pub fn read_slices(&self, range: Range<usize>) -> Result<Vec<i16>> {
        if let Source::Nifti(image) = &self.source {
            return image.read_slices(self.within(range)?);
        }
        let mut hu: Vec<i16> = Vec::new();
        let slices = range.len();
        self.for_each_slice(range, |_, slice| {
            if hu.is_empty() {
                // Not before one slice was really there, because a header may claim anything.
                hu.reserve_exact(slices * slice.len());
            }
            hu.extend_from_slice(slice);
            Ok(())
        })?;
        Ok(hu)
    }

    /// Hands each slice of a run to `visit`, with its index in the ordered study: HU, (rows, columns). A study is gone
    /// through once, whatever its files are. DICOM slices come head first; those of a NIfTI image in the order of the file,
    /// often feet first. In memory are a few slices, or all of `range` for an image that is not stored by such slices.
    ///
    /// # Errors
    /// As [`Self::read_slices`], and what `visit` says.
    pub fn for_each_slice(
        &self,
        range: Range<usize>,
        mut visit: impl FnMut(usize, &[i16]) -> Result<()>,
    ) -> Result<()> {
        /// Frames of one file in memory at a time.
        const FRAMES: usize = 64;

        let range = self.within(range)?;
        let slices = match &self.source {
            Source::Nifti(image) => return image.for_each_slice(range, visit),
            Source::Dicom(slices) => slices.get(range.clone()).unwrap_or_default(),
        };
        let pixels = self.geometry.rows * self.geometry.cols;
        let mut index = range.start;
        for run in slices.chunk_by(|a, b| Arc::ptr_eq(&a.0, &b.0)) {
            for part in run.chunks(FRAMES) {
                let frames: Vec<usize> = part.iter().map(|slice| slice.1).collect();
                let read = dicom::read_frames(&part[0].0, &frames)?;
                if read.len() != part.len() || read.iter().any(|slice| slice.hu.len() != pixels) {
                    return Err(self.fault(
                        format!(
                            "changed while it was read: {} has another size",
                            part[0].0.display()
                        ),
                        "run again once nothing writes there",
                    ));
                }
                for slice in read {
                    visit(index, &slice.hu)?;
                    index += 1;
                }
            }
        }
        Ok(())
    }

    fn within(&self, range: Range<usize>) -> Result<Range<usize>> {
        let slices = self.geometry.slices;
        if range.start <= range.end && range.end <= slices {
            return Ok(range);
        }
        Err(self.fault(
            format!("has {slices} slices, so slices {range:?} cannot be read"),
            "make the tables again from the studies that are there",
        ))
    }

    fn fault(&self, problem: String, remedy: &'static str) -> DataError {
        DataError::Study {
            path: self.path.clone(),
            problem,
            remedy,
        }
    }
}
