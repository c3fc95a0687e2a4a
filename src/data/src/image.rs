//! From Hounsfield units to the pixels of a network: crop, bilinear resize, window to 8 bits.
//!
//! Images are (rows, columns). The order is that of the reference: crop, resize in HU, then window.

use crate::error::{DataError, Result};

/// A rectangle of pixels, its ends excluded; within the image that it crops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PixelBox {
    /// First column.
    pub x0: usize,
    /// First row.
    pub y0: usize,
    /// Column after the last.
    pub x1: usize,
    /// Row after the last.
    pub y1: usize,
}

impl PixelBox {
    /// The whole of an image.
    pub fn whole(rows: usize, cols: usize) -> Self {
        Self {
            x0: 0,
            y0: 0,
            x1: cols,
            y1: rows,
        }
    }

    /// The same box cut to an image and made at least one pixel large, so that it can be cropped whatever it was.
    pub fn within(self, rows: usize, cols: usize) -> Self {
        let side = |from: usize, to: usize, n: usize| {
            let from = from.min(n.saturating_sub(1));
            (from, to.clamp(from + 1, n.max(from + 1)))
        };
        let (x0, x1) = side(self.x0, self.x1, cols);
        let (y0, y1) = side(self.y0, self.y1, rows);
        Self { x0, y0, x1, y1 }
    }
}

/// A crop and bilinear resize with its weights worked out, for the slices of a sequence.
///
/// The result is PyTorch's `interpolate(mode="bilinear", align_corners=False)` on f32 on a CPU, bit for bit where
/// height + width is over 128; for smaller ones PyTorch takes a path that rounds otherwise in the last bits.
#[derive(Debug, Clone, PartialEq)]
pub struct Resize {
    crop: PixelBox,
    rows: Vec<Tap>,
    cols: Vec<Tap>,
}

/// The two input pixels that an output pixel lies between, and the weight of the second.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Tap {
    low: usize,
    high: usize,
    weight: f32,
}

impl Resize {
    /// From `crop` to (`height`, `width`). A crop without pixels gives zeros.
    pub fn new(crop: PixelBox, height: usize, width: usize) -> Self {
        Self {
            crop,
            rows: taps(crop.y0, crop.y1, height),
            cols: taps(crop.x0, crop.x1, width),
        }
    }

    /// (height, width) of the result.
    pub fn size(&self) -> (usize, usize) {
        (self.rows.len(), self.cols.len())
    }

    /// Resizes `image`, HU with `cols` columns, into `out`, which has height * width pixels.
    ///
    /// # Errors
    /// [`DataError::CropOutside`] where the crop reaches outside the image (see [`PixelBox::within`]) or `out` has
    /// another size.
    pub fn apply(&self, image: &[i16], cols: usize, out: &mut [f32]) -> Result<()> {
        let fits = self.crop.x1 <= cols
            && image.len() >= self.crop.y1 * cols
            && out.len() == self.rows.len() * self.cols.len();
        if !fits {
            return Err(DataError::CropOutside {
                crop: self.crop,
                rows: image.len() / cols.max(1),
                cols,
            });
        }
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has the features that the function is compiled for.
            unsafe { self.resize_with_fma(image, cols, out) };
            return Ok(());
        }
        self.resize(image, cols, out);
        Ok(())
    }

    /// [`Self::resize`] with `mul_add` as one instruction instead of a call.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn resize_with_fma(&self, image: &[i16], cols: usize, out: &mut [f32]) {
        self.resize(image, cols, out);
    }

    /// Blends along rows first, then between rows, as ATen does.
    #[inline(always)]
    fn resize(&self, image: &[i16], cols: usize, out: &mut [f32]) {
        let width = self.cols.len();
        if width == 0 {
            return;
        }
        // The two image rows blended last, already of the new width; neighbouring output rows share them.
        let mut above = (usize::MAX, vec![0.0; width]);
        let mut below = (usize::MAX, vec![0.0; width]);
        for (tap, out) in self.rows.iter().zip(out.chunks_exact_mut(width)) {
            if below.0 == tap.low {
                std::mem::swap(&mut above, &mut below);
            }
            for (held, needed) in [(&mut above, tap.low), (&mut below, tap.high)] {
                if held.0 != needed {
                    let row = &image[needed * cols..(needed + 1) * cols];
                    for (value, tap) in held.1.iter_mut().zip(&self.cols) {
                        *value = blend(row[tap.low].into(), row[tap.high].into(), tap.weight);
                    }
                    held.0 = needed;
                }
            }
            for ((value, &low), &high) in out.iter_mut().zip(&above.1).zip(&below.1) {
                *value = blend(low, high, tap.weight);
            }
        }
    }
}

