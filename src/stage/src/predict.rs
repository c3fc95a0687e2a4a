//! A folder of studies -> submission.csv, by all of a run's models together.

use std::path::Path;

use data::StudyUid;
use data::csv_table::write_table;
use data::predicted::{PredictionReport, StudyOutcome, report_path, write_json};
use data::tables::Prediction;
use data::volume::named_below;
use event::EventKind;
use nn::{Localizer, StudyModel};
use recipe::{StudyModel as StudySettings, Training};
use tch::Device;
use tch::nn::VarStore;
use train::{Execution, ExecutionConfig, Report, TrainError};

use crate::Result;
use crate::context::backbone;
use crate::finished::{Finished, load_finished};
use crate::place::RunPlace;
use crate::prediction::predict_study;
use crate::summary::prediction_rows;

/// A run's finished models on one device.
pub struct Models<'a> {
    pub data: &'a recipe::Data,
    pub device: Device,
    pub(crate) localizers: Vec<(Localizer, Execution, &'a Training)>,
    pub(crate) studies: Vec<(StudyModel, Execution, &'a Training, &'a StudySettings)>,
    /// Their jobs.
    pub(crate) names: Vec<String>,
    /// The variables of all of them: dropped last.
    stores: Vec<VarStore>,
}

impl<'a> Models<'a> {
    pub fn new(data: &'a recipe::Data, device: Device) -> Self {
        Models {
            data,
            device,
            localizers: Vec::new(),
            studies: Vec::new(),
            names: Vec::new(),
            stores: Vec::new(),
        }
    }

    /// Adds a localizer with the weights that its job ended with.
    pub fn add_localizer(
        &mut self,
        place: &RunPlace,
        finished: Finished,
        training: &'a Training,
    ) -> Result<()> {
        let store = VarStore::new(self.device);
        let model = Localizer::new(&store.root(), &backbone(training))?;
        let execution = self.execution(&store, training)?;
        load_finished(place, &store, finished)?;
        self.localizers.push((model, execution, training));
        self.names.push(finished.job.to_owned());
        self.stores.push(store);
        Ok(())
    }

    /// Adds a study model with the weights that its job ended with.
    pub fn add_study_model(
        &mut self,
        place: &RunPlace,
        finished: Finished,
        training: &'a Training,
        study: &'a StudySettings,
    ) -> Result<()> {
        let store = VarStore::new(self.device);
        let (hidden, length) = (study.lstm_hidden as i64, study.max_images as i64);
        let cnn = backbone(training);
        let model = StudyModel::new(&store.root(), &cnn, Some(hidden), length)?;
        let execution = self.execution(&store, training)?;
        load_finished(place, &store, finished)?;
        self.studies.push((model, execution, training, study));
        self.names.push(finished.job.to_owned());
        self.stores.push(store);
        Ok(())
    }

    /// A model runs on a GPU as it did while it was trained; on a CPU in f32, whatever that was: there it is both faster
    /// and nearer to the weights.
    fn execution(&self, store: &VarStore, training: &Training) -> Result<Execution> {
        let config = match self.device {
            Device::Cpu => ExecutionConfig::plain(self.device),
            _ => ExecutionConfig::of(&training.numerics, &training.arch, self.device)?,
        };
        let execution = Execution::new(config);
        execution.lay_out(store)?;
        Ok(execution)
    }

    /// Whether a study can be taken from pixels to probabilities.
    pub fn are_complete(&self) -> bool {
        !self.localizers.is_empty() && !self.studies.is_empty()
    }
}

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
///
/// # Errors
/// A folder without studies, files that cannot be written, and what libtorch says.
pub fn predict(models: &Models, request: Request, report: &dyn Report) -> Result<Counts> {
    let named = all_studies(request.images)?;
    if let Some(folder) = request.details {
        std::fs::create_dir_all(folder).map_err(data::DataError::io("create", folder))?;
    }
    let warn = |message| report.report(EventKind::Warning { message });
    let mut rows: Vec<Prediction> = Vec::new();
    let mut studies: Vec<StudyOutcome> = Vec::new();
    let total = named.len() as u64;
    for (done, (name, study)) in named.into_iter().enumerate() {
        report.report(EventKind::Progress {
            what: "studies".into(),
            done: done as u64,
            total,
        });
        let mut outcome = StudyOutcome {
            study: name,
            failure: None,
            warnings: Vec::new(),
        };
        match study {
            // The name may be a person's: it stands in the report only.
            Err(error) => {
                warn("a study is left out for its folder's name; the report says which".into());
                outcome.failure = Some(error.to_string());
            }
            Ok(study) => match predict_study(models, request, &study) {
                Ok((probabilities, _)) if !probabilities.iter().all(|p| p.is_finite()) => {
                    let reason = "the models' answer is not a number: their weights are damaged, or the study holds \
                                  values that no scan has";
                    warn(format!("study {study} is left out: {reason}"));
                    outcome.failure = Some(reason.into());
                }
                Ok((probabilities, details)) => {
                    rows.extend(prediction_rows(&study, &probabilities));
                    for warning in &details.warnings {
                        warn(format!("study {study}: {warning}"));
                    }
                    if let Some(folder) = request.details {
                        write_json(&folder.join(format!("{study}.json")), &details)?;
                    }
                    outcome.warnings = details.warnings;
                }
                Err(TrainError::Data(error)) => {
                    warn(format!("study {study} is left out: {error}"));
                    outcome.failure = Some(error.to_string());
                }
                Err(error) => return Err(error),
            },
        }
        studies.push(outcome);
    }
    report.report(EventKind::Progress {
        what: "studies".into(),
        done: total,
        total,
    });
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
