//! From boxes of single slices to the box and the slice range of a study.

use std::collections::BTreeMap;

use data::StudyUid;
use data::csv_table::write_table;
use data::stage_tables::LocatedSlice;
use data::tables::StudyBox;
use data::targets::union;
use event::EventKind;

use crate::Result;
use crate::context::{Cohort, Context};

/// A slice's box counts towards the study's where `has_box` is above this.
const BOX_THRESHOLD: f32 = 0.5;
/// A slice belongs to the range where the rolling mean of `has_box` is above this.
const RANGE_THRESHOLD: f32 = 0.1;
/// Slices of the centred rolling mean.
const ROLLING: usize = 5;

/// A study's box, as shares of the sides, and its range of slices (ends included).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    pub bounds: [f64; 4],
    pub slice_from: usize,
    pub slice_to: usize,
}

/// The union of the boxes of the slices that show a vertebra, and the z-range; none where no slice does.
fn study_box(slices: &[LocatedSlice]) -> Option<Found> {
    let boxes = slices
        .iter()
        .filter(|slice| slice.has_box > BOX_THRESHOLD)
        .map(|slice| slice.bounds.map(|v| f64::from(v).clamp(0.0, 1.0)))
        .filter(|b| b[2] > b[0] && b[3] > b[1]);
    let bounds = union(boxes)?;
    let has_box: Vec<f32> = slices.iter().map(|slice| slice.has_box).collect();
    let within = |i: &usize| rolling_mean(&has_box, *i) > RANGE_THRESHOLD;
    Some(Found {
        bounds,
        slice_from: (0..slices.len()).find(within)?,
        slice_to: (0..slices.len()).rfind(within)?,
    })
}

/// [`study_box`], or the whole image and all slices where no vertebra is found, and then `true`.
pub(crate) fn found_or_all(slices: &[LocatedSlice]) -> (Found, bool) {
    match study_box(slices) {
        Some(found) => (found, false),
        None => {
            let slice_to = slices.len().saturating_sub(1);
            (
                Found {
                    bounds: [0.0, 0.0, 1.0, 1.0],
                    slice_from: 0,
                    slice_to,
                },
                true,
            )
        }
    }
}

/// Mean of the values around `i`, of those that exist.
fn rolling_mean(values: &[f32], i: usize) -> f32 {
    let half = ROLLING / 2;
    let window = &values[i.saturating_sub(half)..(i + half + 1).min(values.len())];
    window.iter().sum::<f32>() / window.len() as f32
}

/// The mean over several models of what they say of the same slices.
pub(crate) fn mean_over_models(models: &[Vec<LocatedSlice>]) -> Vec<LocatedSlice> {
    let count = models.len().max(1) as f32;
    let Some(first) = models.first() else {
        return Vec::new();
    };
    let mean = |i: usize, of: &dyn Fn(&LocatedSlice) -> f32| {
        models
            .iter()
            .filter_map(|rows| rows.get(i))
            .map(of)
            .sum::<f32>()
            / count
    };
    first
        .iter()
        .enumerate()
        .map(|(i, slice)| LocatedSlice {
            bounds: std::array::from_fn(|side| mean(i, &|row| row.bounds[side])),
            has_box: mean(i, &|row| row.has_box),
            ..slice.clone()
        })
        .collect()
}

/// Merges the out-of-fold boxes of `jobs` into tables/study_boxes.csv.
///
/// A study in which no model finds a vertebra keeps the whole image and all its slices, and a warning says so.
pub fn merge_boxes(context: &Context, cohort: &Cohort, jobs: &[String]) -> Result<()> {
    let mut by_study: BTreeMap<StudyUid, Vec<Vec<LocatedSlice>>> = BTreeMap::new();
    for job in jobs {
        let mut of_job: BTreeMap<StudyUid, Vec<LocatedSlice>> = BTreeMap::new();
        for row in context.out_of_fold::<LocatedSlice>(cohort, job)? {
            of_job.entry(row.study.clone()).or_default().push(row);
        }
        for (study, rows) in of_job {
            by_study.entry(study).or_default().push(rows);
        }
    }
    let mut rows = Vec::with_capacity(by_study.len());
    for (study, models) in by_study {
        let slices = mean_over_models(&models);
        let fold = cohort.folds.get(&study).copied().unwrap_or_default();
        let last = slices.len().saturating_sub(1);
        let (found, missed) = found_or_all(&slices);
        if missed {
            let message = format!(
                "study {study}: the localizers found no vertebra; it goes on uncropped with all its slices"
            );
            context.report.report(EventKind::Warning { message });
        }
        let [x0, y0, x1, y1] = found.bounds.map(|v| v as f32);
        rows.push(StudyBox {
            study,
            x0,
            y0,
            x1,
            y1,
            slice_from: found.slice_from as u32,
            slice_to: found.slice_to as u32,
            slice_max: last as u32,
            fold,
        });
    }
    write_table(&context.place.table("study_boxes"), &rows)?;
    context.report.report(EventKind::TableWritten {
        table: "study_boxes".into(),
        rows: rows.len(),
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(n: u32, has_box: f32, bounds: [f32; 4]) -> LocatedSlice {
        LocatedSlice {
            study: StudyUid::new("1.2").unwrap(),
            slice_number: n,
            bounds,
            has_box,
            fold: Some(0),
        }
    }

    #[test]
    fn the_union_of_sure_slices_and_the_range_of_likely_ones() {
        let probabilities = [0.0, 0.0, 0.0, 0.6, 0.9, 0.9, 0.3, 0.0, 0.0, 0.0, 0.0];
        let slices: Vec<_> = probabilities
            .iter()
            .enumerate()
            .map(|(i, p)| {
                let shift = i as f32 / 100.0;
                slice(i as u32, *p, [0.3 + shift, 0.4, 0.6 + shift, 0.7])
            })
            .collect();
        let found = study_box(&slices).unwrap();
        assert!((found.bounds[0] - 0.33).abs() < 1e-6 && (found.bounds[2] - 0.65).abs() < 1e-6);
        // Means over five: slice 1 has 0.6 / 5 = 0.12, slice 7 has (0.9 + 0.3) / 5, slice 8 has 0.3 / 5 = 0.06.
        assert_eq!((found.slice_from, found.slice_to), (1, 7));
    }

    #[test]
    fn no_vertebra_no_box() {
        assert_eq!(study_box(&[slice(0, 0.2, [0.1, 0.1, 0.2, 0.2])]), None);
        assert_eq!(study_box(&[]), None);
    }

    #[test]
    fn models_are_averaged_slice_by_slice() {
        let a = vec![slice(3, 1.0, [0.0, 0.0, 0.4, 0.4])];
        let b = vec![slice(3, 0.5, [0.2, 0.0, 0.6, 0.4])];
        let mean = mean_over_models(&[a, b]);
        assert_eq!(mean[0].has_box, 0.75);
        assert!((mean[0].bounds[0] - 0.1).abs() < 1e-6);
    }
}
