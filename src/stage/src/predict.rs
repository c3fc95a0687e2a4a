//! A folder of studies -> submission.csv, by all of a run's models together.

use std::path::Path;

use data::StudyUid;
use data::csv_table::write_table;
use data::tables::Prediction;
use data::volume::studies_below;
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

/// How many studies were predicted and how many could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub predicted: usize,
    pub failed: usize,
}

/// Predicts every study below `images` and writes a submission to `out`.
///
/// A study that cannot be read is named in a warning and left out; the others go on.
pub fn predict(models: &Models, images: &Path, out: &Path, report: &dyn Report) -> Result<Counts> {
    let studies = all_studies(images)?;
    let mut rows: Vec<Prediction> = Vec::new();
    let mut counts = Counts {
        predicted: 0,
        failed: 0,
    };
    let total = studies.len() as u64;
    for (done, study) in studies.iter().enumerate() {
        report.report(EventKind::Progress {
            what: "studies".into(),
            done: done as u64,
            total,
        });
        match predict_study(models, images, study) {
            Ok(outcome) => {
                counts.predicted += 1;
                rows.extend(prediction_rows(study, &outcome.probabilities));
                if outcome.uncropped {
                    let message =
                        format!("study {study}: no vertebra was found; all of it was taken");
                    report.report(EventKind::Warning { message });
                }
            }
            Err(TrainError::Data(error)) => {
                counts.failed += 1;
                let message = format!("study {study} is left out: {error}");
                report.report(EventKind::Warning { message });
            }
            Err(error) => return Err(error),
        }
    }
    report.report(EventKind::Progress {
        what: "studies".into(),
        done: total,
        total,
    });
    write_table(out, &rows)?;
    report.report(EventKind::TableWritten {
        table: "submission".into(),
        rows: rows.len(),
    });
    Ok(counts)
}

/// The studies below `images`, in order.
fn all_studies(images: &Path) -> Result<Vec<StudyUid>> {
    let studies = studies_below(images)?;
    if studies.is_empty() {
        return Err(TrainError::Tables(format!(
            "{} holds no study: give the folder that holds, for each study, a folder of DICOM files or a NIfTI volume \
             (.nii, .nii.gz) of its name",
            images.display()
        )));
    }
    Ok(studies)
}
