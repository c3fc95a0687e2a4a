//! The slices of a folder as one volume: which of them make it, and in what order.
//!
//! Order and validity come from ImagePositionPatient and ImageOrientationPatient alone; names and InstanceNumber play no
//! part. What can be handled without a doubt about the result is handled, and noted; the rest is refused with the files
//! named. The bounds are in `docs/decisions/0019-what-makes-a-series-a-volume.md`.

use std::collections::BTreeMap;
use std::path::Path;

use super::duplicates::{repeated_uids, without_duplicates};
use super::finding::{Finding, FindingKind, names};
use super::folder::{FoundSlice, slice_number};
use super::steps;
use crate::dicom::{SliceHeader, directions};
use crate::error::{DataError, Result};
use crate::geometry::{Geometry, cross, dot};
use crate::study::StudyUid;

/// A series in order.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) study: StudyUid,
    /// Head first.
    pub(super) slices: Vec<FoundSlice>,
    pub(super) slice_numbers: Vec<u32>,
    pub(super) depths: Vec<f64>,
    pub(super) geometry: Geometry,
    pub(super) findings: Vec<Finding>,
}

/// Rounding that files of one series show: in direction cosines, and relative to PixelSpacing.
const ROUNDING: f64 = 1e-3;
/// Slices whose normal is further than 45 degrees from head-feet are not axial.
const AXIAL_COSINE: f64 = std::f64::consts::FRAC_1_SQRT_2;

/// Orders `found`, the slices in `dir`, into a volume.
///
/// # Errors
/// [`DataError::Study`], [`DataError::MixedSlices`], and what reading the pixels of two slices at one
/// place says.
pub(super) fn order(dir: &Path, found: Vec<FoundSlice>) -> Result<Series> {
    let mut findings = Vec::new();
    let (localizers, slices): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|slice| slice.header.localizer);
    if !localizers.is_empty() {
        let message = format!(
            "scout views are left out: {}",
            names(localizers.iter().map(|slice| &*slice.file))
        );
        findings.push(Finding::new(FindingKind::Localizer, message));
    }
    let [first, ..] = slices.as_slice() else {
        let problem = match localizers.len() {
            0 => "holds no slice".into(),
            n => format!("holds no slice but {n} scout view(s)"),
        };
        return Err(incomplete(dir, problem));
    };

    one_series(&slices)?;
    for other in &slices {
        one_grid(first, other)?;
    }
    let template = first.header.clone();
    let normal = towards_feet(first)?;
    let mut ordered: Vec<(f64, FoundSlice)> = slices
        .into_iter()
        .map(|slice| (dot(slice.header.position, normal), slice))
        .collect();
    // Stable, so that of two at one place the first one stays.
    ordered.sort_by(|a, b| a.0.total_cmp(&b.0));
    let ordered = without_duplicates(ordered, &mut findings)?;
    findings.extend(repeated_uids(&ordered));

    let (Some((top, head)), Some((_, feet)), 2..) =
        (ordered.first(), ordered.last(), ordered.len())
    else {
        let problem = "holds one slice only, which is no volume".into();
        return Err(incomplete(dir, problem));
    };
    let (origin, last) = (head.header.position, feet.header.position);
    let count = ordered.len() as f64 - 1.0;
    let [row, col] = directions(&template.orientation);
    let geometry = Geometry {
        origin,
        row,
        col,
        spacing: template.pixel_spacing,
        step: std::array::from_fn(|i| (last[i] - origin[i]) / count),
        rows: template.rows,
        cols: template.cols,
        slices: ordered.len(),
    };
    let depths: Vec<f64> = ordered.iter().map(|slice| slice.0 - top).collect();
    let slices: Vec<FoundSlice> = ordered.into_iter().map(|slice| slice.1).collect();
    findings.extend(steps::check(&slices, &depths, &geometry, normal)?);
    findings.extend(looks(&geometry, normal));

    Ok(Series {
        study: template.study,
        slice_numbers: slice_numbers(dir, &slices)?,
        slices,
        depths,
        geometry,
        findings,
    })
}

