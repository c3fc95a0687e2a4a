//! Models of jobs that have ended: what other jobs and predictions build on.

use checkpoint::TensorData;
use tch::nn::VarStore;
use train::{TrainError, load_model};

use crate::Result;
use crate::place::RunPlace;

const BACKBONE: &str = "backbone.";

/// A job of the plan, by name and by the hash of all that its outcome depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished<'a> {
    pub job: &'a str,
    pub hash: &'a str,
}

/// The weights that the job ended with, and where they lie. A checkpoint of another plan, or from the middle of the
/// training, is none.
fn weights(place: &RunPlace, finished: Finished) -> Result<(Vec<TensorData>, String)> {
    let root = place.checkpoints(finished.job);
    let unfinished = || TrainError::Unfinished {
        job: finished.job.to_owned(),
        root: root.display().to_string(),
    };
    let found = checkpoint::newest_valid_of(&root, finished.hash)?.ok_or_else(unfinished)?;
    let saved = checkpoint::read(&found.path, Some(finished.hash))?;
    match train::is_final(&saved) {
        true => Ok((saved.model, found.path.display().to_string())),
        false => Err(unfinished()),
    }
}

/// Loads a whole model.
pub(crate) fn load_finished(place: &RunPlace, store: &VarStore, finished: Finished) -> Result<()> {
    let (model, shown) = weights(place, finished)?;
    load_model(store, &model, &shown)
}

/// Loads `backbone.*` of another job's model; all other variables keep their values.
pub(crate) fn load_backbone(place: &RunPlace, store: &VarStore, finished: Finished) -> Result<()> {
    let (theirs, shown) = weights(place, finished)?;
    let own = train::model_tensors(store)?.into_iter();
    let mut all: Vec<_> = own
        .filter(|tensor| !tensor.name.starts_with(BACKBONE))
        .collect();
    all.extend(
        theirs
            .into_iter()
            .filter(|tensor| tensor.name.starts_with(BACKBONE)),
    );
    load_model(store, &all, &shown)
}

/// Takes `backbone.*` out of training.
pub(crate) fn freeze_backbone(store: &VarStore) {
    for (name, tensor) in store.variables() {
        if name.starts_with(BACKBONE) && tensor.requires_grad() {
            let _ = tensor.set_requires_grad(false);
        }
    }
}
