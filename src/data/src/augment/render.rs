//! From 8-bit slices to normalised, changed images in f32, on CPUs: each byte of the result is written once.
//!
//! Shapes: N slices of a sample (H, W), H = W the side; slice n is channel n % 3 of image n / 3, so that (N, H, W) and
//! (N / 3, 3, H, W) are the same bytes.
//!
//! Four slices go together: their bytes stand side by side in a [frame](Frame), so one look-up finds the neighbours of a
//! pixel in all four. Threads take different slices; which one takes which makes no difference to the result.

use rayon::prelude::*;

use super::Augmentation;
#[cfg(target_arch = "x86_64")]
use super::avx2;
use super::taps::{Frame, Taps};
use crate::error::{DataError, Result};

/// Slices that are interpolated together.
pub(super) const TOGETHER: usize = 4;

/// What pixels in 0..1 are brought to, for each of three channels: (pixel - mean) / std.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalization {
    pub mean: [f32; 3],
    pub std: [f32; 3],
}

impl Normalization {
    /// The published pipeline's.
    pub const PUBLISHED: Normalization = Normalization {
        mean: [0.223_639_83, 0.181_904_07, 0.252_343_7],
        std: [0.324_515_36, 0.295_629_8, 0.313_352_56],
    };
}

/// One sample to render.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// (N, H, W)
    pub pixels: &'a [u8],
    /// None is no change.
    pub change: Option<&'a Augmentation>,
}

/// Renders on its own threads.
#[derive(Debug)]
pub struct Renderer {
    pool: rayon::ThreadPool,
    normalization: Normalization,
}

impl Renderer {
    /// With so many threads, at least one.
    ///
    /// # Errors
    /// [`DataError::Threads`] where the system gives none.
    pub fn new(threads: usize, normalization: Normalization) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|i| format!("render-{i}"))
            .build()
            .map_err(|source| DataError::Threads { threads, source })?;
        Ok(Renderer {
            pool,
            normalization,
        })
    }

    /// Renders samples of one shape, one after another, into `out`, (B, N / 3, 3, H, W).
    ///
    /// # Errors
    /// [`DataError::RenderShape`] where a sample is no whole number of slices of this side, or `out` has another size.
    pub fn render(&self, samples: &[Sample], side: usize, out: &mut [f32]) -> Result<()> {
        let size = out.len() / samples.len().max(1);
        let plane = side * side;
        let fits = plane > 0
            && size.is_multiple_of(plane)
            && out.len() == size * samples.len()
            && samples.iter().all(|sample| sample.pixels.len() == size);
        if !fits {
            return Err(DataError::RenderShape {
                samples: samples.len(),
                bytes: samples.first().map_or(0, |sample| sample.pixels.len()),
                side,
                room: out.len(),
            });
        }
        if size == 0 {
            return Ok(());
        }
        self.pool.install(|| {
            samples
                .par_iter()
                .zip(out.par_chunks_exact_mut(size))
                .for_each(|(sample, out)| self.sample(*sample, side, out));
        });
        Ok(())
    }

    fn sample(&self, sample: Sample, side: usize, out: &mut [f32]) {
        let plane = side * side;
        let gain = sample.change.map_or(1.0, |change| change.gain as f32);
        match sample.change.filter(|change| !change.keeps_places()) {
            None => {
                let holes: Vec<[usize; 4]> = sample
                    .change
                    .map(|change| change.holes_in_pixels(side).collect())
                    .unwrap_or_default();
                sample
                    .pixels
                    .par_chunks_exact(plane)
                    .zip(out.par_chunks_exact_mut(plane))
                    .enumerate()
                    .for_each(|(slice, (pixels, out))| {
                        copy(pixels, &holes, side, self.finish(gain, slice), out);
                    });
            }
            Some(change) => {
                let taps = Taps::new(change, side);
                let frame = Frame { side };
                sample
                    .pixels
                    .par_chunks(TOGETHER * plane)
                    .zip(out.par_chunks_mut(TOGETHER * plane))
                    .enumerate()
                    .for_each_init(
                        || vec![0; frame.pixels()],
                        |held, (group, (pixels, out))| {
                            let finish =
                                std::array::from_fn(|i| self.finish(gain, group * TOGETHER + i));
                            interleave(pixels, frame, held);
                            interpolate(held, frame, &taps, &finish, out);
                        },
                    );
            }
        }
    }

    /// What is done to the pixels of a slice.
    fn finish(&self, gain: f32, slice: usize) -> Finish {
        let channel = slice % 3;
        Finish {
            gain,
            mean: self.normalization.mean[channel],
            std: self.normalization.std[channel],
        }
    }
}

/// Contrast and normalisation.
#[derive(Clone, Copy)]
pub(super) struct Finish {
    pub gain: f32,
    pub mean: f32,
    pub std: f32,
}

/// White, of 8 bits.
pub(super) const WHITE: f32 = 255.0;

impl Finish {
    /// A pixel in 0..255. The same operations as libtorch's, so that a pixel of an image that keeps its places has the
    /// same bits on this path as on that one.
    #[inline(always)]
    fn apply(self, pixel: f32) -> f32 {
        ((pixel * self.gain).min(WHITE) / WHITE - self.mean) / self.std
    }
}

