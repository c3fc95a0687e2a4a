//! The first job: reads every study once, splits them by patient, and says what the segmentations show on each slice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use data::csv_table::{read_table, write_table};
use data::data_set::DataSet;
use data::folds::folds;
use data::leakage;
use data::nifti::read_labels as read_segmentation;
use data::stage_tables::{LeftOut, SliceTargets};
use data::tables::{StudyFold, StudyLabels};
use data::targets::slice_targets;
use data::volume::{StudyHeader, find_study};
use data::{DataError, StudyUid};
use event::EventKind;
use rayon::prelude::*;
use recipe::{BadStudy, Check};
use train::TrainError;

use crate::Result;
use crate::context::{Context, names_of};

/// How many bad studies are named.
const NAMED: usize = 10;

/// Studies that are read between two signs of progress.
const AT_ONCE: usize = 64;

/// Writes folds.csv, slice_targets.csv and left_out.csv.
///
/// Every study is read first, as the recipe's `data.check` says: what cannot be read is known now, not after hours of
/// training, and what is left out is left out of every job alike.
///
/// # Errors
/// `Stopped`, where a stop was asked for while studies were read: nothing is written then.
pub fn make_labels(context: &Context, seed: u64) -> Result<()> {
    let mut labels: Vec<StudyLabels> = context.train_csv()?.into_values().collect();
    // What is quickly told is told before hours of reading.
    let split = match &context.data.split {
        Some(path) => Some(split_of_file(path, &labels, context.data.folds)?),
        None => None,
    };
    some_segmentation(context, &labels)?;
    make_folder(&context.place.table("folds"))?;

    let read = sorted(context, read_studies(context, &labels)?)?;
    labels.retain(|row| read.used.contains_key(&row.study));
    write(context, "left_out", &read.left_out)?;
    let targets: BTreeMap<StudyUid, Vec<SliceTargets>> = read
        .used
        .into_iter()
        .filter_map(|(study, targets)| Some((study, targets?)))
        .collect();
    if targets.is_empty() {
        return Err(TrainError::Tables(format!(
            "every study with a segmentation is left out, and stage 1 learns from them: {} says why",
            context.place.table("left_out").display()
        )));
    }
    let segmented: BTreeSet<StudyUid> = targets.keys().cloned().collect();
    let rows = match split {
        Some(mut rows) => {
            rows.retain(|row| labels.iter().any(|label| label.study == row.study));
            every_fold_is_filled(&rows, context.data.folds)?;
            rows
        }
        None => folds(&labels, &segmented, context.data.folds as usize, seed)?,
    };
    write(context, "folds", &rows)?;
    let targets: Vec<SliceTargets> = targets.into_values().flatten().collect();
    write(context, "slice_targets", &targets)
}

/// Refuses a data set without segmentations.
fn some_segmentation(context: &Context, labels: &[StudyLabels]) -> Result<()> {
    let data_set = context.data_set();
    // A study with two of them is a fault of that study, told with the others'.
    let has_one = |row: &StudyLabels| !matches!(data_set.segmentation(&row.study), Ok(None));
    match labels.iter().any(has_one) {
        true => Ok(()),
        false => Err(TrainError::Tables(format!(
            "{} holds no segmentation of a study in train.csv: stage 1 learns from them, so put \
             <StudyInstanceUID>.nii files there",
            data_set.segmentations().display()
        ))),
    }
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
    // Not what is above it: a run directory that was deleted is not begun anew.
    match fs::create_dir(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(DataError::io("create", folder)(error).into())
        }
        _ => Ok(()),
    }
}

/// What a study's segmentation says of its slices; none where it has none.
type Targets = Option<Vec<SliceTargets>>;

/// Every study with its targets, or why it cannot be read.
fn read_studies(
    context: &Context,
    labels: &[StudyLabels],
) -> Result<Vec<(StudyUid, data::Result<Targets>)>> {
    let (data_set, stop) = (context.data_set(), context.stop);
    let names = names_of(labels.iter().map(|row| &row.study));
    let mut studies = Vec::with_capacity(labels.len());
    for part in labels.chunks(AT_ONCE) {
        context.progress("studies", studies.len(), labels.len());
        let places: Vec<usize> = (studies.len()..).take(part.len()).collect();
        context.report.works_on(&places, &names);
        // What is being read is read to its end, and nothing more is begun.
        let read = part.par_iter().map(|row| {
            (!stop.is_requested()).then(|| {
                let targets = read_study(&data_set, &row.study, context.data.check);
                train::progress::went_on();
                (row.study.clone(), targets)
            })
        });
        let read: Option<Vec<_>> = read.collect();
        studies.extend(read.ok_or(TrainError::Stopped)?);
    }
    context.progress("studies", labels.len(), labels.len());
    Ok(studies)
}

