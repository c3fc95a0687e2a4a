//! A folder of studies -> submission.csv, by all of a run's models together.

use std::path::Path;

use data::csv_table::write_table;
use data::predicted::{PredictionReport, StudyDetails, StudyOutcome, report_path, write_json};
use data::tables::Prediction;
use data::volume::named_below;
use data::{DataError, StudyUid};
use event::EventKind;
use train::{Report, TrainError};

use crate::Result;
use crate::ensemble::Models;
use crate::prediction::{Predicted, predict_study};
use crate::summary::prediction_rows;

/// What is asked of a prediction.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The folder that holds the studies.
    pub images: &'a Path,
    /// The submission to write; the report of all studies goes beside it ([`report_path`]).
    pub out: &'a Path,
    /// The folder for a JSON file of each study.
    pub details: Option<&'a Path>,
    /// Every model sees the study and its mirror image, and their mean counts.
    pub flip: bool,
}

/// How many studies were predicted and how many could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub predicted: usize,
    pub failed: usize,
}

/// Predicts every study of a folder and writes a submission and a report.
///
/// A study that cannot be read, or whose name can name none, is left out with its reason in the report; the others go on.
/// Events name a study by its UID or by its place in the report, and no file: other names may be persons'.
///
/// # Errors
/// A folder without studies, files that cannot be written, and what libtorch says.
pub fn predict(models: &Models, request: Request, report: &dyn Report) -> Result<Counts> {
    let named = all_studies(request.images)?;
    if let Some(folder) = request.details {
        std::fs::create_dir_all(folder).map_err(DataError::io("create", folder))?;
    }
    let mut rows: Vec<Prediction> = Vec::new();
    let mut studies: Vec<StudyOutcome> = Vec::new();
    let total = named.len();
    for (done, (name, study)) in named.into_iter().enumerate() {
        progress(report, done, total);
        let shown = match &study {
            Ok(study) if study.is_dicom() => format!("study {study}"),
            _ => format!("study {} of {total}", done + 1),
        };
        let warn = |text: &str| {
            let message = format!("{shown}: {text}");
            report.report(EventKind::Warning { message });
        };
        let mut outcome = StudyOutcome {
            study: name,
            failure: None,
            warnings: Vec::new(),
        };
        match study.map_err(TrainError::from).and_then(|study| {
            let predicted = predict_study(models, request, &study)?;
            Ok((study, predicted))
        }) {
            Ok((_, Predicted { details, .. })) if !details.is_finite() => {
                warn(NO_NUMBER);
                outcome.failure = Some(NO_NUMBER.to_owned());
            }
            Ok((study, predicted)) => {
                rows.extend(prediction_rows(&study, &predicted.probabilities));
                if let Some(folder) = request.details {
                    write_details(folder, &predicted.details)?;
                }
                predicted
                    .details
                    .warnings
                    .iter()
                    .for_each(|text| warn(text));
                outcome.warnings = predicted.warnings;
            }
            Err(TrainError::Data(error)) => {
                warn("cannot be read and is left out; the report says why");
                outcome.failure = Some(error.to_string());
            }
            Err(error) => return Err(error),
        }
        studies.push(outcome);
    }
    progress(report, total, total);
    let failed = studies.iter().filter(|s| s.failure.is_some()).count();
    let counts = Counts {
        predicted: studies.len() - failed,
        failed,
    };
    let ended = PredictionReport {
        models: models.names.clone(),
        flip: request.flip,
        studies,
    };
    write_json(&report_path(request.out), &ended)?;
    write_table(request.out, &rows)?;
    report.report(EventKind::TableWritten {
        table: "submission".into(),
        rows: rows.len(),
    });
    Ok(counts)
}

const NO_NUMBER: &str = "left out: the models' answer is not a number: their weights are damaged, or the study holds values \
                         that no scan has";

fn progress(report: &dyn Report, done: usize, total: usize) {
    let (done, total) = (done as u64, total as u64);
    report.report(EventKind::Progress {
        what: "studies".into(),
        done,
        total,
    });
}

/// A study's file; an error names the folder only, since the study's name may be a person's.
fn write_details(folder: &Path, details: &StudyDetails) -> Result<()> {
    let path = folder.join(format!("{}.json", details.study));
    match write_json(&path, details) {
        Err(DataError::Io { source, .. }) => {
            Err(DataError::io("write a study's file in", folder)(source).into())
        }
        written => Ok(written?),
    }
}

/// The studies below `images` by name, in order. Hidden folders are none.
fn all_studies(images: &Path) -> Result<Vec<(String, data::Result<StudyUid>)>> {
    let mut named = named_below(images)?;
    named.retain(|(name, _)| !name.starts_with('.'));
    if named.is_empty() {
        return Err(TrainError::Tables(format!(
            "{} holds no study: give the folder that holds, for each study, a folder of DICOM files or a NIfTI volume \
             (.nii, .nii.gz) of its name",
            images.display()
        )));
    }
    Ok(named)
}
