//! Leaks between folds: a patient in two of them, a prediction by a model that was trained on its study.
//!
//! What a model was trained on is known three times: from the fold that its job holds out, from the fold that each row of
//! its table states, and from its ledger, which names every sample that was loaded. All are held against the split.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::csv_table::{Row, read_table};
use crate::error::{DataError, Result};
use crate::ledger::{Chain, Record};
use crate::study::StudyUid;
use crate::tables::StudyLabels;

/// The fold in which each study is held out.
pub type Split = BTreeMap<StudyUid, u32>;

/// Leaks that are named in one message; the rest are counted.
const NAMED: usize = 10;

/// One leak.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Leak {
    #[error(
        "{}: study {study} is in fold {fold}, and study {other} of the same patient in fold {other_fold}",
        split.display()
    )]
    Patient {
        split: PathBuf,
        study: StudyUid,
        fold: u32,
        other: StudyUid,
        other_fold: u32,
    },
    #[error(
        "{}: study {study} is predicted by a model that holds out fold {fold}, and {}: that model was trained on it",
        table.display(), place(*held_out)
    )]
    Row {
        table: PathBuf,
        study: StudyUid,
        /// What the model holds out.
        fold: u64,
        /// Where the split has the study.
        held_out: Option<u32>,
    },
    #[error(
        "{}: study {study} is predicted by {job}, which holds no fold out: it was trained on every study",
        table.display()
    )]
    All {
        table: PathBuf,
        study: StudyUid,
        job: String,
    },
    #[error(
        "{}: study {study} is predicted by {job}, whose ledger says that it was trained on it",
        table.display()
    )]
    Trained {
        table: PathBuf,
        study: StudyUid,
        job: String,
    },
}

fn place(held_out: Option<u32>) -> String {
    match held_out {
        Some(fold) => format!("the split has it in fold {fold}"),
        None => "the split does not have it".to_owned(),
    }
}

/// Patients with studies in two folds of the split that `path` holds, one leak a study that strays from its patient's
/// first. Studies without a patient, or without a fold, are passed over.
pub fn of_patients<'a>(
    path: &Path,
    labels: impl IntoIterator<Item = &'a StudyLabels>,
    split: &Split,
) -> Vec<Leak> {
    let mut first: BTreeMap<&str, (&StudyUid, u32)> = BTreeMap::new();
    let mut leaks = Vec::new();
    for row in labels {
        let (Some(patient), Some(fold)) = (&row.patient, split.get(&row.study)) else {
            continue;
        };
        let (other, other_fold) = *first.entry(patient).or_insert((&row.study, *fold));
        if other_fold != *fold {
            leaks.push(Leak::Patient {
                split: path.to_owned(),
                study: row.study.clone(),
                fold: *fold,
                other: other.clone(),
                other_fold,
            });
        }
    }
    leaks
}

/// Rows of an out-of-fold table whose study the split holds out in another fold than the row states, or than `fold`, which
/// the job holds out that the table is of (none where several have been merged). One leak a study.
pub fn of_rows<'a>(
    table: &Path,
    fold: Option<u64>,
    rows: impl IntoIterator<Item = (&'a StudyUid, Option<u32>)>,
    split: &Split,
) -> Vec<Leak> {
    let mut told: BTreeSet<&StudyUid> = BTreeSet::new();
    let mut leaks = Vec::new();
    for (study, stated) in rows {
        let held_out = split.get(study).copied();
        let folds = [stated.map(u64::from), fold];
        let wrong = folds
            .into_iter()
            .flatten()
            .find(|fold| held_out.map(u64::from) != Some(*fold));
        if let Some(fold) = wrong
            && told.insert(study)
        {
            leaks.push(Leak::Row {
                table: table.to_owned(),
                study: study.clone(),
                fold,
                held_out,
            });
        }
    }
    leaks
}

/// A row of a table that models make of studies which they were not trained on.
pub trait OutOfFold: Row {
    /// The study, and the fold that the model holds out; none where a table of an earlier version does not say.
    fn origin(&self) -> (&StudyUid, Option<u32>);
}

