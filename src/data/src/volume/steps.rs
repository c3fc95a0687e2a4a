//! From slice to slice: gaps, unequal steps, tilted gantries and stacks that are not straight.

use super::finding::{Finding, FindingKind, name};
use super::folder::FoundSlice;
use crate::error::{DataError, Result};
use crate::geometry::{Geometry, dot};

/// A hole that could hide a vertebra: beyond the usual step, mm.
const WIDEST_HOLE_MM: f64 = 20.0;
/// Positions are often rounded to 0.1 mm, so a step may be off by as much.
const STEP_ROUNDING_MM: f64 = 0.11;
/// No gantry tilts by more than 30 degrees.
const LARGEST_TILT_DEGREES: f64 = 45.0;

/// Checks a series that is in order. `depths` increase; `normal` points to the feet, as `geometry.step` does.
///
/// # Errors
/// [`DataError::Series`] for a hole that could hide a vertebra, slices that lie on no straight line, or a tilt that no
/// gantry has.
pub(super) fn check(
    slices: &[FoundSlice],
    depths: &[f64],
    geometry: &Geometry,
    normal: [f64; 3],
) -> Result<Vec<Finding>> {
    let mut findings = gaps(slices, depths)?;
    straight(slices, depths, geometry)?;
    findings.extend(tilt(slices, geometry, normal)?);
    Ok(findings)
}

fn gaps(slices: &[FoundSlice], depths: &[f64]) -> Result<Vec<Finding>> {
    let steps: Vec<f64> = depths.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let mut sorted = steps.clone();
    sorted.sort_by(f64::total_cmp);
    let (Some(&least), Some(&most)) = (sorted.first(), sorted.last()) else {
        return Ok(Vec::new());
    };
    let usual = sorted[(sorted.len() - 1) / 2];
    let place = |index: usize| (&slices[index], &slices[index + 1]);

    let tolerance = STEP_ROUNDING_MM.max(0.1 * usual);
    let mut wide = Vec::new();
    let mut uneven = None;
    for (index, &step) in steps.iter().enumerate() {
        if step - usual > WIDEST_HOLE_MM {
            let (above, below) = place(index);
            return Err(DataError::Series {
                first: above.file.to_path_buf(),
                second: below.file.to_path_buf(),
                problem: format!(
                    "are {step:.1} mm apart where other slices are {usual:.2} mm: a vertebra may be missing between them"
                ),
                remedy: "complete the series",
            });
        }
        let missing = (step / usual).round() - 1.0;
        if missing >= 1.0 && step - usual > tolerance {
            wide.push((index, missing));
        } else if (step - usual).abs() > tolerance {
            uneven.get_or_insert(index);
        }
    }
    let finding = |kind, index, text: String| {
        let (above, below) = place(index);
        let files = (name(&above.file), name(&below.file));
        Finding::new(kind, format!("between {} and {} {text}", files.0, files.1))
    };
    // Where every tenth step is wide, the series was made so.
    let as_made = wide.len() > 1 && wide.len() * 10 > steps.len();
    if as_made {
        uneven = uneven.or(wide.first().map(|&(index, _)| index));
        wide.clear();
    }
    let gaps = wide.into_iter().map(|(index, missing)| {
        let step = steps[index];
        finding(
            FindingKind::Gap,
            index,
            format!("about {missing} slice(s) are missing: {step:.2} mm where others are {usual:.2} mm apart"),
        )
    });
    let uneven = uneven.map(|index| {
        finding(
            FindingKind::UnequalSpacing,
            index,
            format!(
                "and elsewhere slices are unequally spaced, by {least:.2} to {most:.2} mm; the mean stands for all"
            ),
        )
    });
    Ok(gaps.chain(uneven).collect())
}

/// Refuses a stack whose slices lie beside the straight line from the first to the last one by more than a pixel.
fn straight(slices: &[FoundSlice], depths: &[f64], geometry: &Geometry) -> Result<()> {
    let allowed = geometry.spacing[0].max(geometry.spacing[1]).max(0.5);
    let whole = depths.last().copied().unwrap_or_default();
    let steps = geometry.slices as f64 - 1.0;
    for (slice, depth) in slices.iter().zip(depths) {
        let along = depth / whole * steps;
        let beside: [f64; 3] = std::array::from_fn(|i| {
            slice.header.position[i] - (geometry.origin[i] + along * geometry.step[i])
        });
        let distance = dot(beside, beside).sqrt();
        if distance > allowed {
            return Err(DataError::Series {
                first: slices[0].file.to_path_buf(),
                second: slice.file.to_path_buf(),
                problem: format!(
                    "do not belong to one straight stack: the second lies {distance:.1} mm beside the line from the first \
                     slice to the last"
                ),
                remedy: "keep one series a folder",
            });
        }
    }
    Ok(())
}

/// The angle between the way from slice to slice and the slices' normal.
fn tilt(slices: &[FoundSlice], geometry: &Geometry, normal: [f64; 3]) -> Result<Option<Finding>> {
    let cosine = dot(geometry.step, normal) / geometry.slice_spacing();
    let degrees = cosine.clamp(-1.0, 1.0).acos().to_degrees();
    let whole = geometry.slice_spacing() * (geometry.slices as f64 - 1.0);
    let (Some(first), Some(last)) = (slices.first(), slices.last()) else {
        return Ok(None);
    };
    if degrees > LARGEST_TILT_DEGREES {
        return Err(DataError::Series {
            first: first.file.to_path_buf(),
            second: last.file.to_path_buf(),
            problem: format!(
                "lie along a line {degrees:.0} degrees off the slices' normal, more than a gantry tilts"
            ),
            remedy: "export the series again",
        });
    }
    // Half a millimetre over the whole stack is rounding of positions.
    let shift = degrees.to_radians().sin() * whole;
    Ok((degrees > 0.5 && shift > 0.5).then(|| {
        let message = format!(
            "the gantry was tilted by {degrees:.1} degrees: from {} to {} slices shift by {shift:.1} mm",
            name(&first.file),
            name(&last.file)
        );
        Finding::new(FindingKind::GantryTilt, message)
    }))
}
