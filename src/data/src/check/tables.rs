//! The tables of a data set against each other and against the studies that are there.

use std::collections::BTreeSet;
use std::fs;

use super::{Problem, StudyCheck, Tables};
use crate::data_set::{DataSet, VOLUME_ENDINGS};
use crate::study::StudyUid;
use crate::tables::{FractureBox, StudyLabels, VERTEBRAE, read_table};

/// Reads `train.csv` and, where it is there, `train_bounding_boxes.csv`.
pub(super) fn read(data_set: &DataSet, problems: &mut Vec<Problem>) -> Tables {
    let mut tables = Tables::default();
    match read_table::<StudyLabels>(&data_set.labels()) {
        Ok(rows) => tables
            .labels
            .extend(rows.into_iter().map(|row| (row.study.clone(), row))),
        Err(error) => problems.push(Problem::error(error)),
    }
    let path = data_set.fracture_boxes();
    if !path.exists() {
        return tables;
    }
    match read_table::<FractureBox>(&path) {
        Ok(rows) => {
            for row in rows {
                tables.boxes.entry(row.study.clone()).or_default().push(row);
            }
        }
        Err(error) => problems.push(Problem::error(error)),
    }
    let unlabelled = tables
        .boxes
        .keys()
        .filter(|study| !tables.labels.contains_key(*study))
        .count();
    if unlabelled > 0 && !tables.labels.is_empty() {
        problems.push(Problem::warning(format!(
            "{} has boxes of {unlabelled} studies that train.csv does not list",
            path.display()
        )));
    }
    tables
}

/// Label volumes of studies that are not there, or whose names are no study's.
pub(super) fn foreign_segmentations(
    data_set: &DataSet,
    studies: &BTreeSet<StudyUid>,
    problems: &mut Vec<Problem>,
) {
    // Without the folder there are no segmentations, which only a training of stage 1 minds.
    let Ok(entries) = fs::read_dir(data_set.segmentations()) else {
        return;
    };
    let mut names: Vec<_> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    for name in names {
        let stem = VOLUME_ENDINGS
            .iter()
            .find_map(|ending| name.strip_suffix(ending));
        let known = stem
            .and_then(|stem| StudyUid::new(stem).ok())
            .is_some_and(|study| studies.contains(&study));
        if !known {
            problems.push(Problem::warning(format!(
                "{} belongs to no study in {}",
                data_set.segmentations().join(name).display(),
                data_set.images().display()
            )));
        }
    }
}

/// A study's row against itself, and its boxes against its slices.
pub(super) fn check_labels(
    labels: Option<&StudyLabels>,
    boxes: &[FractureBox],
    check: &mut StudyCheck,
) {
    if let Some(row) = labels {
        let any = row.vertebrae.iter().copied().max().unwrap_or(0);
        if any != row.patient_overall {
            check.problems.push(Problem::warning(format!(
                "train.csv: patient_overall is {} while the greatest of C1 to C7 is {any}; one of them is wrong",
                row.patient_overall
            )));
        }
        if !boxes.is_empty() && row.patient_overall == 0 {
            check.problems.push(Problem::warning(
                "train_bounding_boxes.csv has fractures of it, and train.csv says that it has none",
            ));
        }
        if let Some(segmented) = check.segmented {
            let unseen: Vec<String> = (0..VERTEBRAE)
                .filter(|&v| row.vertebrae[v] > 0 && !segmented[v])
                .map(|v| format!("C{}", v + 1))
                .collect();
            if !unseen.is_empty() {
                check.problems.push(Problem::warning(format!(
                    "train.csv has a fracture of {}, of which its segmentation shows nothing",
                    unseen.join(", ")
                )));
            }
        }
    }
    let Some([_, rows, cols]) = check.shape else {
        return;
    };
    let slices = &check.slice_numbers;
    let missing: BTreeSet<u32> = boxes
        .iter()
        .map(|b| b.slice_number)
        .filter(|number| !slices.contains(number))
        .collect();
    if let Some(first) = missing.first() {
        check.problems.push(Problem::error(format!(
            "train_bounding_boxes.csv has a box on slice {first}{}, which the study does not have",
            match missing.len() {
                1 => String::new(),
                n => format!(" and on {} others", n - 1),
            }
        )));
    }
    let outside = boxes.iter().find(|b| {
        b.x < 0.0 || b.y < 0.0 || b.x + b.width > cols as f64 || b.y + b.height > rows as f64
    });
    if let Some(b) = outside {
        check.problems.push(Problem::warning(format!(
            "train_bounding_boxes.csv: the box on slice {} reaches outside the image of {rows} rows and {cols} columns",
            b.slice_number
        )));
    }
}
