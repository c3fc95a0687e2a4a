//! From 8-bit slices on the host to normalised, augmented images on the device.
//!
//! Shapes: B samples, N slices, S = N / 3 images of 3 adjacent slices, H = W the side.

use data::augment::{Augmentation, Strength};
use recipe::Augment;
use tch::{Device, Kind, Tensor};

use crate::Result;

/// Per channel, of pixels in 0..1; the published pipeline's.
const MEAN: [f32; 3] = [0.223_639_83, 0.181_904_07, 0.252_343_7];
const STD: [f32; 3] = [0.324_515_36, 0.295_629_8, 0.313_352_56];

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
    }
}

/// A shape for libtorch.
pub fn shape<const N: usize>(sizes: [usize; N]) -> [i64; N] {
    sizes.map(|n| n as i64)
}

/// 8-bit slices of B samples, one after another, as (B, N, H, W) f32 in 0..1 on the device. 8 bits cross the bus.
pub fn pixels(samples: &[&[u8]], slices: usize, side: usize, device: Device) -> Result<Tensor> {
    let parts = samples
        .iter()
        .map(|bytes| {
            Ok(Tensor::f_from_data_size(
                bytes,
                &shape([slices, side, side]),
                Kind::Uint8,
            )?)
        })
        .collect::<Result<Vec<_>>>()?;
    let bytes = Tensor::f_stack(&parts, 0)?;
    Ok(bytes
        .f_to_device(device)?
        .f_to_kind(Kind::Float)?
        .f_div_scalar(255.0)?)
}

/// Applies each sample's changes to all its slices alike, (B, N, H, W) in 0..1 -> the same; one interpolation.
pub fn augmented(pixels: &Tensor, changes: &[Augmentation]) -> Result<Tensor> {
    let (b, n, h, w) = pixels.size4()?;
    let mut x = pixels.shallow_clone();
    if changes
        .iter()
        .any(|change| change.map != Augmentation::NONE.map)
    {
        let theta: Vec<f32> = changes
            .iter()
            .flat_map(|change| change.sampling().into_iter().flatten().map(|v| v as f32))
            .collect();
        let theta = Tensor::f_from_slice(&theta)?
            .f_view([b, 2, 3])?
            .f_to_device(x.device())?;
        let grid = Tensor::f_affine_grid_generator(&theta, [b, n, h, w], false)?;
        x = x.f_grid_sampler(&grid, BILINEAR, ZEROS, false)?;
    }
    if changes
        .iter()
        .any(|change| change.contrast != 1.0 || change.brightness != 0.0)
    {
        let of = |value: fn(&Augmentation) -> f64| -> Result<Tensor> {
            let values: Vec<f32> = changes.iter().map(|change| value(change) as f32).collect();
            Ok(Tensor::f_from_slice(&values)?
                .f_view([b, 1, 1, 1])?
                .f_to_device(x.device())?)
        };
        let (gain, offset) = (of(|c| c.contrast)?, of(|c| c.brightness)?);
        x = x.f_mul(&gain)?.f_add(&offset)?.f_clamp(0.0, 1.0)?;
    }
    for (sample, change) in changes.iter().enumerate() {
        for [x0, y0, x1, y1] in &change.holes {
            let span = |from: f64, to: f64, size: i64| {
                let from = ((from * size as f64) as i64).min(size);
                (from, ((to * size as f64) as i64).clamp(from, size) - from)
            };
            let ((left, width), (top, height)) = (span(*x0, *x1, w), span(*y0, *y1, h));
            let mut hole = x
                .f_select(0, sample as i64)?
                .f_narrow(1, top, height)?
                .f_narrow(2, left, width)?;
            let _ = hole.f_zero_()?;
        }
    }
    Ok(x)
}

/// (B, N, H, W) -> (B, N / 3, 3, H, W): slices 3i, 3i + 1, 3i + 2 become image i.
pub fn images_of_three(slices: &Tensor) -> Result<Tensor> {
    let (b, n, h, w) = slices.size4()?;
    Ok(slices.f_reshape([b, n / 3, 3, h, w])?)
}

/// Subtracts the mean and divides by the standard deviation of each channel; channels are the third dimension from
/// the end.
pub fn normalised(images: &Tensor) -> Result<Tensor> {
    let channel = |values: [f32; 3]| -> Result<Tensor> {
        Ok(Tensor::f_from_slice(&values)?
            .f_view([3, 1, 1])?
            .f_to_device(images.device())?)
    };
    Ok(images.f_sub(&channel(MEAN)?)?.f_div(&channel(STD)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Tensor {
        let bytes: Vec<u8> = (0..16).map(|i| i * 15).collect();
        pixels(&[&bytes], 1, 4, Device::Cpu).unwrap()
    }

    #[test]
    fn a_mirror_image_is_the_flipped_tensor() {
        let map = [[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]];
        let mirrored = augmented(
            &image(),
            &[Augmentation {
                map,
                ..Augmentation::NONE
            }],
        )
        .unwrap();
        assert!((mirrored - image().flip([3])).abs().max().double_value(&[]) < 1e-6);
    }

    #[test]
    fn a_shift_moves_pixels_and_fills_with_zero() {
        // A quarter of the side: one of four pixels; the whole side is 2 wide.
        let map = [[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]];
        let moved = augmented(
            &image(),
            &[Augmentation {
                map,
                ..Augmentation::NONE
            }],
        )
        .unwrap();
        assert!(moved.select(3, 0).abs().max().double_value(&[]) < 1e-6);
        let same = moved.narrow(3, 1, 3) - image().narrow(3, 0, 3);
        assert!(same.abs().max().double_value(&[]) < 1e-6);
    }

    #[test]
    fn holes_are_zero_in_their_sample_only() {
        let two = Tensor::cat(&[image() + 0.5, image() + 0.5], 0);
        let holed = Augmentation {
            holes: vec![[0.0, 0.0, 0.5, 0.25]],
            ..Augmentation::NONE
        };
        let x = augmented(&two, &[Augmentation::NONE, holed]).unwrap();
        assert_eq!(x.eq(0.0).sum(Kind::Int64).int64_value(&[]), 2);
        assert_eq!(x.select(0, 0), two.select(0, 0));
    }

    #[test]
    fn three_adjacent_slices_are_one_image() {
        let slices = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([1, 6, 1, 1]);
        let images = images_of_three(&slices).unwrap();
        assert_eq!(
            Vec::<f32>::try_from(images.select(1, 1).view(-1)).unwrap(),
            [3., 4., 5.]
        );
    }
}
