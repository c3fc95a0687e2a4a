//! A checkpoint from its folder, hashed while it is read.

use std::io::Read;
use std::path::Path;

use crate::manifest::{TRAINER, Tensors, read_checked, survey};
use crate::tensor_file::read_from;
use crate::{Checkpoint, Error, Fault, Manifest, Meta, TensorData};

/// The largest trainer.json that is read, and so the largest that is written.
pub(crate) const MAX_TRAINER: u64 = 64 << 20;

/// Reads and verifies, in one pass, the checkpoint in the folder `path`; tensors come in the order
/// of their names.
///
/// Where `plan_hash` is given, a checkpoint of another plan is refused before its tensors are read.
pub fn read(path: &Path, plan_hash: Option<&str>) -> Result<Checkpoint, Error> {
    let damaged = |fault| Error::Damaged {
        path: path.to_owned(),
        fault,
    };
    let manifest = survey(path).map_err(damaged)?;
    if let Some(expected) = plan_hash.filter(|&expected| expected != manifest.plan_hash) {
        return Err(Error::PlanMismatch {
            path: path.to_owned(),
            found: manifest.plan_hash,
            expected: expected.to_owned(),
        });
    }
    read_contents(path, manifest).map_err(damaged)
}

/// Reads the model alone of the checkpoint in the folder `path`, with the manifest, and verifies what it reads; of the
/// other files only the sizes are compared.
pub fn read_model(path: &Path) -> Result<(Manifest, Vec<TensorData>), Error> {
    let read = || {
        let manifest = survey(path)?;
        let model = tensors(path, &manifest, Tensors::Model)?;
        Ok((manifest, model))
    };
    read().map_err(|fault| Error::Damaged {
        path: path.to_owned(),
        fault,
    })
}

/// Reads the trainer's state alone of the checkpoint in the folder `path`, and verifies it.
pub fn read_trainer(path: &Path) -> Result<serde_json::Value, Error> {
    survey(path)
        .and_then(|manifest| trainer(path, &manifest))
        .map_err(|fault| Error::Damaged {
            path: path.to_owned(),
            fault,
        })
}

fn trainer(path: &Path, manifest: &Manifest) -> Result<serde_json::Value, Fault> {
    read_checked(path, manifest, TRAINER, |reader, size| {
        if size > MAX_TRAINER {
            return Err(format!(
                "it has {size} bytes, more than the {MAX_TRAINER} allowed"
            ));
        }
        let mut text = Vec::new();
        reader
            .read_to_end(&mut text)
            .map_err(|error| error.to_string())?;
        serde_json::from_slice(&text).map_err(|error| error.to_string())
    })
}

/// The tensors of all shards, in the order of their names.
fn tensors(path: &Path, manifest: &Manifest, of: Tensors) -> Result<Vec<TensorData>, Fault> {
    let mut all = Vec::new();
    for name in manifest.shards_of(of) {
        all.extend(read_checked(path, manifest, &name, read_from)?);
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

fn read_contents(path: &Path, manifest: Manifest) -> Result<Checkpoint, Fault> {
    let trainer = trainer(path, &manifest)?;
    Ok(Checkpoint {
        step: manifest.step,
        model: tensors(path, &manifest, Tensors::Model)?,
        optimizer: tensors(path, &manifest, Tensors::Optimizer)?,
        trainer,
        meta: Meta {
            plan_hash: manifest.plan_hash,
            job: manifest.job,
            world_size: manifest.world_size,
        },
    })
}