/// What may surprise in a geometry, of a DICOM series or a NIfTI volume. `normal` points to the feet.
pub(super) fn looks(geometry: &Geometry, normal: [f64; 3]) -> Vec<Finding> {
    /// A neck of 15 cm in slices of 5 mm.
    const FEW: usize = 30;
    /// Beyond the usual tilt of a head's slices.
    const OBLIQUE_DEGREES: f64 = 10.0;

    let mut findings = Vec::new();
    let mut add = |kind, message: String| findings.push(Finding::new(kind, message));
    let tilt = (-normal[2]).clamp(-1.0, 1.0).acos().to_degrees();
    if tilt > OBLIQUE_DEGREES {
        add(
            FindingKind::Oblique,
            format!("slices are {tilt:.1} degrees off the axial plane"),
        );
    }
    let (to_left, to_back) = (geometry.row[0], geometry.col[1]);
    let mirrored = dot(cross(geometry.row, geometry.col), normal) > 0.0;
    if to_left < AXIAL_COSINE || to_back < AXIAL_COSINE || mirrored {
        add(
            FindingKind::Turned,
            format!(
                "slices are {}: their rows run to {}, their columns to {}, not to the patient's left and back",
                if mirrored { "mirrored" } else { "turned" },
                towards(geometry.row),
                towards(geometry.col),
            ),
        );
    }
    let [between_rows, between_columns] = geometry.spacing;
    if (between_rows - between_columns).abs() > 1e-3 * between_columns {
        add(
            FindingKind::NonSquarePixels,
            format!("pixels are {between_rows} mm high and {between_columns} mm wide"),
        );
    }
    if geometry.slices < FEW {
        add(
            FindingKind::FewSlices,
            format!(
                "the study has {} slices, and a neck has {FEW} or more",
                geometry.slices
            ),
        );
    }
    findings
}

/// The side of the patient to which a vector (LPS) mostly points.
fn towards(vector: [f64; 3]) -> &'static str {
    let sides = [["left", "right"], ["back", "front"], ["head", "feet"]];
    let along = (0..3).fold(0, |best, i| match vector[i].abs() > vector[best].abs() {
        true => i,
        false => best,
    });
    sides[along][usize::from(vector[along] < 0.0)]
}

/// The unit normal of the slices that points to the feet.
fn towards_feet(slice: &FoundSlice) -> Result<[f64; 3]> {
    let [row, col] = directions(&slice.header.orientation);
    let normal = cross(row, col);
    let length = dot(normal, normal).sqrt();
    let down = if normal[2] > 0.0 { -length } else { length };
    let normal = normal.map(|v| v / down);
    if -normal[2] >= AXIAL_COSINE {
        return Ok(normal);
    }
    Err(DataError::Dicom {
        path: slice.file.to_path_buf(),
        attribute: "ImageOrientationPatient",
        problem: format!(
            "is {:?}, that of a coronal or sagittal slice",
            slice.header.orientation
        ),
        remedy: "put the axial series there instead",
    })
}

fn incomplete(dir: &Path, problem: String) -> DataError {
    DataError::Study {
        path: dir.to_path_buf(),
        problem,
        remedy: "complete the series, or take the study out of the table",
    }
}

/// Refuses slices of several series, with their number in each of the two largest.
fn one_series(slices: &[FoundSlice]) -> Result<()> {
    let mut series: BTreeMap<(&StudyUid, &str), Vec<&FoundSlice>> = BTreeMap::new();
    for slice in slices {
        let key = (&slice.header.study, slice.header.series.as_str());
        series.entry(key).or_default().push(slice);
    }
    let mut series: Vec<_> = series.into_iter().collect();
    series.sort_by_key(|(_, slices)| std::cmp::Reverse(slices.len()));
    let [(first_uid, first), (second_uid, second), ..] = series.as_slice() else {
        return Ok(());
    };
    let (attribute, first_value, second_value) = match first_uid.0 == second_uid.0 {
        true => ("SeriesInstanceUID", first_uid.1, second_uid.1),
        false => (
            "StudyInstanceUID",
            first_uid.0.as_str(),
            second_uid.0.as_str(),
        ),
    };
    let counted = |value, slices: &[&FoundSlice]| format!("{value} ({} slices)", slices.len());
    Err(mixed(
        attribute,
        (first[0], counted(first_value, first)),
        (second[0], counted(second_value, second)),
    ))
}

