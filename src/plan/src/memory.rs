//! How much memory a job takes: what its tensors come to, and rules of thumb for the rest. The formulas stand in docs/planning.md.

use recipe::{Device, Precision};
use serde::Serialize;

use crate::volume::{slices, volume};
use crate::{Cost, JobKind, Plan, TrainStage, Training};

/// Bytes of a process with its libraries, and what CUDA keeps on a GPU for one.
const PROCESS: f64 = 0.8e9;
const CONTEXT: f64 = 0.7e9;
/// Tensors as large as a convolution's output that the backward pass needs for each: the output, and what norm and activation make of it.
const KEPT: f64 = 2.15;
/// The part of that which is there at once where blocks run again in the backward pass: their inputs, and one block. This and
/// the one above as measured on a GPU (docs/gpu.md).
const CHECKPOINTED: f64 = 0.5;
/// The part that is there at once where nothing is kept.
const FORWARD_ONLY: f64 = 0.2;
/// Above what tensors take, for the allocator's leftovers and the libraries' workspaces.
const SLACK: f64 = 1.1;
/// Bytes of an f32.
const F32: f64 = 4.0;

/// Bytes that a job takes while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Of all its ranks together.
    pub host: u64,
    /// Of each of its GPUs; none where it has none, or where the architecture's size is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<u64>,
}

/// The memory of a job on so many ranks.
pub fn memory(plan: &Plan, kind: &JobKind, device: Device, ranks: usize) -> Memory {
    let Some(training) = kind.training() else {
        return Memory {
            host: PROCESS as u64,
            device: None,
        };
    };
    let cost = crate::cost(kind);
    let mib = (1_u64 << 20) as f64;
    let data = &plan.data;
    // Decoded slices are kept in 8 bits, and no more of them than there are.
    let decoded = slices(plan) * (training.image_size * training.image_size) as f64;
    let loader = decoded.min(data.memory_mb as f64 * mib) + data.prefetch_mb as f64 * mib;
    let micro_batch = crate::accumulation(training, ranks).map_or(1, |split| split.micro_batch);
    let tensors = cost.map(|cost| tensors(kind, training, &cost, device, micro_batch as u64));
    let on_host = match device {
        Device::Cpu => tensors.unwrap_or_default(),
        Device::Cuda => 0.0,
    };
    // Every rank of stage 3 holds the features of every study.
    let features = match (kind, cost) {
        (
            JobKind::Train {
                stage: TrainStage::Stage3 { study, .. },
                ..
            },
            Some(cost),
        ) => volume(plan, kind).held * study.max_images as f64 * cost.features as f64 * F32,
        _ => 0.0,
    };
    let copy = match plan.checkpoint.asynchronous {
        true => cost.map_or(0.0, |cost| cost.checkpoint_bytes as f64),
        false => 0.0,
    };
    let each = PROCESS + loader + on_host + features;
    let on_device = tensors.filter(|_| device == Device::Cuda);
    Memory {
        host: (each * ranks.max(1) as f64 + copy) as u64,
        device: on_device.map(|tensors| (tensors + CONTEXT) as u64),
    }
}

/// The largest micro-batch of at most this size with which a rank takes no more than `limit` bytes of a GPU; none where not even one
/// sample does, or where batch normalisation would see a single image.
pub fn micro_batch_that_fits(kind: &JobKind, ranks: usize, limit: u64) -> Option<u64> {
    let training = kind.training()?;
    let JobKind::Train { stage, .. } = kind else {
        return None;
    };
    let cost = crate::cost(kind)?;
    let most = crate::accumulation(training, ranks).ok()?.micro_batch as u64;
    let least = 2_u64.div_ceil(stage.images_per_sample().max(1));
    (least..=most)
        .rev()
        .filter(|size| crate::accumulation_of(training, ranks, Some(*size)).is_ok())
        .find(|size| {
            let tensors = tensors(kind, training, &cost, Device::Cuda, *size);
            (tensors + CONTEXT) as u64 <= limit
        })
}

/// Bytes of a rank's tensors.
fn tensors(
    kind: &JobKind,
    training: &Training,
    cost: &Cost,
    device: Device,
    micro_batch: u64,
) -> f64 {
    let JobKind::Train { stage, .. } = kind else {
        return 0.0;
    };
    let half = match (training.numerics.precision, device) {
        (Precision::Fp32, _) | (Precision::Auto, Device::Cpu) => false,
        (Precision::Auto, Device::Cuda) | (Precision::Bf16 | Precision::Fp16, _) => true,
    };
    let bytes = if half { 2.0 } else { F32 };
    // Weights, gradients and two moments, and the average where there is one; a frozen CNN is weights alone.
    let copies = 4.0 + f64::from(u8::from(training.optimization.ema.is_some()));
    let weights = (cost.trained_parameters * copies + cost.frozen_parameters) * F32;
    let (images, kept) = match stage {
        TrainStage::Stage3 { study, .. } => (study.chunk as f64, FORWARD_ONLY),
        _ => {
            let images = (micro_batch * stage.images_per_sample()) as f64;
            let kept = match training.numerics.gradient_checkpointing {
                true => KEPT * CHECKPOINTED,
                false => KEPT,
            };
            (images, kept)
        }
    };
    let pixels = images * 3.0 * (training.image_size * training.image_size) as f64 * F32;
    (weights + images * cost.activations_per_image * kept * bytes + pixels) * SLACK
}

#[cfg(test)]
mod tests;
