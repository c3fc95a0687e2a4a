//! How networks are run on this rank's device: their images, number types, memory layout, and what the world outside adds
//! to a pass.

use std::cell::Cell;
use std::rc::Rc;

use collective::{CollectiveError, ProcessGroup, autocast, autograd, kernels};
use data::augment::Augmentation;
use nn::{Architecture, NnError, Pass};
use recipe::{Numerics, Precision};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::feed::Feed;
use crate::host_pixels::HostBytes;
use crate::progress;

/// What a number of samples is filled up to.
const SAMPLES_ON_GPU: usize = 16;

/// The recipe's wishes as they come true on a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExecutionConfig {
    pub device: Device,
    /// The type of matrix products and convolutions, [`Kind::Half`] or [`Kind::BFloat16`]; f32 where absent.
    pub half: Option<Kind>,
    pub channels_last: bool,
    pub sync_batch_norm: bool,
    pub gradient_checkpointing: bool,
}

impl ExecutionConfig {
    /// f32 in PyTorch's own layout.
    pub fn plain(device: Device) -> Self {
        ExecutionConfig {
            device,
            half: None,
            channels_last: false,
            sync_batch_norm: false,
            gradient_checkpointing: false,
        }
    }

    /// What the recipe asks for, and where it leaves the choice, what suits the device: fp16 on GPUs, f32 on CPUs; channels
    /// last on GPUs for the architectures that gain by it.
    ///
    /// # Errors
    /// An architecture that is not known.
    pub fn of(numerics: &Numerics, arch: &str, device: Device) -> Result<Self> {
        let gpu = device.is_cuda();
        Ok(ExecutionConfig {
            device,
            half: match numerics.precision {
                Precision::Auto => gpu.then_some(Kind::Half),
                Precision::Fp32 => None,
                Precision::Bf16 => Some(Kind::BFloat16),
                Precision::Fp16 => Some(Kind::Half),
            },
            channels_last: match numerics.channels_last {
                Some(chosen) => chosen,
                None => gpu && Architecture::of(arch)?.prefers_channels_last(),
            },
            sync_batch_norm: numerics.sync_batch_norm,
            gradient_checkpointing: numerics.gradient_checkpointing,
        })
    }

    /// What a user should know before waiting for it: a half type on a CPU that has no units for it.
    pub fn warning(&self) -> Option<String> {
        let (name, there) = match (self.device, self.half) {
            (Device::Cpu, Some(Kind::BFloat16)) => ("bf16", cpu_has_bf16()),
            (Device::Cpu, Some(_)) => ("fp16", cpu_has_fp16()),
            _ => return None,
        };
        (!there).then(|| {
            format!(
                "precision {name} on a CPU without {name} units takes about ten times as long as fp32: take it to try \
                 {name} out, and write `precision: fp32` to train"
            )
        })
    }
}

#[cfg(target_arch = "x86_64")]
fn cpu_has_bf16() -> bool {
    std::arch::is_x86_feature_detected!("avx512bf16")
}

#[cfg(target_arch = "x86_64")]
fn cpu_has_fp16() -> bool {
    std::arch::is_x86_feature_detected!("avx512fp16")
}

#[cfg(target_arch = "aarch64")]
fn cpu_has_bf16() -> bool {
    std::arch::is_aarch64_feature_detected!("bf16")
}

