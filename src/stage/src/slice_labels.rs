//! Merges the out-of-fold ratios of stage 1b into the slice labels that stage 2 learns from.

use std::collections::BTreeMap;

use data::StudyUid;
use data::csv_table::write_table;
use data::stage_tables::SliceScores;
use data::tables::SliceLabels;
use data::targets::VERTEBRAE;
use event::EventKind;

use crate::Result;
use crate::context::{Cohort, Context};

/// Writes tables/slice_labels.csv: the mean ratio over `jobs`, and that ratio times the study's label.
pub fn merge_ratios(context: &Context, cohort: &Cohort, jobs: &[String]) -> Result<()> {
    // Slices keep the order of the first model's table: head first.
    let mut by_study: BTreeMap<StudyUid, Vec<(u32, [f32; VERTEBRAE], f32)>> = BTreeMap::new();
    for job in jobs {
        for row in context.out_of_fold::<SliceScores>(cohort, job)? {
            let slices = by_study.entry(row.study).or_default();
            match slices
                .iter_mut()
                .find(|(number, ..)| *number == row.slice_number)
            {
                Some((_, sum, count)) => {
                    sum.iter_mut()
                        .zip(row.scores)
                        .for_each(|(sum, score)| *sum += score);
                    *count += 1.0;
                }
                None => slices.push((row.slice_number, row.scores, 1.0)),
            }
        }
    }
    let mut rows = Vec::new();
    for (study, slices) in by_study {
        let Some(labels) = cohort.labels.get(&study) else {
            continue;
        };
        let fold = cohort.folds.get(&study).copied().unwrap_or_default();
        for (slice_number, sum, count) in slices {
            let ratio = sum.map(|sum| (sum / count).clamp(0.0, 1.0));
            rows.push(SliceLabels {
                study: study.clone(),
                slice_number,
                ratio,
                fracture: std::array::from_fn(|v| ratio[v] * f32::from(labels.vertebrae[v])),
                fold,
            });
        }
    }
    write_table(&context.place.table("slice_labels"), &rows)?;
    context.report.report(EventKind::TableWritten {
        table: "slice_labels".into(),
        rows: rows.len(),
    });
    Ok(())
}
