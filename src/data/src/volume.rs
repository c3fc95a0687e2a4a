//! A CT study as one volume: the slices of a folder, ordered along their normal, head first.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::dicom::{self, SliceHeader, directions};
use crate::error::{DataError, Result};
use crate::geometry::{Geometry, cross, dot};
use crate::study::StudyUid;

/// A CT study in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Volume {
    /// The study.
    pub study: StudyUid,
    /// Hounsfield units, (slices, rows, columns), head first.
    pub hu: Vec<i16>,
    /// The `<n>` of each slice's `<n>.dcm`, in the order of the slices.
    pub slice_numbers: Vec<u32>,
    /// The grid.
    pub geometry: Geometry,
}

/// A CT study without its pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct StudyHeader {
    /// The study.
    pub study: StudyUid,
    /// The folder that holds the slices.
    pub dir: PathBuf,
    /// The `<n>` of each slice's `<n>.dcm`, head first.
    pub slice_numbers: Vec<u32>,
    /// Distance of each slice from the first one along the normal, mm, increasing. Equal steps tell an even series.
    pub depths: Vec<f64>,
    /// The grid.
    pub geometry: Geometry,
}

/// Reads all slices of the study in `dir`.
///
/// # Errors
/// As [`study_header`], and what [`dicom::read_frames`] says of a slice's pixels.
pub fn read_study(dir: &Path) -> Result<Volume> {
    let header = study_header(dir)?;
    Ok(Volume {
        hu: header.read_slices(0..header.slice_numbers.len())?,
        study: header.study,
        slice_numbers: header.slice_numbers,
        geometry: header.geometry,
    })
}

/// Finds a study below `images` (the data set's train_images/, or any folder that holds a folder for each study) and
/// reads its headers.
///
/// # Errors
/// As [`study_header`].
pub fn find_study(images: &Path, study: &StudyUid) -> Result<StudyHeader> {
    study_header(&images.join(study.as_str()))
}

/// Reads the headers of all slices of the study in `dir`, and orders the slices head first.
///
/// Slices are the files `<n>.dcm`; hidden files and files with other endings are passed over. The order is that of
/// ImagePositionPatient projected on the slices' normal, towards the feet; names and InstanceNumber play no part.
///
/// # Errors
/// [`DataError::StudyMissing`]; [`DataError::Study`] for a folder with fewer than two slices or a name that is not the
/// study's; [`DataError::MixedSlices`] for slices of different series, sizes or directions, or two at one position; and
/// what [`dicom::read_headers`] says of a slice.
pub fn study_header(dir: &Path) -> Result<StudyHeader> {
    let fault = |problem: String, remedy| DataError::Study {
        path: dir.to_path_buf(),
        problem,
        remedy,
    };
    let numbers = slice_numbers(dir)?;
    let mut slices = Vec::with_capacity(numbers.len());
    for number in numbers {
        let headers = dicom::read_headers(&slice_path(dir, number))?;
        slices.extend(headers.into_iter().map(|header| (number, header)));
    }
    let [(first_number, first), _, ..] = slices.as_slice() else {
        return Err(match slices.len() {
            0 => fault(
                "holds no file <n>.dcm".into(),
                "put the study's slices there, or take it out of the table",
            ),
            _ => fault(
                "holds one slice only, which is no volume".into(),
                "complete the series, or take the study out of the table",
            ),
        });
    };
    for (number, other) in &slices {
        same_series(dir, (*first_number, first), (*number, other))?;
    }
    if let Some(name) = dir.file_name().and_then(|name| name.to_str())
        && StudyUid::new(name).is_ok_and(|named| named != first.study)
    {
        return Err(fault(
            format!("holds slices of study {}", first.study),
            "name the folder by the study that it holds",
        ));
    }

    let [row, col] = directions(&first.orientation);
    let normal = towards_feet(cross(row, col));
    let template = first.clone();
    let mut ordered: Vec<(f64, u32, SliceHeader)> = slices
        .into_iter()
        .map(|(number, slice)| (dot(slice.position, normal), number, slice))
        .collect();
    ordered.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    for pair in ordered.windows(2) {
        if pair[1].0 - pair[0].0 < SAME_POSITION_MM {
            return Err(mixed(
                dir,
                "ImagePositionPatient",
                (
                    pair[0].1,
                    format!("{:?} (the same place)", pair[0].2.position),
                ),
                (pair[1].1, format!("{:?}", pair[1].2.position)),
            ));
        }
    }

    let origin = ordered.first().map_or([0.0; 3], |slice| slice.2.position);
    let last = ordered.last().map_or([0.0; 3], |slice| slice.2.position);
    let top = dot(origin, normal);
    let steps = ordered.len() as f64 - 1.0;
    Ok(StudyHeader {
        study: template.study,
        dir: dir.to_path_buf(),
        slice_numbers: ordered.iter().map(|slice| slice.1).collect(),
        depths: ordered.iter().map(|slice| slice.0 - top).collect(),
        geometry: Geometry {
            origin,
            row,
            col,
            spacing: template.pixel_spacing,
            step: std::array::from_fn(|i| (last[i] - origin[i]) / steps),
            rows: template.rows,
            cols: template.cols,
            slices: ordered.len(),
        },
    })
}

