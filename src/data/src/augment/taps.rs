//! Where each pixel of a changed image takes its value from: worked out once for a sample, used for all its slices.

use rayon::prelude::*;

use super::Augmentation;
use super::sampling::{Row, Sampling};

/// Rows that one thread works out at a time.
const ROWS: usize = 16;

/// For each pixel of the changed image, the four pixels of the original that it lies between.
///
/// They are pixels of a [frame](Frame): black around the image stands for all that is outside.
pub(super) struct Taps {
    /// The upper left of the four, in the frame.
    pub first: Vec<u32>,
    /// Share of the right ones.
    pub right: Vec<f32>,
    /// Share of the lower ones.
    pub lower: Vec<f32>,
}

/// An image of `side` x `side` with a border of one black pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub side: usize,
}

impl Frame {
    /// From one row to the next.
    pub const fn stride(self) -> usize {
        self.side + 2
    }

    pub const fn pixels(self) -> usize {
        self.stride() * self.stride()
    }
}

impl Taps {
    /// In parallel, on the threads of the pool that this is called in.
    pub fn new(change: &Augmentation, side: usize) -> Self {
        let mut taps = Taps {
            first: vec![0; side * side],
            right: vec![0.0; side * side],
            lower: vec![0.0; side * side],
        };
        let sampling = Sampling::new(change, side);
        let band = (ROWS * side).max(1);
        taps.first
            .par_chunks_mut(band)
            .zip(taps.right.par_chunks_mut(band))
            .zip(taps.lower.par_chunks_mut(band))
            .enumerate()
            .for_each(|(i, ((first, right), lower))| {
                #[cfg(target_arch = "x86_64")]
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has the feature that the function is compiled for.
                    return unsafe {
                        rows_with_avx2(&sampling, side, i * ROWS, first, right, lower)
                    };
                }
                rows(&sampling, side, i * ROWS, first, right, lower);
            });
        // A hole shows nothing but the frame's first row, which is black.
        for [x0, y0, x1, y1] in change.holes_in_pixels(side) {
            for y in y0..y1 {
                let span = y * side + x0..y * side + x1;
                taps.first[span.clone()].fill(0);
                taps.lower[span].fill(0.0);
            }
        }
        taps
    }
}

/// [`rows`] with rounding as one instruction instead of a call.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn rows_with_avx2(
    sampling: &Sampling,
    side: usize,
    from: usize,
    first: &mut [u32],
    right: &mut [f32],
    lower: &mut [f32],
) {
    rows(sampling, side, from, first, right, lower);
}

/// The rows from `from` on.
#[inline(always)]
fn rows(
    sampling: &Sampling,
    side: usize,
    from: usize,
    first: &mut [u32],
    right: &mut [f32],
    lower: &mut [f32],
) {
    let mut row = Row::new(side);
    let stride = Frame { side }.stride() as u32;
    let out = first
        .chunks_exact_mut(side)
        .zip(right.chunks_exact_mut(side))
        .zip(lower.chunks_exact_mut(side));
    for (y, ((first, right), lower)) in out.enumerate() {
        sampling.row(from + y, &mut row);
        let places = row.x.iter().zip(&row.y);
        let out = first.iter_mut().zip(right).zip(lower);
        for (((first, right), lower), (x, y)) in out.zip(places) {
            let (x, x_share) = between(*x, side);
            let (y, y_share) = between(*y, side);
            // Whole numbers from 0 to the side; by way of i32, for which there is an instruction.
            *first = (y as i32 as u32) * stride + x as i32 as u32;
            (*right, *lower) = (x_share, y_share);
        }
    }
}

/// The pixel of the frame before a place, and the share of the one after it. As libtorch's `grid_sampler` has it, in f32;
/// what lies outside the image by a pixel or more is as black as the border.
#[inline(always)]
fn between(place: f32, side: usize) -> (f32, f32) {
    let side = side as f32;
    let pixel = ((place + 1.0) * (side / 2.0) - 0.5).max(-1.0).min(side);
    let before = pixel.floor().min(side - 1.0);
    (before + 1.0, pixel - before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_lie_between_two_of_the_frame() {
        // Middles of the four pixels of a side are -0.75, -0.25, 0.25, 0.75; the frame's first pixel is before them.
        for (place, want) in [
            (-0.75, (1.0, 0.0)),
            (-0.25, (2.0, 0.0)),
            (0.0, (2.0, 0.5)),
            (0.75, (4.0, 0.0)),
            (0.875, (4.0, 0.25)),
            (-1.125, (0.0, 0.25)),
            (-1.25, (0.0, 0.0)),
            (-7.0, (0.0, 0.0)),
            (1.25, (4.0, 1.0)),
            (1e9, (4.0, 1.0)),
            (f32::NAN, (0.0, 0.0)),
        ] {
            assert_eq!(between(place, 4), want, "{place}");
        }
    }
}