#[inline(always)]
fn blend(low: f32, high: f32, weight: f32) -> f32 {
    low.mul_add(1.0 - weight, high * weight)
}

/// Taps from the pixels `from..to` to `output` pixels. Source coordinate: `max(scale * (i + 0.5) - 0.5, 0)` in f32 with
/// one rounding, scale = input / output (ATen, `UpSample.h`).
fn taps(from: usize, to: usize, output: usize) -> Vec<Tap> {
    let input = to.saturating_sub(from);
    if input == 0 {
        return Vec::new();
    }
    let scale = input as f32 / output as f32;
    (0..output)
        .map(|i| {
            let source = scale.mul_add(i as f32 + 0.5, -0.5).max(0.0);
            let low = (source as usize).min(input - 1);
            Tap {
                low: from + low,
                high: from + (low + 1).min(input - 1),
                weight: (source - low as f32).clamp(0.0, 1.0),
            }
        })
        .collect()
}

/// To what a window maps its range of HU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WindowMode {
    /// Each slice's own least and greatest value after the clip become 0 and 255, as in the reference.
    #[default]
    PerSlice,
    /// The window's ends become 0 and 255 in every slice.
    Fixed,
}

/// A CT window: HU are clipped to `level - width / 2 .. level + width / 2` and scaled to 8 bits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// The middle of the range, HU.
    pub level: f32,
    /// The length of the range, HU; positive.
    pub width: f32,
    /// What the scale is.
    pub mode: WindowMode,
}

impl Default for Window {
    /// The pipeline's: level 400, width 1800, that is -500 to 1300 HU.
    fn default() -> Self {
        Self {
            level: 400.0,
            width: 1800.0,
            mode: WindowMode::PerSlice,
        }
    }
}

impl Window {
    /// One slice of HU to 8 bits, rounded towards zero as the reference does. A slice of one value becomes 0 where the
    /// mode is `PerSlice`.
    pub fn apply(&self, hu: &[f32], out: &mut [u8]) {
        let (lowest, highest) = self.range();
        let (from, to) = match self.mode {
            WindowMode::Fixed => (lowest, highest),
            WindowMode::PerSlice => hu.iter().fold((highest, lowest), |(least, most), &v| {
                let v = v.max(lowest).min(highest);
                (least.min(v), most.max(v))
            }),
        };
        let length = to - from;
        if length > 0.0 {
            for (out, &v) in out.iter_mut().zip(hu) {
                *out = ((v.max(lowest).min(highest) - from) / length * 255.0) as u8;
            }
        } else {
            out.fill(0);
        }
    }

    /// The HU at the ends of the window.
    pub fn range(&self) -> (f32, f32) {
        let half = self.width / 2.0;
        (self.level - half, self.level + half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FNV-1a over the words of the result.
    fn hash(values: &[f32]) -> u64 {
        values.iter().fold(0xcbf2_9ce4_8422_2325, |hash, value| {
            (hash ^ u64::from(value.to_bits())).wrapping_mul(0x100_0000_01b3)
        })
    }

    /// HU by a linear congruential generator, the same as in the program that made the numbers below.
    fn image(pixels: usize) -> Vec<i16> {
        let mut state = 12345_u32;
        (0..pixels)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                ((state >> 16) % 4072) as i16 - 1024
            })
            .collect()
    }

