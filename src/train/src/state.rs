//! A model's tensors under their names: on the device, and as bytes for a checkpoint.

use std::collections::{BTreeMap, HashMap};

use checkpoint::{Dtype, TensorData, TensorSpec};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::{Result, TrainError, host_copy};

/// What is trained: names and tensors, in the order in which the layers were made (the same on every rank).
#[derive(Debug)]
pub struct Parameters {
    pub names: Vec<String>,
    pub tensors: Vec<Tensor>,
    /// Running statistics of the layers that are trained, in order of name.
    pub buffers: Vec<Tensor>,
}

impl Parameters {
    /// Where they lie: the CPU, where there are none.
    pub fn device(&self) -> Device {
        self.tensors.first().map_or(Device::Cpu, Tensor::device)
    }

    /// The store's variables that require a gradient.
    pub fn of(store: &VarStore) -> Self {
        let variables: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
        let by_address: HashMap<usize, &String> = variables
            .iter()
            .map(|(name, tensor)| (tensor.data_ptr() as usize, name))
            .collect();
        let mut parameters = Parameters {
            names: Vec::new(),
            tensors: Vec::new(),
            buffers: Vec::new(),
        };
        let mut trained = Vec::new();
        for tensor in store.trainable_variables() {
            let address = tensor.data_ptr() as usize;
            if let Some(name) = by_address.get(&address)
                && tensor.requires_grad()
            {
                trained.push(address);
                parameters.names.push((*name).clone());
                parameters.tensors.push(tensor);
            }
        }
        parameters.buffers = variables
            .iter()
            .filter(|(name, _)| {
                // Those of layers that are trained: a frozen layer's statistics stay as they are.
                let layer = name
                    .strip_suffix("running_mean")
                    .or(name.strip_suffix("running_var"));
                layer.is_some_and(|layer| parameters.names.contains(&format!("{layer}weight")))
            })
            .map(|(_, tensor)| tensor.shallow_clone())
            .collect();
        parameters
    }
}

/// All variables of a model, by name.
pub fn model_tensors(store: &VarStore) -> Result<Vec<TensorData>> {
    let variables: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
    variables
        .iter()
        .map(|(name, tensor)| to_host(name, tensor))
        .collect()
}

/// Loads all variables of a model by name; `place` names the checkpoint in errors.
pub fn load_model(store: &VarStore, tensors: &[TensorData], place: &str) -> Result<()> {
    let variables: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
    load(&variables, tensors, place)
}

/// Copies `tensors` into `targets` of the same names, shapes and types.
pub(crate) fn load(
    targets: &BTreeMap<String, Tensor>,
    tensors: &[TensorData],
    place: &str,
) -> Result<()> {
    let found: Vec<TensorSpec> = tensors.iter().map(TensorData::spec).collect();
    let report = checkpoint::diff(&specs(targets)?, &found);
    if !report.is_match() {
        return Err(TrainError::Mismatch {
            path: place.to_owned(),
            report: report.to_string(),
        });
    }
    let _no_grad = tch::no_grad_guard();
    for source in tensors {
        if let Some(target) = targets.get(&source.name) {
            let mut target = target.shallow_clone();
            target.f_copy_(&from_host(source)?)?;
        }
    }
    Ok(())
}

/// What each tensor is, in the order of names.
pub(crate) fn specs(tensors: &BTreeMap<String, Tensor>) -> Result<Vec<TensorSpec>> {
    tensors
        .iter()
        .map(|(name, tensor)| {
            Ok(TensorSpec {
                name: name.clone(),
                dtype: dtype(tensor.kind())?,
                shape: shape_of(tensor),
            })
        })
        .collect()
}

/// A tensor's bytes, row-major.
pub fn to_host(name: &str, tensor: &Tensor) -> Result<TensorData> {
    copy_to_host(name, tensor, Vec::new())
}

