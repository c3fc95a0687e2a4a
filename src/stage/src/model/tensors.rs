//! A file of named tensors, as a model is given them.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Device, Kind, Tensor};
use train::TrainError;

use crate::Result;

/// The tensors of one safetensors file, on the device.
#[derive(Debug)]
pub struct TensorSet {
    file: String,
    tensors: BTreeMap<String, Tensor>,
}

impl TensorSet {
    /// Tensors that are not from a file; `name` stands for it in errors.
    pub fn of(name: &str, tensors: impl IntoIterator<Item = (&'static str, Tensor)>) -> Self {
        let tensors = tensors.into_iter();
        TensorSet {
            file: name.to_owned(),
            tensors: tensors.map(|(name, t)| (name.to_owned(), t)).collect(),
        }
    }

    /// Reads the file.
    pub fn read(path: &Path, device: Device) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for tensor in checkpoint::load_safetensors(path)? {
            let on_device = train::from_host(&tensor)?.f_to_device(device)?;
            tensors.insert(tensor.name, on_device);
        }
        Ok(TensorSet {
            file: path.display().to_string(),
            tensors,
        })
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The tensor of that name in f32; `shape` names its dimensions, as in "B, S, 7", where a number is that number.
    pub fn get(&self, name: &str, shape: &str) -> Result<Tensor> {
        let tensor = self.tensors.get(name).ok_or_else(|| {
            let there: Vec<&str> = self.tensors.keys().map(String::as_str).collect();
            self.fault(format!(
                "it has no tensor `{name}` ({shape}); it has: {}",
                there.join(", ")
            ))
        })?;
        let size = tensor.size();
        let wanted: Vec<&str> = shape.split(", ").collect();
        let fits = size.len() == wanted.len()
            && size
                .iter()
                .zip(&wanted)
                .all(|(n, name)| *n > 0 && name.parse::<i64>().map_or(true, |fixed| fixed == *n));
        if !fits {
            return Err(self.fault(format!(
                "`{name}` has the shape {size:?} where ({shape}) is wanted"
            )));
        }
        if !matches!(
            tensor.kind(),
            Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16
        ) {
            return Err(self.fault(format!(
                "`{name}` is of type {:?}: write it in floating point",
                tensor.kind()
            )));
        }
        Ok(tensor.f_to_kind(Kind::Float)?)
    }

    /// C of the images; none where there are none. Channels stand third from the end.
    pub fn channels(&self) -> Result<Option<i64>> {
        let Some(image) = self.tensors.get("image") else {
            return Ok(None);
        };
        let size = image.size();
        match size.len().checked_sub(3).and_then(|c| size.get(c)) {
            Some(channels) => Ok(Some(*channels)),
            None => Err(self.fault(format!(
                "`image` has the shape {size:?}: it ends with (C, H, W)"
            ))),
        }
    }

    /// One entry of the first dimension of every tensor: micro-batch `index` of K, counted round.
    pub fn micro_batch(&self, index: usize) -> Result<TensorSet> {
        let mut tensors = BTreeMap::new();
        for (name, tensor) in &self.tensors {
            let Some(count @ 1..) = tensor.size().first().copied() else {
                return Err(self.fault(format!("`{name}` has no first dimension of micro-batches")));
            };
            let part = tensor.f_select(0, index as i64 % count)?.f_contiguous()?;
            tensors.insert(name.clone(), part);
        }
        Ok(TensorSet {
            file: self.file.clone(),
            tensors,
        })
    }

    /// What is wrong with this file.
    pub fn fault(&self, problem: String) -> TrainError {
        TrainError::Input {
            path: self.file.clone(),
            problem,
        }
    }
}