#[cfg(target_arch = "aarch64")]
fn cpu_has_fp16() -> bool {
    std::arch::is_aarch64_feature_detected!("fp16")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_has_bf16() -> bool {
    false
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_has_fp16() -> bool {
    false
}

/// Runs the passes of one model.
#[derive(Debug)]
pub struct Execution {
    config: ExecutionConfig,
    feed: Feed,
    training: Pass,
    /// As many samples as the device's memory has been found to hold at once, without gradients.
    at_most: Cell<usize>,
}

impl Execution {
    /// Of a model on this rank alone.
    pub fn new(config: ExecutionConfig) -> Self {
        let recompute = config
            .gradient_checkpointing
            .then(|| Rc::new(Checkpointing) as Rc<dyn nn::Recompute>);
        Execution {
            config,
            feed: Feed::new(config.device),
            training: Pass {
                recompute,
                ..Pass::train()
            },
            at_most: Cell::new(usize::MAX),
        }
    }

    /// Of a model that the ranks of a group train together. The group outlives the model's graphs.
    pub fn over_ranks(config: ExecutionConfig, group: &Rc<ProcessGroup>) -> Self {
        let alone = Execution::new(config);
        // With one rank the plain norm has the same numbers and is faster.
        let norm = (config.sync_batch_norm && group.world_size() > 1).then(|| {
            Rc::new(SyncBatchNorm {
                group: Rc::clone(group),
            }) as Rc<dyn nn::SyncNorm>
        });
        Execution {
            training: Pass {
                norm,
                ..alone.training
            },
            ..alone
        }
    }

    pub fn config(&self) -> &ExecutionConfig {
        &self.config
    }

    pub fn device(&self) -> Device {
        self.config.device
    }

    /// Lays the convolution kernels of a model out as this execution wants them. Call it once the model is made, before
    /// [`crate::Parameters::of`].
    pub fn lay_out(&self, store: &VarStore) -> Result<()> {
        if self.config.channels_last {
            let variables: Vec<Tensor> = store.variables().into_values().collect();
            kernels::channels_last(&variables)?;
        }
        Ok(())
    }

    /// Images of 8-bit slices: (N, H, W) of each of B samples with H = W = `side`, and what is changed in them (nothing,
    /// where absent) -> normalised (B, N / 3, 3, H, W) f32 on the device, in the layout of the kernels. Slices 3i, 3i + 1
    /// and 3i + 2 are the channels of image i.
    ///
    /// # Errors
    /// No samples, samples of different sizes, or of no whole number of images; another number of changes.
    pub fn feed(
        &self,
        samples: &[impl HostBytes],
        changes: Option<&[Augmentation]>,
        side: usize,
    ) -> Result<Tensor> {
        self.images(self.feed.images(samples, changes, side)?)
    }

    /// What `pass` makes of `items`, `most` of them at a time: a number that does not depend on the training's micro-batch.
    /// Where the device has no memory for so many, it takes half as many from then on, down to one.
    pub fn in_parts<T, R>(
        &self,
        items: &[T],
        most: usize,
        pass: impl Fn(&[T]) -> Result<Vec<R>>,
    ) -> Result<Vec<R>> {
        let mut made = Vec::with_capacity(items.len());
        let mut rest = items;
        while !rest.is_empty() {
            let count = rest.len().min(most.max(1)).min(self.at_most.get());
            let (part, after) = rest.split_at(count);
            match pass(part) {
                Ok(results) => {
                    made.extend(results);
                    rest = after;
                }
                Err(error) if count > 1 && error.is_out_of_device_memory() => {
                    self.at_most.set(count / 2);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(made)
    }

    /// On a GPU, the last sample again until their number is a multiple of 16. cuDNN makes each convolution ready anew for
    /// every number of images, which takes seconds, and what is left of a study comes in every number.
    pub fn fill_up<T: Clone>(&self, samples: &mut Vec<T>) {
        if self.config.device != Device::Cpu
            && let Some(last) = samples.last().cloned()
        {
            let multiple = SAMPLES_ON_GPU.min(self.at_most.get());
            samples.resize(samples.len().next_multiple_of(multiple), last);
        }
    }

    /// Images in the layout of the kernels: (B, C, H, W) or (B, S, C, H, W) -> the same shape.
    pub fn images(&self, images: Tensor) -> Result<Tensor> {
        if !self.config.channels_last {
            return Ok(images);
        }
        let shape = images.size();
        let leading = shape.len().saturating_sub(3);
        let flat: Vec<i64> = std::iter::once(-1)
            .chain(shape[leading..].iter().copied())
            .collect();
        // A network that joins B and S again gets a view of this.
        Ok(kernels::to_channels_last(&images.f_reshape(&flat)?)?.f_view(&shape[..])?)
    }

    /// A forward pass in training, under autocast. Take the loss of its outputs outside, in f32 (see [`full`]).
    pub fn train<T>(&self, pass: impl FnOnce(&Pass) -> Result<T>) -> Result<T> {
        autocast::run(self.config.device, self.config.half, || {
            pass(&self.training)
        })
    }

    /// A forward pass in evaluation, under autocast and without gradient.
    pub fn evaluate<T>(&self, pass: impl FnOnce(&Pass) -> Result<T>) -> Result<T> {
        let _no_grad = tch::no_grad_guard();
        let result = autocast::run(self.config.device, self.config.half, || pass(&Pass::eval()));
        progress::went_on();
        result
    }
}

/// Batch normalisation over a group's ranks.
struct SyncBatchNorm {
    group: Rc<ProcessGroup>,
}

impl nn::SyncNorm for SyncBatchNorm {
    fn batch_norm(&self, x: &Tensor, norm: &nn::Norm) -> std::result::Result<Tensor, NnError> {
        let _waiting = progress::waiting();
        autograd::sync_batch_norm(
            &self.group,
            x,
            norm.weight,
            norm.bias,
            norm.running,
            norm.momentum,
            norm.eps,
        )
        .map_err(outside)
    }
}

/// Segments of a network that run again in the backward pass.
struct Checkpointing;

impl nn::Recompute for Checkpointing {
    fn run(&self, segment: nn::Segment, x: &Tensor) -> std::result::Result<Tensor, NnError> {
        let segment = move |x: &Tensor, first| segment(x, first).map_err(|e| e.to_string());
        autograd::recompute(x, Box::new(segment)).map_err(outside)
    }
}

fn outside(error: CollectiveError) -> NnError {
    NnError::Outside(Box::new(error))
}

/// An output of a network in f32.
pub fn full(output: &Tensor) -> Result<Tensor> {
    Ok(output.f_to_kind(Kind::Float)?)
}

/// A tensor's values in f32 on the host, whatever its shape.
pub fn host(tensor: &Tensor) -> Result<Vec<f32>> {
    let flat = full(&tensor.f_to_device(Device::Cpu)?)?.f_reshape([-1])?;
    Ok(Vec::<f32>::try_from(flat)?)
}

#[cfg(test)]
mod tests {
    use nn::{Backbone, BackboneConfig, Taps};

    use super::*;
    use crate::TrainError;

    /// Where a block leaves the layout, the convolutions after it do as well, and each way costs a copy.
    #[test]
    fn maps_stay_in_channels_last_through_every_block() {
        let execution = Execution::new(ExecutionConfig {
            channels_last: true,
            ..ExecutionConfig::plain(Device::Cpu)
        });
        for arch in ["resnest14d", "seresnext50_32x4d", "efficientnet_b0"] {
            let store = VarStore::new(Device::Cpu);
            let net = Backbone::new(&store.root(), &BackboneConfig::of(arch)).unwrap();
            execution.lay_out(&store).unwrap();
            let image = Tensor::randn([2, 3, 64, 64], (Kind::Float, Device::Cpu));
            let taps = Rc::new(Taps::default());
            let pass = Pass {
                taps: Some(Rc::clone(&taps)),
                ..Pass::train()
            };
            let images = execution.images(image).unwrap();
            let _ = net.forward(&images, &pass).unwrap();
            let maps = taps.take();
            let maps = maps
                .iter()
                .filter(|(_, map)| map.dim() == 4 && map.size()[3] > 1);
            assert!(maps.clone().count() >= 5, "{arch}");
            for (name, map) in maps {
                assert_eq!(map.stride()[1], 1, "{arch} {name}");
            }
        }
    }

    #[test]
    fn parts_become_smaller_where_the_device_has_no_memory_for_them_and_stay_so() {
        let execution = Execution::new(ExecutionConfig::plain(Device::Cpu));
        let sizes = std::cell::RefCell::new(Vec::new());
        let holds = |limit: usize| {
            let sizes = &sizes;
            move |part: &[u32]| -> Result<Vec<u32>> {
                sizes.borrow_mut().push(part.len());
                match part.len() > limit {
                    true => Err(TrainError::Torch(tch::TchError::Torch(
                        "CUDA out of memory. Tried to allocate 2.00 GiB.".into(),
                    ))),
                    false => Ok(part.iter().map(|item| item * 10).collect()),
                }
            }
        };
        let items: Vec<u32> = (0..10).collect();
        let tens: Vec<u32> = items.iter().map(|item| item * 10).collect();
        assert_eq!(execution.in_parts(&items, 8, holds(2)).unwrap(), tens);
        assert_eq!(sizes.take(), [8, 4, 2, 2, 2, 2, 2]);
        assert_eq!(
            execution.in_parts(&items[..3], 8, holds(2)).unwrap(),
            tens[..3]
        );
        assert_eq!(sizes.take(), [2, 1]);
        // What does not fit alone, and what fails for another reason, ends it.
        assert!(execution.in_parts(&items, 8, holds(0)).is_err());
        assert_eq!(sizes.take(), [2, 1]);
        let refused = execution.in_parts(&items, 8, |_| {
            Err::<Vec<u32>, _>(TrainError::Tables("no".into()))
        });
        assert_eq!(refused.unwrap_err().to_string(), "no");
    }
}