/// Checks that two slices have one matrix, spacing and orientation.
fn one_grid(first: &FoundSlice, second: &FoundSlice) -> Result<()> {
    let (a, b) = (&first.header, &second.header);
    let size = |s: &SliceHeader| format!("{} x {}", s.rows, s.cols);
    let differs = |a: &[f64], b: &[f64], by: f64| a.iter().zip(b).any(|(a, b)| (a - b).abs() > by);
    let spacing_rounding = ROUNDING * a.pixel_spacing[0];
    let (attribute, show): (_, fn(&SliceHeader) -> String) = if (a.rows, a.cols) != (b.rows, b.cols)
    {
        ("Rows x Columns", size)
    } else if differs(&a.orientation, &b.orientation, ROUNDING) {
        ("ImageOrientationPatient", |s| {
            format!("{:?}", s.orientation)
        })
    } else if differs(&a.pixel_spacing, &b.pixel_spacing, spacing_rounding) {
        ("PixelSpacing", |s| format!("{:?}", s.pixel_spacing))
    } else {
        return Ok(());
    };
    Err(mixed(attribute, (first, show(a)), (second, show(b))))
}

pub(super) fn mixed(
    attribute: &'static str,
    first: (&FoundSlice, String),
    second: (&FoundSlice, String),
) -> DataError {
    DataError::MixedSlices {
        first: first.0.file.to_path_buf(),
        second: second.0.file.to_path_buf(),
        attribute,
        first_value: first.1,
        second_value: second.1,
    }
}

/// The `<n>` of each `<n>.dcm` where all slices are files of such names; 1, 2, ... from the head where none is, or where
/// files hold several slices.
fn slice_numbers(dir: &Path, slices: &[FoundSlice]) -> Result<Vec<u32>> {
    let mut numbers = Vec::with_capacity(slices.len());
    let mut unnumbered = None;
    for slice in slices {
        match slice_number(&slice.file) {
            Some(number) => numbers.push(number),
            None => unnumbered = Some(&slice.file),
        }
    }
    let distinct: std::collections::BTreeSet<_> = numbers.iter().collect();
    let frames = distinct.len() < numbers.len();
    match unnumbered {
        None if !frames => Ok(numbers),
        Some(odd) if !numbers.is_empty() && !frames => Err(DataError::Study {
            path: dir.to_path_buf(),
            problem: format!(
                "numbers {} of its {} slices by their names, and {} is not one of them: tables that name slices would \
                 name others",
                numbers.len(),
                slices.len(),
                odd.display()
            ),
            remedy: "name all of them <n>.dcm, or none",
        }),
        _ => Ok((1..).take(slices.len()).collect()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Frame `frame` of `file`, `height` mm up.
    fn frame(file: &Arc<Path>, frame: usize, height: f64) -> FoundSlice {
        FoundSlice {
            file: Arc::clone(file),
            header: SliceHeader {
                study: StudyUid::new("1.2.3").unwrap(),
                series: "1.2.3.4".into(),
                instance: "1.2.3.4.5".into(),
                frame,
                localizer: false,
                rows: 2,
                cols: 2,
                position: [0.0, 0.0, height],
                orientation: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
                pixel_spacing: [1.0, 1.0],
            },
        }
    }

    #[test]
    fn frames_of_one_file_are_slices_of_their_own() {
        // Feet first, as the frames of a file often run; all of one SOPInstanceUID, which is no repetition.
        let file: Arc<Path> = Path::new("1.dcm").into();
        let found = (0..40).map(|n| frame(&file, n, n as f64)).collect();
        let series = order(Path::new("study"), found).unwrap();
        assert!(series.findings.is_empty(), "{:?}", series.findings);
        let frames: Vec<usize> = series.slices.iter().map(|s| s.header.frame).collect();
        assert_eq!(frames, (0..40).rev().collect::<Vec<_>>());
        // One name cannot number forty slices.
        assert_eq!(series.slice_numbers, (1..=40).collect::<Vec<_>>());

        // Two files, each of a half, whose names are numbers.
        let other: Arc<Path> = Path::new("2.dcm").into();
        let halves = (0..20).flat_map(|n| {
            [
                frame(&file, n, 2.0 * n as f64),
                frame(&other, n, 2.0 * n as f64 + 1.0),
            ]
        });
        let series = order(Path::new("study"), halves.collect()).unwrap();
        assert_eq!(series.geometry.step, [0.0, 0.0, -1.0]);
        assert_eq!(series.slices[0].file, other);
        assert_eq!(series.slice_numbers, (1..=40).collect::<Vec<_>>());
    }

    #[test]
    fn directions_have_names() {
        assert_eq!(towards([0.9, -0.2, 0.1]), "left");
        assert_eq!(towards([0.0, -1.0, 0.0]), "front");
        assert_eq!(towards([0.0, 0.3, 0.9]), "head");
    }
}
