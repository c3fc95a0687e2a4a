//! From 8-bit slices on the host to normalised, changed images on the device.
//!
//! Shapes: B samples, N slices, S = N / 3 images of 3 adjacent slices, H = W the side. 8 bits cross the bus: a GPU gets
//! the slices and one sampling grid for each sample, and makes the images of them; for a CPU the data crate does it in one
//! pass. Both do the same to every pixel.

use std::cell::OnceCell;

use collective::cuda;
use data::DataError;
use data::augment::{Augmentation, Normalization, Renderer, Sample, Strength};
use recipe::Augment;
use tch::{Device, Kind, Tensor};

use crate::host_pixels::HostBytes;
use crate::{Result, TrainError};

/// Per channel, of pixels in 0..1.
const NORMALIZATION: Normalization = Normalization::PUBLISHED;

/// Interpolation and padding of a sampling grid: bilinear, zeros.
const BILINEAR: i64 = 0;
const ZEROS: i64 = 0;

/// The recipe's augmentation as the data crate draws it.
pub fn strength(augment: &Augment) -> Strength {
    Strength {
        flip: augment.flip,
        contrast: augment.contrast,
        shift: augment.shift,
        scale: augment.scale,
        rotate: augment.rotate,
        probability: augment.probability,
        cutout: augment.cutout as usize,
        distortion: augment.distortion,
        grid_steps: augment.grid_steps as usize,
        grid_limit: augment.grid_limit,
        elastic_alpha: augment.elastic_alpha,
        elastic_sigma: augment.elastic_sigma,
    }
}

/// A shape for libtorch.
pub fn shape<const N: usize>(sizes: [usize; N]) -> [i64; N] {
    sizes.map(|n| n as i64)
}

/// What makes images on one device.
#[derive(Debug)]
pub(crate) struct Feed {
    device: Device,
    /// On CPUs, from the first images on; with as many threads as libtorch has.
    renderer: OnceCell<Renderer>,
}

impl Feed {
    pub fn new(device: Device) -> Self {
        Feed {
            device,
            renderer: OnceCell::new(),
        }
    }

    /// Slices (N, H, W) of each of B samples, and what is changed in them (nothing, where absent) -> (B, S, 3, H, W) f32
    /// on the device. Slices 3i, 3i + 1, 3i + 2 are the channels of image i.
    ///
    /// # Errors
    /// No samples, samples of different sizes, or of no whole number of images; another number of changes.
    pub fn images(
        &self,
        samples: &[impl HostBytes],
        changes: Option<&[Augmentation]>,
        side: usize,
    ) -> Result<Tensor> {
        let bytes = samples.first().map_or(0, |sample| sample.bytes().len());
        let slices = bytes / (side * side).max(1);
        let size = shape([samples.len(), slices / 3, 3, side, side]);
        let fits = slices > 0
            && slices.is_multiple_of(3)
            && samples
                .iter()
                .all(|s| s.bytes().len() == slices * side * side)
            && changes.is_none_or(|changes| changes.len() == samples.len());
        if !fits {
            return Err(TrainError::Data(DataError::RenderShape {
                samples: samples.len(),
                bytes,
                side,
                room: size.iter().product::<i64>() as usize,
            }));
        }
        match self.device {
            Device::Cpu => rendered(self.renderer()?, samples, changes, side, &size),
            device => {
                let slices = uploaded(samples, &shape([slices, side, side]), device)?;
                computed(&slices, changes)?
                    .f_reshape(size)
                    .map_err(Into::into)
            }
        }
    }

    fn renderer(&self) -> Result<&Renderer> {
        if let Some(renderer) = self.renderer.get() {
            return Ok(renderer);
        }
        let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1);
        let renderer = Renderer::new(threads, NORMALIZATION)?;
        Ok(self.renderer.get_or_init(|| renderer))
    }
}

