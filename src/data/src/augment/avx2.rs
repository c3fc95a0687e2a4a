//! Bilinear interpolation of four slices at once, eight pixels at a time, with AVX2.

use std::arch::x86_64::*;

use super::render::{Finish, TOGETHER, WHITE};
use super::taps::{Frame, Taps};

/// Pixels of a turn.
const PIXELS: usize = 8;

/// Writes as many pixels of each slice as fill whole turns, and says how many those are. The operations, and so the bits,
/// are those of the portable way.
#[target_feature(enable = "avx2")]
pub(super) fn interpolate(
    held: &[u32],
    frame: Frame,
    taps: &Taps,
    finish: &[Finish; TOGETHER],
    out: &mut [f32],
) -> usize {
    let (plane, stride) = (frame.side * frame.side, frame.stride());
    let slices = out.len() / plane;
    assert!(
        held.len() == frame.pixels()
            && slices <= TOGETHER
            && out.len() == slices * plane
            && taps.first.len() == plane
            && taps.right.len() == plane
            && taps.lower.len() == plane,
        "four slices of one frame and its taps"
    );
    // So that a look-up of two pixels in two rows stays within the frame whatever the taps say.
    let last = (frame.pixels() - stride - 2) as u32;
    let white = _mm256_set1_ps(WHITE);
    let done = plane / PIXELS * PIXELS;
    for pixel in (0..done).step_by(PIXELS) {
        let first: &[u32] = &taps.first[pixel..pixel + PIXELS];
        // SAFETY: eight values from `pixel` on are within each of the two, by the assertion above.
        let (right, lower) = unsafe {
            (
                _mm256_loadu_ps(taps.right.as_ptr().add(pixel)),
                _mm256_loadu_ps(taps.lower.as_ptr().add(pixel)),
            )
        };
        // The pixels i and i + 4, four slices each, for i in 0..4.
        let column = |first: u32, lower: __m256| {
            let first = first.min(last) as usize;
            // SAFETY: two pixels from `first` and from the row below it on are within the frame.
            let (above, below) = unsafe {
                let at = held.as_ptr().add(first);
                (two_pixels(at), two_pixels(at.add(stride)))
            };
            // Four slices of the left pixel, then of the right one.
            _mm256_add_ps(above, _mm256_mul_ps(lower, _mm256_sub_ps(below, above)))
        };
        let pair = |i: usize, lower: (__m256, __m256), right: __m256| {
            let (a, b) = (column(first[i], lower.0), column(first[i + 4], lower.1));
            let left = _mm256_permute2f128_ps::<0x20>(a, b);
            let next = _mm256_permute2f128_ps::<0x31>(a, b);
            _mm256_add_ps(left, _mm256_mul_ps(right, _mm256_sub_ps(next, left)))
        };
        let low = _mm256_permute2f128_ps::<0x00>(lower, lower);
        let high = _mm256_permute2f128_ps::<0x11>(lower, lower);
        let rows = [
            pair(
                0,
                (
                    _mm256_permute_ps::<0x00>(low),
                    _mm256_permute_ps::<0x00>(high),
                ),
                _mm256_permute_ps::<0x00>(right),
            ),
            pair(
                1,
                (
                    _mm256_permute_ps::<0x55>(low),
                    _mm256_permute_ps::<0x55>(high),
                ),
                _mm256_permute_ps::<0x55>(right),
            ),
            pair(
                2,
                (
                    _mm256_permute_ps::<0xaa>(low),
                    _mm256_permute_ps::<0xaa>(high),
                ),
                _mm256_permute_ps::<0xaa>(right),
            ),
            pair(
                3,
                (
                    _mm256_permute_ps::<0xff>(low),
                    _mm256_permute_ps::<0xff>(high),
                ),
                _mm256_permute_ps::<0xff>(right),
            ),
        ];
        for (i, (value, finish)) in transposed(rows).iter().zip(finish).enumerate().take(slices) {
            let value = _mm256_mul_ps(*value, _mm256_set1_ps(finish.gain));
            let value = _mm256_div_ps(_mm256_min_ps(value, white), white);
            let value = _mm256_sub_ps(value, _mm256_set1_ps(finish.mean));
            let value = _mm256_div_ps(value, _mm256_set1_ps(finish.std));
            // SAFETY: slice i has eight pixels from `pixel` on, by the assertion above.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr().add(i * plane + pixel), value) };
        }
    }
    done
}

/// Two adjacent pixels of four slices, as numbers.
///
/// # Safety
/// Two pixels are readable at `at`.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn two_pixels(at: *const u32) -> __m256 {
    // SAFETY: by the caller.
    let bytes = unsafe { _mm_loadl_epi64(at.cast()) };
    _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes))
}

/// From pixels i and i + 4 of four slices, i in 0..4, to the eight pixels of each slice.
#[target_feature(enable = "avx2")]
#[inline]
fn transposed([a, b, c, d]: [__m256; 4]) -> [__m256; 4] {
    let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    [
        _mm256_shuffle_ps::<0x44>(ab_low, cd_low),
        _mm256_shuffle_ps::<0xee>(ab_low, cd_low),
        _mm256_shuffle_ps::<0x44>(ab_high, cd_high),
        _mm256_shuffle_ps::<0xee>(ab_high, cd_high),
    ]
}
