//! Prediction with a run's finished models, in one process.

use std::time::Instant;

use data::Discretion;
use event::EventKind;
use plan::{JobKind, TrainStage};
use stage::{Finished, Models, RunPlace};
use train::Report;

use crate::Outcome;
use crate::arguments::Predict;
use crate::failure::RankError;
use crate::reporter::Reporter;

/// Loads all localizers and study models of the run and predicts every study of the folder.
pub fn run(request: &Predict, reporter: &Reporter) -> Result<Outcome, RankError> {
    let began = Instant::now();
    let plan = plan::read(&request.run_dir.join("plan.json"))
        .map_err(|error| RankError::Setup(error.to_string()))?;
    reporter.heed(
        Discretion::default()
            .hiding(&request.images, "--images")
            .hiding(&plan.data.root, "data.root")
            .sparing(&request.run_dir),
    );
    reporter.beat_every(plan.timeouts().heartbeat);
    let device = request.device.open(0).map_err(train::TrainError::from)?;
    let place = RunPlace::new(&request.run_dir);
    let mut models = Models::new(&plan.data, device);
    for job in &plan.jobs {
        let JobKind::Train {
            stage, training, ..
        } = &job.kind
        else {
            continue;
        };
        let finished = Finished {
            job: job.id.as_str(),
            hash: &job.hash,
        };
        match stage {
            TrainStage::Stage1a { .. } => models.add_localizer(&place, finished, training)?,
            TrainStage::Stage3 { study, .. } => {
                models.add_study_model(&place, finished, training, study)?;
            }
            // Of what they tell, only the details have something.
            TrainStage::Stage1b { .. } | TrainStage::Stage2 { .. } if request.details.is_none() => {
            }
            TrainStage::Stage1b { sequence, crop } => {
                models.add_ratio_model(&place, finished, training, (sequence, *crop))?;
            }
            TrainStage::Stage2 { sequence } => {
                models.add_fracture_model(&place, finished, training, sequence)?;
            }
        }
    }
    if !models.are_complete() {
        return Err(RankError::Setup(format!(
            "{} has no models of stage 1a and stage 3: predictions need both; run all stages",
            request.run_dir.display()
        )));
    }
    if data::phantom::is_phantom(&plan.data.root) {
        let message = "these models learned from a phantom and never saw a patient: what they say of a real study means \
                       nothing";
        reporter.report(EventKind::Warning {
            message: message.into(),
        });
    }
    let asked = stage::Request {
        images: &request.images,
        out: &request.out,
        details: request.details.as_deref(),
        flip: request.flip,
    };
    let counts = stage::predict(&models, asked, reporter)?;
    if counts.predicted == 0 {
        let message = format!(
            "none of the {} studies could be read; {} says why for each",
            counts.failed,
            data::predicted::report_path(&request.out).display()
        );
        return Err(train::TrainError::Tables(message).into());
    }
    let metrics = [("predicted", counts.predicted), ("failed", counts.failed)];
    reporter.report(EventKind::JobFinished {
        seconds: began.elapsed().as_secs_f64(),
        metrics: metrics.map(|(name, n)| (name.to_owned(), n as f64)).into(),
    });
    Ok(Outcome::Done)
}
