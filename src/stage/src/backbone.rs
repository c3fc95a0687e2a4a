//! A CNN that goes from one job's model into another's.

use tch::nn::VarStore;
use train::{TrainError, load_model};

use crate::Result;
use crate::context::Context;

const BACKBONE: &str = "backbone.";

/// Loads `backbone.*` from the newest checkpoint of `job`; all other variables keep their values.
pub(crate) fn load_backbone(context: &Context, store: &VarStore, job: &str) -> Result<()> {
    let root = context.place.checkpoints(job);
    let found = checkpoint::newest_valid(&root)?.ok_or_else(|| {
        TrainError::Tables(format!(
            "{} holds no checkpoint, and this model takes its CNN from job {job}: launch with that stage",
            root.display()
        ))
    })?;
    let theirs = checkpoint::read(&found.path, None)?.model.into_iter();
    let own = train::model_tensors(store)?.into_iter();
    let mut all: Vec<_> = own
        .filter(|tensor| !tensor.name.starts_with(BACKBONE))
        .collect();
    all.extend(theirs.filter(|tensor| tensor.name.starts_with(BACKBONE)));
    load_model(store, &all, &found.path.display().to_string())
}

/// Takes `backbone.*` out of training.
pub(crate) fn freeze_backbone(store: &VarStore) {
    for (name, tensor) in store.variables() {
        if name.starts_with(BACKBONE) && tensor.requires_grad() {
            let _ = tensor.set_requires_grad(false);
        }
    }
}
