//! The first job: the split by patient, and what the segmentations say of each slice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use data::csv_table::write_table;
use data::folds::folds;
use data::nifti::read_labels as read_segmentation;
use data::stage_tables::SliceTargets;
use data::tables::{StudyFold, StudyLabels};
use data::targets::slice_targets;
use data::volume::{StudyHeader, find_study, study_path};
use data::{DataError, StudyUid};
use event::EventKind;
use rayon::prelude::*;
use train::TrainError;

use crate::Result;
use crate::context::{Context, read_labels};

/// How many missing studies are named.
const NAMED: usize = 10;

/// Studies whose headers are read between two signs of progress.
const HEADERS_AT_ONCE: usize = 64;

/// Writes folds.csv and slice_targets.csv.
pub fn make_labels(context: &Context, seed: u64) -> Result<()> {
    let labels: Vec<StudyLabels> = read_labels(context.data)?.into_values().collect();
    let images = context.images();
    every_study_is_there(&images, &labels)?;
    let headers = headers(context, &images, &labels)?;
    let segmentations = segmentations(&context.data.root, &labels)?;
    if segmentations.is_empty() {
        return Err(TrainError::Tables(format!(
            "{} holds no segmentation of a study in train.csv: stage 1 learns from them, so put \
             <StudyInstanceUID>.nii files there",
            context.data.root.join("segmentations").display()
        )));
    }

    let segmented: BTreeSet<StudyUid> = segmentations
        .iter()
        .map(|(study, _)| study.clone())
        .collect();
    let rows: Vec<StudyFold> = folds(&labels, &segmented, context.data.folds as usize, seed)?;
    make_folder(&context.place.table("folds"))?;
    write(context, "folds", &rows)?;

    let targets: Vec<Vec<SliceTargets>> = segmentations
        .par_iter()
        .map(|(study, path)| {
            headers
                .get(study)
                .map_or(Ok(Vec::new()), |header| targets_of(header, study, path))
        })
        .collect::<std::result::Result<_, DataError>>()?;
    context.progress("segmentations", segmentations.len(), segmentations.len());
    let targets: Vec<SliceTargets> = targets.into_iter().flatten().collect();
    write(context, "slice_targets", &targets)
}

fn write<R: data::csv_table::Row>(context: &Context, table: &str, rows: &[R]) -> Result<()> {
    write_table(&context.place.table(table), rows)?;
    context.report.report(EventKind::TableWritten {
        table: table.into(),
        rows: rows.len(),
    });
    Ok(())
}

fn make_folder(file: &Path) -> Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    Ok(fs::create_dir_all(folder).map_err(DataError::io("create", folder))?)
}

fn every_study_is_there(images: &Path, labels: &[StudyLabels]) -> Result<()> {
    let mut missing = Vec::new();
    for row in labels {
        match study_path(images, &row.study) {
            Ok(_) => {}
            Err(DataError::StudyMissing { path }) => missing.push(path),
            Err(error) => return Err(error.into()),
        }
    }
    match missing.as_slice() {
        [] => Ok(()),
        [one] => Err(DataError::StudyMissing { path: one.clone() }.into()),
        many => {
            let shown: Vec<String> = many
                .iter()
                .take(NAMED)
                .map(|path| format!("  {}", path.display()))
                .collect();
            let more = match many.len().saturating_sub(NAMED) {
                0 => String::new(),
                n => format!("\n  and {n} more"),
            };
            Err(TrainError::Tables(format!(
                "{} of the {} studies in train.csv have no folder or volume: complete the download, or list them under \
                 data.exclude\n{}{more}",
                many.len(),
                labels.len(),
                shown.join("\n")
            )))
        }
    }
}

/// The headers of every study: what cannot be ordered into a volume is refused now, not after hours of training.
fn headers(
    context: &Context,
    images: &Path,
    labels: &[StudyLabels],
) -> Result<BTreeMap<StudyUid, StudyHeader>> {
    let mut headers = BTreeMap::new();
    for (done, part) in labels.chunks(HEADERS_AT_ONCE).enumerate() {
        context.progress("study headers", done * HEADERS_AT_ONCE, labels.len());
        let read: Vec<_> = part
            .par_iter()
            .map(|row| Ok((row.study.clone(), find_study(images, &row.study)?)))
            .collect::<data::Result<_>>()?;
        headers.extend(read);
    }
    context.progress("study headers", labels.len(), labels.len());
    Ok(headers)
}

/// The segmentations of labelled studies, by study.
fn segmentations(root: &Path, labels: &[StudyLabels]) -> Result<Vec<(StudyUid, PathBuf)>> {
    let folder = root.join("segmentations");
    let mut found = Vec::new();
    for row in labels {
        let candidates = ["nii", "nii.gz"].map(|end| folder.join(format!("{}.{end}", row.study)));
        if let Some(path) = candidates.into_iter().find(|path| path.is_file()) {
            found.push((row.study.clone(), path));
        }
    }
    Ok(found)
}

fn targets_of(
    header: &StudyHeader,
    study: &StudyUid,
    path: &Path,
) -> data::Result<Vec<SliceTargets>> {
    let volume = read_segmentation(path, &header.geometry)?;
    let (rows, cols) = (header.geometry.rows, header.geometry.cols);
    let targets = slice_targets(&volume.labels, rows, cols);
    Ok(header
        .slice_numbers
        .iter()
        .zip(targets)
        .map(|(slice_number, target)| SliceTargets {
            study: study.clone(),
            slice_number: *slice_number,
            bounds: target.bounds.unwrap_or_default().map(|v| v as f32),
            has_box: target.bounds.is_some(),
            ratio: target.ratio.map(|v| v as f32),
        })
        .collect())
}