fn read_study(data_set: &DataSet, study: &StudyUid, check: Check) -> data::Result<Targets> {
    let header = find_study(&data_set.images(), study)?;
    let targets = data_set
        .segmentation(study)?
        .map(|path| targets_of(&header, study, &path))
        .transpose()?;
    if check == Check::Pixels {
        header.for_each_slice(0..header.slice_numbers.len(), |_, _| Ok(()))?;
    }
    Ok(targets)
}

/// The studies that are used, and the table of the others.
struct Sorted {
    used: BTreeMap<StudyUid, Targets>,
    left_out: Vec<LeftOut>,
}

/// Leaves the bad studies out, each with a warning, or refuses them all together: as the recipe says.
fn sorted(context: &Context, read: Vec<(StudyUid, data::Result<Targets>)>) -> Result<Sorted> {
    let total = read.len();
    let mut used = BTreeMap::new();
    let mut bad = Vec::new();
    for (study, outcome) in read {
        match outcome {
            Ok(targets) => drop(used.insert(study, targets)),
            Err(error) => bad.push((study, error)),
        }
    }
    if context.data.bad_study == BadStudy::LeaveOut {
        let mut left_out = Vec::with_capacity(bad.len());
        for (study, error) in bad {
            let reason = context.report.discreet(error.to_string());
            let message = format!("study {study} is left out: {reason}");
            context.report.report(EventKind::Warning { message });
            left_out.push(LeftOut { study, reason });
        }
        return Ok(Sorted { used, left_out });
    }
    match bad.len() {
        0 => Ok(Sorted {
            used,
            left_out: Vec::new(),
        }),
        1 => Err(bad.remove(0).1.into()),
        count => {
            let shown: Vec<String> = bad
                .iter()
                .take(NAMED)
                .map(|(study, error)| format!("  {study}: {error}"))
                .collect();
            let more = match count.saturating_sub(NAMED) {
                0 => String::new(),
                n => format!("\n  and {n} more (`spinectl data check` lists all)"),
            };
            Err(TrainError::Tables(format!(
                "{count} of the {total} studies in train.csv cannot be read: mend them, list them under data.exclude, or \
                 write data.bad_study: leave_out\n{}{more}",
                shown.join("\n")
            )))
        }
    }
}

/// The split of a file that `spinectl data folds` wrote, for the studies that are used.
fn split_of_file(path: &Path, labels: &[StudyLabels], folds: u64) -> Result<Vec<StudyFold>> {
    let refused = |problem: String| {
        TrainError::Tables(format!(
            "{} {problem}: make the split again with `spinectl data folds`, or mend data.split",
            path.display()
        ))
    };
    let mut split: BTreeMap<StudyUid, u32> = read_table::<StudyFold>(path)?
        .into_iter()
        .map(|row| (row.study, row.fold))
        .collect();
    let patients = leakage::of_patients(path, labels, &split);
    leakage::refuse(patients)?;
    let mut rows = Vec::with_capacity(labels.len());
    for row in labels {
        let fold = split
            .remove(&row.study)
            .ok_or_else(|| refused(format!("has no fold for study {}", row.study)))?;
        if u64::from(fold) >= folds {
            let problem = format!(
                "puts study {} into fold {fold}, and data.folds is {folds}",
                row.study
            );
            return Err(refused(problem));
        }
        let study = row.study.clone();
        rows.push(StudyFold { study, fold });
    }
    Ok(rows)
}

fn every_fold_is_filled(rows: &[StudyFold], folds: u64) -> Result<()> {
    match (0..folds).find(|fold| !rows.iter().any(|row| u64::from(row.fold) == *fold)) {
        Some(empty) => Err(TrainError::Tables(format!(
            "the split of data.split leaves fold {empty} of {folds} without a study that is used: make the split again \
             with `spinectl data folds`, or lower data.folds"
        ))),
        None => Ok(()),
    }
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