/// As [`to_host`], in the memory of `bytes`, whatever was in it: pages that were written to before take the copy at the
/// speed of memory.
pub fn copy_to_host(name: &str, tensor: &Tensor, bytes: Vec<u8>) -> Result<TensorData> {
    let mut copy = room_for(name, tensor, bytes)?;
    fill(&mut copy, tensor)?;
    Ok(copy)
}

/// As [`copy_to_host`], of many tensors, into the `memory` that an earlier copy of the same tensors has left; those that lie
/// in host memory as they are to be saved are copied by all threads that libtorch has.
pub(crate) fn copy_all_to_host(
    tensors: &[(String, Tensor)],
    memory: Vec<Vec<u8>>,
) -> Result<Vec<TensorData>> {
    let mut memory = memory.into_iter();
    let mut copies = tensors
        .iter()
        .map(|(name, tensor)| room_for(name, tensor, memory.next().unwrap_or_default()))
        .collect::<Result<Vec<_>>>()?;
    let mut plain = Vec::new();
    for ((_, tensor), copy) in tensors.iter().zip(&mut copies) {
        match bytes_of(tensor) {
            Some(bytes) => plain.push((bytes, copy.bytes.as_mut_slice())),
            None => fill(copy, tensor)?,
        }
    }
    host_copy::copy_all(plain, tch::get_num_threads().max(1) as usize);
    Ok(copies)
}

/// What the tensor's copy will be, but for its bytes.
fn room_for(name: &str, tensor: &Tensor, mut bytes: Vec<u8>) -> Result<TensorData> {
    let dtype = dtype(tensor.kind())?;
    bytes.resize(tensor.numel() * dtype.size(), 0);
    Ok(TensorData {
        name: name.to_owned(),
        dtype,
        shape: shape_of(tensor),
        bytes,
    })
}

/// Fills the copy's bytes, whatever device and layout they come from.
fn fill(copy: &mut TensorData, tensor: &Tensor) -> Result<()> {
    let bytes = &mut copy.bytes;
    if !bytes.is_empty() {
        let kind = tensor.kind();
        // SAFETY: the bytes are as many as such a tensor has, and outlive it; nothing else holds them.
        let mut host = unsafe {
            Tensor::f_from_blob(bytes.as_mut_ptr(), &tensor.size(), &[], kind, Device::Cpu)?
        };
        host.f_copy_(&tensor.f_detach()?)?;
    }
    Ok(())
}

/// A tensor's memory, where it lies on the host and in row-major order. Nothing may write to the tensor meanwhile.
fn bytes_of(tensor: &Tensor) -> Option<&[u8]> {
    let plain = tensor.device() == Device::Cpu && tensor.is_contiguous() && tensor.numel() > 0;
    let bytes = tensor.numel() * dtype(tensor.kind()).ok()?.size();
    // SAFETY: a contiguous tensor's elements lie side by side from its pointer on, and it lives as long as the slice.
    plain.then(|| unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), bytes) })
}

/// The tensor of these bytes, on the host.
pub fn from_host(source: &TensorData) -> Result<Tensor> {
    let shape: Vec<i64> = source.shape.iter().map(|n| *n as i64).collect();
    Ok(Tensor::f_from_data_size(
        &source.bytes,
        &shape,
        kind(source.dtype),
    )?)
}

fn shape_of(tensor: &Tensor) -> Vec<usize> {
    tensor.size().into_iter().map(|n| n as usize).collect()
}

fn dtype(kind: Kind) -> Result<Dtype> {
    Ok(match kind {
        Kind::Double => Dtype::F64,
        Kind::Float => Dtype::F32,
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::Bf16,
        Kind::Int64 => Dtype::I64,
        Kind::Int => Dtype::I32,
        Kind::Uint8 => Dtype::U8,
        Kind::Bool => Dtype::Bool,
        other => {
            return Err(tch::TchError::Kind(format!("a checkpoint cannot hold {other:?}")).into());
        }
    })
}

fn kind(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::Bf16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::U8 => Kind::Uint8,
        Dtype::Bool => Kind::Bool,
    }
}