/// Reads an out-of-fold table and refuses it where it leaks; `fold` as for [`of_rows`].
///
/// # Errors
/// Those of [`read_table`], and [`DataError::Leaks`].
pub fn read_out_of_fold<R: OutOfFold>(
    table: &Path,
    fold: Option<u64>,
    split: &Split,
) -> Result<Vec<R>> {
    let rows = read_table::<R>(table)?;
    refuse(of_rows(table, fold, rows.iter().map(R::origin), split))?;
    Ok(rows)
}

/// All studies of a table that is said to be out of fold, of a job that holds nothing out.
pub fn of_all<'a>(
    table: &Path,
    job: &str,
    studies: impl IntoIterator<Item = &'a StudyUid>,
) -> Vec<Leak> {
    let studies: BTreeSet<&StudyUid> = studies.into_iter().collect();
    let leak = |study: &StudyUid| Leak::All {
        table: table.to_owned(),
        study: study.clone(),
        job: job.to_owned(),
    };
    studies.into_iter().map(leak).collect()
}

/// Studies of a job's out-of-fold table that its ledger names as samples.
pub fn of_ledger<'a>(
    table: &Path,
    job: &str,
    studies: impl IntoIterator<Item = &'a StudyUid>,
    ledger: &Chain,
) -> Vec<Leak> {
    let trained_on = studies_of(ledger);
    let studies: BTreeSet<&StudyUid> = studies.into_iter().collect();
    let both = studies
        .into_iter()
        .filter(|study| trained_on.contains(study.as_str()));
    both.map(|study| Leak::Trained {
        table: table.to_owned(),
        study: study.clone(),
        job: job.to_owned(),
    })
    .collect()
}

/// The studies whose samples any attempt had: a sample is `<study>` or `<study>/<place>`.
fn studies_of(ledger: &Chain) -> BTreeSet<&str> {
    let segments = ledger.lines.iter().filter_map(|line| match &line.record {
        Record::Segment(segment) => Some(&segment.samples),
        Record::Update(_) => None,
    });
    let samples = segments.flatten();
    samples
        .map(|sample| sample.split_once('/').map_or(sample.as_str(), |(s, _)| s))
        .collect()
}

/// An error that names the leaks, where there are any.
///
/// # Errors
/// [`DataError::Leaks`].
pub fn refuse(leaks: Vec<Leak>) -> Result<()> {
    match leaks.is_empty() {
        true => Ok(()),
        false => Err(DataError::Leaks(leaks)),
    }
}