    /// Made with libtorch 2.11.0 on a CPU: `at::upsample_bilinear2d(x, {height, width}, false)`, x f32 (1, 1, rows, cols).
    #[test]
    fn resizing_is_pytorchs_bit_for_bit() {
        for (rows, cols, height, width, expected) in [
            (6, 6, 16, 16, 0xa132_b96e_5c6e_c435),
            (8, 8, 8, 8, 0xf454_dcf4_5f2a_4825),
            (1, 3, 8, 8, 0x34a6_ceea_f70e_4825),
            (128, 128, 64, 64, 0xc00d_d9d8_fc02_e725),
            (97, 83, 128, 128, 0x4e58_488d_b3a4_929a),
            (512, 512, 224, 224, 0xad90_ae37_5923_6131),
            (300, 411, 512, 512, 0x9443_f8b5_3557_64cb_u64),
        ] {
            let resize = Resize::new(PixelBox::whole(rows, cols), height, width);
            let image = image(rows * cols);
            let mut out = vec![f32::NAN; height * width];
            resize.apply(&image, cols, &mut out).unwrap();
            assert_eq!(
                hash(&out),
                expected,
                "{rows} x {cols} to {height} x {width}"
            );
            // Without the instruction for it, the same.
            resize.resize(&image, cols, &mut out);
            assert_eq!(
                hash(&out),
                expected,
                "{rows} x {cols} to {height} x {width}, portable"
            );
        }
    }

    #[test]
    fn a_crop_is_the_resize_of_the_part() {
        let (image, crop) = (
            image(10 * 12),
            PixelBox {
                x0: 3,
                y0: 2,
                x1: 9,
                y1: 9,
            },
        );
        let part: Vec<i16> = (2..9)
            .flat_map(|y| image[y * 12 + 3..y * 12 + 9].to_vec())
            .collect();
        let mut whole = vec![0.0; 25];
        let mut cropped = whole.clone();
        Resize::new(PixelBox::whole(7, 6), 5, 5)
            .apply(&part, 6, &mut whole)
            .unwrap();
        Resize::new(crop, 5, 5)
            .apply(&image, 12, &mut cropped)
            .unwrap();
        assert_eq!(whole, cropped);
    }

    #[test]
    fn a_crop_outside_is_refused_and_can_be_cut() {
        let crop = PixelBox {
            x0: 4,
            y0: 90,
            x1: 20,
            y1: 95,
        };
        let mut out = vec![0.0; 4];
        let image = image(10 * 12);
        assert!(Resize::new(crop, 2, 2).apply(&image, 12, &mut out).is_err());
        let cut = crop.within(10, 12);
        assert_eq!(
            cut,
            PixelBox {
                x0: 4,
                y0: 9,
                x1: 12,
                y1: 10
            }
        );
        assert!(Resize::new(cut, 2, 2).apply(&image, 12, &mut out).is_ok());
        assert!(
            Resize::new(cut, 3, 2).apply(&image, 12, &mut out).is_err(),
            "no room"
        );
    }

    #[test]
    fn windows_clip_and_scale() {
        let hu = [-2000.0, -500.0, 400.0, 1300.0, 3000.0];
        let mut out = [9; 5];
        let fixed = Window {
            mode: WindowMode::Fixed,
            ..Window::default()
        };
        fixed.apply(&hu, &mut out);
        assert_eq!(out, [0, 0, 127, 255, 255]);
        // Each slice's own range: 0 to 100 HU here.
        Window::default().apply(&[0.0, 25.0, 50.0, 99.9, 100.0], &mut out);
        assert_eq!(out, [0, 63, 127, 254, 255]);
        // One value: black by its own range, its place in the window by the fixed one.
        Window::default().apply(&[400.0; 5], &mut out);
        assert_eq!(out, [0; 5]);
        fixed.apply(&[400.0; 5], &mut out);
        assert_eq!(out, [127; 5]);
    }
}