/// On the host, in one pass over the pixels.
fn rendered(
    renderer: &Renderer,
    samples: &[impl HostBytes],
    changes: Option<&[Augmentation]>,
    side: usize,
    size: &[i64],
) -> Result<Tensor> {
    let samples: Vec<Sample> = samples
        .iter()
        .enumerate()
        .map(|(i, sample)| Sample {
            pixels: sample.bytes(),
            change: changes.and_then(|changes| changes.get(i)),
        })
        .collect();
    let images = Tensor::f_empty(size, (Kind::Float, Device::Cpu))?;
    // SAFETY: a new, contiguous tensor of so many f32 that nobody else knows of. Its memory comes from libtorch and not
    // from Rust; whatever bits it holds are numbers, and each is written before it is read.
    let out =
        unsafe { std::slice::from_raw_parts_mut(images.data_ptr().cast::<f32>(), images.numel()) };
    renderer.render(&samples, side, out)?;
    Ok(images)
}

/// Bytes of each sample, (B, `size`..) on a device. To a GPU they go from pinned memory, so that the host does not wait for
/// the bus.
fn uploaded(samples: &[impl HostBytes], size: &[i64], device: Device) -> Result<Tensor> {
    let parts = samples
        .iter()
        .map(|sample| match sample.pinned() {
            Some(pinned) => {
                let pinned = pinned.f_view(size)?;
                Ok(pinned.f_to_device_(device, Kind::Uint8, true, false)?)
            }
            None => upload(sample.bytes(), size, Kind::Uint8, device),
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(match parts.as_slice() {
        [one] => one.f_unsqueeze(0)?,
        // On the device, where it costs next to nothing.
        all => Tensor::f_stack(all, 0)?,
    })
}

/// Values of one kind on a device.
fn upload<T>(values: &[T], size: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
    assert_eq!(
        size.iter().product::<i64>() as usize * kind.elt_size_in_bytes(),
        size_of_val(values),
        "a tensor has the size of its values"
    );
    if device.is_cuda() {
        // SAFETY: the bytes of numbers, which have no padding; they are copied before this function ends.
        let bytes = unsafe {
            std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values))
        };
        // Without more pinned memory the host waits for the copy, below.
        if let Ok(pinned) = cuda::pinned(bytes) {
            let pinned = pinned.f_view_dtype(kind)?.f_view(size)?;
            return Ok(pinned.f_to_device_(device, kind, true, false)?);
        }
    }
    let mut strides = vec![1; size.len()];
    for i in (1..size.len()).rev() {
        strides[i - 1] = strides[i] * size[i];
    }
    // SAFETY: as many values as the size says, which outlive this view of them: it is copied before this function ends.
    let view =
        unsafe { Tensor::f_from_blob(values.as_ptr().cast(), size, &strides, kind, Device::Cpu)? };
    Ok(view.f_to_device_(device, kind, false, true)?)
}

/// On the device: 8-bit slices (B, N, H, W) -> the same in f32, changed and normalised.
fn computed(slices: &Tensor, changes: Option<&[Augmentation]>) -> Result<Tensor> {
    let mut x = slices.f_to_kind(Kind::Float)?.f_div_scalar_(255.0)?;
    if let Some(changes) = changes {
        x = interpolated(x, changes)?;
        contrasted(&mut x, changes)?;
        cut_out(&x, changes)?;
    }
    let (b, n, h, w) = x.size4()?;
    let device = x.device();
    let channel = |values: [f32; 3]| -> Result<Tensor> {
        upload(&values, &[1, 1, 3, 1, 1], Kind::Float, device)
    };
    let (mean, std) = (channel(NORMALIZATION.mean)?, channel(NORMALIZATION.std)?);
    let mut images = x.f_view([b, n / 3, 3, h, w])?;
    let _ = images.f_sub_(&mean)?.f_div_(&std)?;
    Ok(x)
}

