//! Slices that are there twice, by place and pixels or by name only.

use std::collections::BTreeMap;
use std::path::Path;

use super::finding::{Finding, FindingKind, name, names};
use super::folder::FoundSlice;
use super::series::mixed;
use crate::dicom;
use crate::error::Result;
use crate::geometry::dot;

/// Slices closer than this are two of the same place; the thinnest CT slices are 0.2 mm apart.
const SAME_POSITION_MM: f64 = 0.01;
/// Leaves out slices that repeat their neighbour; refuses two different ones at one depth.
pub(super) fn without_duplicates(
    ordered: Vec<(f64, FoundSlice)>,
    findings: &mut Vec<Finding>,
) -> Result<Vec<(f64, FoundSlice)>> {
    let mut kept: Vec<(f64, FoundSlice)> = Vec::with_capacity(ordered.len());
    let mut dropped = Vec::new();
    for (depth, slice) in ordered {
        let Some((_, earlier)) = kept
            .last()
            .filter(|(before, _)| depth - before < SAME_POSITION_MM)
        else {
            kept.push((depth, slice));
            continue;
        };
        let between: [f64; 3] =
            std::array::from_fn(|i| slice.header.position[i] - earlier.header.position[i]);
        let difference = match dot(between, between).sqrt() < SAME_POSITION_MM {
            true if pixels(earlier)? == pixels(&slice)? => {
                dropped.push((slice.file, earlier.file.clone()));
                continue;
            }
            true => "the same place, other pixels",
            false => "the same depth, another place",
        };
        return Err(mixed(
            "ImagePositionPatient",
            (earlier, format!("{:?}", earlier.header.position)),
            (
                &slice,
                format!("{:?} ({difference})", slice.header.position),
            ),
        ));
    }
    if let [(file, earlier), ..] = dropped.as_slice() {
        let message = format!(
            "slices that are there twice are left out: {} ({} has the pixels and the place of {})",
            names(dropped.iter().map(|pair| &*pair.0)),
            name(file),
            name(earlier),
        );
        findings.push(Finding::new(FindingKind::Duplicate, message));
    }
    Ok(kept)
}

/// The HU of one slice, which is the only one of its kind that is asked for.
fn pixels(slice: &FoundSlice) -> Result<Vec<Vec<i16>>> {
    let frames = dicom::read_frames(&slice.file, &[slice.header.frame])?;
    Ok(frames.into_iter().map(|frame| frame.hu).collect())
}

/// Different slices of one UID: a careless anonymiser's work, and no harm to a geometry.
pub(super) fn repeated_uids(ordered: &[(f64, FoundSlice)]) -> Option<Finding> {
    let mut files: BTreeMap<(&str, usize), &Path> = BTreeMap::new();
    let mut pairs = ordered.iter().filter_map(|(_, slice)| {
        let key = (slice.header.instance.as_str(), slice.header.frame);
        let earlier = files.insert(key, &slice.file)?;
        (!key.0.is_empty()).then_some((earlier, &*slice.file))
    });
    let (first, second) = pairs.next()?;
    let more = pairs.count();
    let message = format!(
        "{} and {} have one SOPInstanceUID and different places ({more} more pairs); both are kept",
        name(first),
        name(second),
    );
    Some(Finding::new(FindingKind::RepeatedUid, message))
}