impl StudyHeader {
    /// All files that the study's voxels come from, each once.
    pub fn files(&self) -> Vec<PathBuf> {
        self.slice_numbers
            .iter()
            .map(|number| slice_path(&self.dir, *number))
            .collect()
    }

    /// The file of the slice at `index` of the ordered study.
    pub fn slice_path(&self, index: usize) -> Option<PathBuf> {
        let number = self.slice_numbers.get(index)?;
        Some(slice_path(&self.dir, *number))
    }

    /// Reads a run of slices, by index in the ordered study: HU, (slices, rows, columns).
    ///
    /// # Errors
    /// What [`dicom::read_frames`] says, and [`DataError::Study`] where `range` goes past the last slice or a file has
    /// changed since its header was read.
    pub fn read_slices(&self, range: Range<usize>) -> Result<Vec<i16>> {
        let fault = |problem: String, remedy| DataError::Study {
            path: self.dir.clone(),
            problem,
            remedy,
        };
        let numbers = self.slice_numbers.get(range.clone()).ok_or_else(|| {
            fault(
                format!(
                    "has {} slices, so slices {range:?} cannot be read",
                    self.slice_numbers.len()
                ),
                "make the tables again from the studies that are there",
            )
        })?;
        let pixels = self.geometry.rows * self.geometry.cols;
        let mut hu = Vec::with_capacity(numbers.len() * pixels);
        for &number in numbers {
            for slice in dicom::read_frames(&slice_path(&self.dir, number), &[0])? {
                if slice.hu.len() != pixels {
                    return Err(fault(
                        format!("changed while it was read: slice {number} has another size"),
                        "run again once nothing writes there",
                    ));
                }
                hu.extend_from_slice(&slice.hu);
            }
        }
        Ok(hu)
    }
}

/// Slices closer than this are two of the same place; the thinnest CT slices are 0.2 mm apart.
const SAME_POSITION_MM: f64 = 0.01;
/// Rounding that files of one series show: in direction cosines, and relative to PixelSpacing.
const ROUNDING: f64 = 1e-3;

fn slice_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number}.dcm"))
}

/// The numbers of the files `<n>.dcm` in `dir`, increasing.
fn slice_numbers(dir: &Path) -> Result<Vec<u32>> {
    let entries = fs::read_dir(dir).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => DataError::StudyMissing {
            path: dir.to_path_buf(),
        },
        _ => DataError::io("list", dir)(source),
    })?;
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry.map_err(DataError::io("list", dir))?.file_name();
        let name = name.to_string_lossy();
        let Some(stem) = name.strip_suffix(".dcm").filter(|_| !name.starts_with('.')) else {
            continue;
        };
        match stem.parse::<u32>() {
            // The name must be the number's own, so that it can be made from it again.
            Ok(number) if number.to_string() == stem => numbers.push(number),
            _ => {
                return Err(DataError::Study {
                    path: dir.to_path_buf(),
                    problem: "holds a .dcm file whose name is not a number".into(),
                    remedy: "name the slices 1.dcm, 2.dcm and so on",
                });
            }
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// `normal` or its opposite, whichever points down; where it is level, the one whose first component is negative.
pub(crate) fn towards_feet(normal: [f64; 3]) -> [f64; 3] {
    let [x, y, z] = normal;
    let deciding = [z, x, y].into_iter().find(|v| v.abs() > ROUNDING);
    match deciding {
        Some(v) if v > 0.0 => normal.map(|v| -v),
        _ => normal,
    }
}

fn mixed(
    dir: &Path,
    attribute: &'static str,
    first: (u32, String),
    second: (u32, String),
) -> DataError {
    DataError::MixedSlices {
        first: slice_path(dir, first.0),
        second: slice_path(dir, second.0),
        attribute,
        first_value: first.1,
        second_value: second.1,
    }
}

/// Checks that two slices can lie in one volume.
fn same_series(
    dir: &Path,
    (first_number, first): (u32, &SliceHeader),
    (second_number, second): (u32, &SliceHeader),
) -> Result<()> {
    let size = |s: &SliceHeader| format!("{} x {}", s.rows, s.cols);
    let differs = |a: &[f64], b: &[f64], by: f64| a.iter().zip(b).any(|(a, b)| (a - b).abs() > by);
    let spacing_rounding = ROUNDING * first.pixel_spacing[0];
    let (attribute, show): (_, fn(&SliceHeader) -> String) = if first.study != second.study {
        ("StudyInstanceUID", |s| s.study.to_string())
    } else if first.series != second.series {
        ("SeriesInstanceUID", |s| s.series.clone())
    } else if (first.rows, first.cols) != (second.rows, second.cols) {
        ("Rows x Columns", size)
    } else if differs(&first.orientation, &second.orientation, ROUNDING) {
        ("ImageOrientationPatient", |s| {
            format!("{:?}", s.orientation)
        })
    } else if differs(
        &first.pixel_spacing,
        &second.pixel_spacing,
        spacing_rounding,
    ) {
        ("PixelSpacing", |s| format!("{:?}", s.pixel_spacing))
    } else {
        return Ok(());
    };
    Err(mixed(
        dir,
        attribute,
        (first_number, show(first)),
        (second_number, show(second)),
    ))
}