/// Samples whose pixels keep their places are left as they are.
fn interpolated(mut x: Tensor, changes: &[Augmentation]) -> Result<Tensor> {
    let (_, _, h, w) = x.size4()?;
    let moved: Vec<i64> = (0..)
        .zip(changes)
        .filter(|(_, change)| !change.keeps_places())
        .map(|(i, _)| i)
        .collect();
    if moved.is_empty() {
        return Ok(x);
    }
    let grids = moved
        .iter()
        .map(|i| {
            let grid = changes[*i as usize].sampling_grid(h as usize);
            upload(&grid, &[h, w, 2], Kind::Float, x.device())
        })
        .collect::<Result<Vec<_>>>()?;
    let grid = Tensor::f_stack(&grids, 0)?;
    if moved.len() == changes.len() {
        return Ok(x.f_grid_sampler(&grid, BILINEAR, ZEROS, false)?);
    }
    let moved = upload(&moved, &[moved.len() as i64], Kind::Int64, x.device())?;
    let sampled = x
        .f_index_select(0, &moved)?
        .f_grid_sampler(&grid, BILINEAR, ZEROS, false)?;
    Ok(x.f_index_copy_(0, &moved, &sampled)?)
}

fn contrasted(x: &mut Tensor, changes: &[Augmentation]) -> Result<()> {
    if changes.iter().any(|change| change.gain != 1.0) {
        let gains: Vec<f32> = changes.iter().map(|change| change.gain as f32).collect();
        let gains = upload(
            &gains,
            &[gains.len() as i64, 1, 1, 1],
            Kind::Float,
            x.device(),
        )?;
        let _ = x.f_mul_(&gains)?.f_clamp_max_(1.0)?;
    }
    Ok(())
}