/// All leaks in one message, and what to do.
pub(crate) fn in_words(leaks: &[Leak]) -> String {
    let mut text = match leaks.len() {
        1 => "a leak between folds:".to_owned(),
        count => format!("{count} leaks between folds:"),
    };
    for leak in leaks.iter().take(NAMED) {
        text.push_str(&format!("\n  {leak}"));
    }
    if let Some(more @ 1..) = leaks.len().checked_sub(NAMED) {
        text.push_str(&format!("\n  and {more} more"));
    }
    text.push_str(
        "\nMake a split by patient with `spinectl data folds`; tables that do not fit their split are made again by a \
         launch into another run directory",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Line, Segment, Update};

    fn study(number: u32) -> StudyUid {
        StudyUid::new(&format!("1.2.{number}")).unwrap()
    }

    fn split() -> Split {
        (0..6).map(|number| (study(number), number % 2)).collect()
    }

    fn labels(patients: [Option<&str>; 6]) -> Vec<StudyLabels> {
        let row = |(number, patient): (u32, Option<&str>)| StudyLabels {
            study: study(number),
            patient_overall: 0,
            vertebrae: [0; 7],
            patient: patient.map(str::to_owned),
        };
        (0..).zip(patients).map(row).collect()
    }

    #[test]
    fn a_patient_in_two_folds_is_named_by_both_studies() {
        let path = Path::new("folds.csv");
        let kept = labels([
            Some("PAT-7"),
            Some("b"),
            Some("PAT-7"),
            Some("b"),
            None,
            None,
        ]);
        assert_eq!(of_patients(path, &kept, &split()), []);
        let strays = labels([
            Some("PAT-7"),
            Some("b"),
            Some("PAT-7"),
            Some("PAT-7"),
            None,
            None,
        ]);
        let leaks = of_patients(path, &strays, &split());
        assert_eq!(leaks.len(), 1);
        let text = refuse(leaks).unwrap_err().to_string();
        for part in [
            "folds.csv",
            "study 1.2.3 is in fold 1",
            "study 1.2.0 of the same patient in fold 0",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("PAT-7"), "a patient is never shown: {text}");
    }

    #[test]
    fn a_row_of_another_fold_is_named_once() {
        let path = Path::new("out_of_fold.csv");
        let fold = Some(0);
        let (held_out, trained, unknown) = (study(2), study(3), study(9));
        let rows = |study, fold| vec![(study, fold), (study, fold)];
        assert_eq!(of_rows(path, fold, rows(&held_out, Some(0)), &split()), []);
        assert_eq!(of_rows(path, fold, rows(&held_out, None), &split()), []);
        // Moved into the table of a model that was trained on it.
        for stated in [None, Some(1), Some(0)] {
            let leaks = of_rows(path, fold, rows(&trained, stated), &split());
            assert!(
                matches!(
                    &leaks[..],
                    [Leak::Row {
                        fold: 0,
                        held_out: Some(1),
                        ..
                    }]
                ),
                "{stated:?}: {leaks:?}"
            );
        }
        // States another fold than the split's.
        let leaks = of_rows(path, None, rows(&held_out, Some(1)), &split());
        assert!(
            matches!(
                &leaks[..],
                [Leak::Row {
                    fold: 1,
                    held_out: Some(0),
                    ..
                }]
            ),
            "{leaks:?}"
        );
        let text = refuse(of_rows(path, fold, rows(&unknown, None), &split()));
        let text = text.unwrap_err().to_string();
        assert!(
            text.contains("study 1.2.9") && text.contains("does not have it"),
            "{text}"
        );
    }

    #[test]
    fn the_ledger_tells_what_a_model_was_trained_on() {
        let segment = Segment {
            job: "ab".into(),
            seed: 0,
            world_size: 1,
            batch: 1,
            after: 0,
            updates_per_epoch: 1,
            total_updates: 1,
            samples: vec!["1.2.1/40".into(), "1.2.3".into()],
        };
        let records = [
            Record::Segment(segment),
            Record::Update(Update {
                step: 1,
                ranks: vec![vec![0]],
            }),
        ];
        let line = |(number, record)| Line {
            number,
            hash: String::new(),
            record,
        };
        let ledger = Chain {
            lines: (1..).zip(records).map(line).collect(),
            head: String::new(),
            breaks: Vec::new(),
            torn: 0,
        };
        let path = Path::new("out_of_fold.csv");
        let of = |studies: &[StudyUid]| of_ledger(path, "stage3-a-fold0-seed0", studies, &ledger);
        assert_eq!(of(&[study(0), study(2)]), []);
        let leaks = of(&[study(0), study(3), study(1), study(1)]);
        assert_eq!(leaks.len(), 2, "{leaks:?}");
        let text = refuse(leaks).unwrap_err().to_string();
        assert!(text.starts_with("2 leaks between folds:"), "{text}");
        assert!(
            text.contains("study 1.2.3 is predicted by stage3-a-fold0-seed0"),
            "{text}"
        );
    }

    #[test]
    fn many_leaks_are_counted() {
        let leak = |number| Leak::Trained {
            table: "t".into(),
            study: study(number),
            job: "j".into(),
        };
        let text = refuse((0..12).map(leak).collect()).unwrap_err().to_string();
        assert!(
            text.contains("and 2 more") && !text.contains("1.2.10"),
            "{text}"
        );
        let text = refuse((0..10).map(leak).collect()).unwrap_err().to_string();
        assert!(!text.contains("more"), "{text}");
    }
}