/// A slice whose pixels keep their places.
fn copy(pixels: &[u8], holes: &[[usize; 4]], side: usize, finish: Finish, out: &mut [f32]) {
    // Rows at a time, so that holes are made while the row is at hand.
    let rows = pixels.chunks_exact(side).zip(out.chunks_exact_mut(side));
    for (y, (pixels, out)) in rows.enumerate() {
        finish_row(pixels, finish, out);
        for [x0, y0, x1, y1] in holes {
            if (*y0..*y1).contains(&y) {
                out[*x0..*x1].fill(finish.apply(0.0));
            }
        }
    }
}

fn finish_row(pixels: &[u8], finish: Finish, out: &mut [f32]) {
    #[inline(always)]
    fn each(pixels: &[u8], finish: Finish, out: &mut [f32]) {
        for (out, pixel) in out.iter_mut().zip(pixels) {
            *out = finish.apply(f32::from(*pixel));
        }
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn each_with_avx2(pixels: &[u8], finish: Finish, out: &mut [f32]) {
        each(pixels, finish, out);
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has the feature that the function is compiled for.
        return unsafe { each_with_avx2(pixels, finish, out) };
    }
    each(pixels, finish, out);
}

/// Puts up to four slices side by side into a frame, the first in the lowest byte. The frame's border stays as it is.
fn interleave(slices: &[u8], frame: Frame, held: &mut [u32]) {
    let side = frame.side;
    let plane = side * side;
    // Where there are fewer than four, the first stands in for the others; nobody reads them.
    let slice = |i: usize| {
        let slice = slices.get(i * plane..(i + 1) * plane);
        slice.unwrap_or(&slices[..plane])
    };
    let [a, b, c, d]: [&[u8]; TOGETHER] = std::array::from_fn(slice);
    for y in 0..side {
        let row = y * side..(y + 1) * side;
        let inside = (y + 1) * frame.stride() + 1;
        let out = held[inside..inside + side].iter_mut();
        let (a, b) = (&a[row.clone()], &b[row.clone()]);
        let (c, d) = (&c[row.clone()], &d[row]);
        for ((((out, a), b), c), d) in out.zip(a).zip(b).zip(c).zip(d) {
            *out = u32::from_le_bytes([*a, *b, *c, *d]);
        }
    }
}

/// Writes the slices of a frame that `out` has room for.
fn interpolate(
    held: &[u32],
    frame: Frame,
    taps: &Taps,
    finish: &[Finish; TOGETHER],
    out: &mut [f32],
) {
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has the feature that the function is compiled for.
        done = unsafe { avx2::interpolate(held, frame, taps, finish, out) };
    }
    interpolate_from(done, held, frame, taps, finish, out);
}

/// From pixel `done` on.
fn interpolate_from(
    done: usize,
    held: &[u32],
    frame: Frame,
    taps: &Taps,
    finish: &[Finish; TOGETHER],
    out: &mut [f32],
) {
    let (plane, stride) = (frame.side * frame.side, frame.stride());
    for pixel in done..plane {
        let first = taps.first[pixel] as usize;
        let (right, lower) = (taps.right[pixel], taps.lower[pixel]);
        let four = [first, first + 1, first + stride, first + stride + 1]
            .map(|place| held[place].to_le_bytes().map(f32::from));
        for (i, out) in out.chunks_exact_mut(plane).enumerate() {
            let [a, b, c, d] = four.map(|slices| slices[i]);
            // No fused multiply-add: every processor gives the same bits.
            let (left, next) = (a + lower * (c - a), b + lower * (d - b));
            out[pixel] = finish[i].apply(left + right * (next - left));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Strength;
    use super::*;

    /// FNV-1a's steps: bytes without a pattern.
    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 0x811c_9dc5_u32;
        (0..bytes)
            .map(|i| {
                state = (state ^ (i as u32 & 0xff)).wrapping_mul(0x0100_0193);
                (state >> 13) as u8
            })
            .collect()
    }

    #[test]
    fn the_portable_way_gives_the_same_bits() {
        // Sides with and without a remainder of eight pixels; groups of four, three and one slices.
        for (side, slices) in [(5, 4), (16, 3), (33, 4), (40, 1)] {
            let frame = Frame { side };
            let plane = side * side;
            let pixels = noise(slices * plane);
            let mut held = vec![0; frame.pixels()];
            interleave(&pixels, frame, &mut held);
            for sample in 0..12 {
                let change = Augmentation::draw(&Strength::PUBLISHED, 0, 0, sample);
                let taps = Taps::new(&change, side);
                let finish: [Finish; TOGETHER] = std::array::from_fn(|i| Finish {
                    gain: change.gain as f32,
                    mean: 0.1 + i as f32,
                    std: 0.3 + i as f32,
                });
                let mut portable = vec![f32::NAN; slices * plane];
                let mut quick = portable.clone();
                interpolate_from(0, &held, frame, &taps, &finish, &mut portable);
                interpolate(&held, frame, &taps, &finish, &mut quick);
                assert!(portable.iter().all(|v| v.is_finite()));
                assert_eq!(portable, quick, "side {side}, {slices} slices");
            }
        }
    }
}