fn cut_out(x: &Tensor, changes: &[Augmentation]) -> Result<()> {
    let (_, _, h, _) = x.size4()?;
    for (sample, change) in changes.iter().enumerate() {
        let sample = x.f_select(0, sample as i64)?;
        for hole in change.holes_in_pixels(h as usize) {
            let [x0, y0, x1, y1] = shape(hole);
            let rows = sample.f_narrow(1, y0, y1 - y0)?;
            let _ = rows.f_narrow(2, x0, x1 - x0)?.f_zero_()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use data::augment::Distortion;
    use data::sampler::{epoch_order, rank_share};

    use super::*;

    const PUBLISHED: Strength = Strength::PUBLISHED;

    /// Slices without a pattern: neighbours differ by all of the range.
    fn noise(sample: usize, slices: usize, side: usize) -> Vec<u8> {
        let mut state = sample as u32 + 1;
        (0..slices * side * side)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect()
    }

    /// What a GPU does, on this device.
    fn through_libtorch(
        samples: &[&[u8]],
        changes: Option<&[Augmentation]>,
        slices: usize,
        side: usize,
    ) -> Tensor {
        let bytes = uploaded(samples, &shape([slices, side, side]), Device::Cpu).unwrap();
        let size = shape([samples.len(), slices / 3, 3, side, side]);
        computed(&bytes, changes).unwrap().reshape(size)
    }

    fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
        assert_eq!(a.size(), b.size());
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn both_ways_make_the_same_images() {
        let feed = Feed::new(Device::Cpu);
        // From black to white in the channel of the least deviation.
        let range = 1.0 / f64::from(NORMALIZATION.std[1]);
        for (side, slices, limit) in [(64, 6, 1e-6), (128, 3, 1e-6), (72, 9, 2e-5)] {
            let changes: Vec<Augmentation> = (0..48)
                .map(|i| Augmentation::draw(&PUBLISHED, 5, 1, i))
                .collect();
            let kinds = [
                changes.iter().any(Augmentation::keeps_places),
                changes
                    .iter()
                    .any(|c| matches!(c.distortion, Distortion::Grid(_))),
                changes
                    .iter()
                    .any(|c| matches!(c.distortion, Distortion::Elastic(_))),
            ];
            assert_eq!(kinds, [true; 3], "every branch is among them");
            let pixels: Vec<Vec<u8>> = (0..48).map(|i| noise(i, slices, side)).collect();
            let samples: Vec<&[u8]> = pixels.iter().map(Vec::as_slice).collect();
            let ours = feed.images(&samples, Some(&changes), side).unwrap();
            let theirs = through_libtorch(&samples, Some(&changes), slices, side);
            let difference = largest_difference(&ours, &theirs) / range;
            assert!(
                difference < limit,
                "side {side}: {difference:e} of the range"
            );
        }
    }

    #[test]
    fn images_without_a_change_have_libtorchs_bits() {
        let pixels = noise(3, 6, 40);
        let samples = [pixels.as_slice(), pixels.as_slice()];
        let ours = Feed::new(Device::Cpu).images(&samples, None, 40).unwrap();
        assert_eq!(ours.size(), [2, 2, 3, 40, 40]);
        assert_eq!(ours, through_libtorch(&samples, None, 6, 40));
        let unchanged = [Augmentation::NONE, Augmentation::NONE];
        let same = Feed::new(Device::Cpu).images(&samples, Some(&unchanged), 40);
        assert_eq!(ours, same.unwrap());
        // Slice 4 is the second channel of the second image.
        let (byte, value) = (pixels[4 * 1600 + 7], ours.double_value(&[0, 1, 1, 0, 7]));
        let want = (f64::from(byte) / 255.0 - 0.181_904_07) / 0.295_629_8;
        assert!((value - want).abs() < 1e-6);
    }

    #[test]
    fn a_sample_is_the_same_on_every_number_of_ranks_in_every_batch() {
        let (side, slices, count) = (33, 6, 24);
        let order = epoch_order(2, 1, count);
        // Every rank makes its share of each batch; the images of all ranks, by sample.
        let images_on = |world_size: usize| -> Vec<Vec<f32>> {
            let mut by_sample = vec![Vec::new(); count];
            for rank in 0..world_size {
                let feed = Feed::new(Device::Cpu);
                for update in 0..3 {
                    let share = rank_share(&order, update, 8, rank, world_size);
                    let pixels: Vec<Vec<u8>> =
                        share.iter().map(|i| noise(*i, slices, side)).collect();
                    let bytes: Vec<&[u8]> = pixels.iter().map(Vec::as_slice).collect();
                    let changes: Vec<Augmentation> = share
                        .iter()
                        .map(|i| Augmentation::draw(&PUBLISHED, 2, 1, *i as u64))
                        .collect();
                    let images = feed.images(&bytes, Some(&changes), side).unwrap();
                    for (place, sample) in share.iter().enumerate() {
                        let image = images.select(0, place as i64).reshape([-1]);
                        by_sample[*sample] = Vec::<f32>::try_from(image).unwrap();
                    }
                }
            }
            by_sample
        };
        let alone = images_on(1);
        assert!(
            alone
                .iter()
                .all(|image| image.len() == slices * side * side)
        );
        assert_eq!(alone, images_on(2));
        assert_eq!(alone, images_on(4));
    }

    #[test]
    fn samples_of_another_size_are_refused() {
        let (long, short) = (noise(1, 3, 8), noise(1, 3, 7));
        let feed = Feed::new(Device::Cpu);
        assert!(feed.images(&[long.as_slice(), &short], None, 8).is_err());
        assert!(feed.images(&[short.as_slice()], None, 8).is_err());
        assert!(feed.images(&[&long[..128]], None, 8).is_err(), "two slices");
        assert!(feed.images(&[] as &[&[u8]], None, 8).is_err());
        assert!(feed.images(&[long.as_slice()], Some(&[]), 8).is_err());
        assert!(
            feed.images(&[long.as_slice()], Some(&[Augmentation::NONE]), 8)
                .is_ok()
        );
    }

    #[test]
    fn a_recipe_that_says_nothing_has_the_published_strength() {
        let source = recipe::Source {
            name: "r.yaml".into(),
            text: "data: {root: d}\nstage2: {}\n".into(),
        };
        let stage2 = recipe::parse(&source, &[]).unwrap().stage2.unwrap();
        assert_eq!(strength(&stage2.training.augment), PUBLISHED);
    }
}
