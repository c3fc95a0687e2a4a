//! What the words of an image mean: which of their bits are the stored value, and what HU it stands for (PS3.5,
//! section 8; PS3.3, C.7.6.3, C.7.5.1.1.2 and C.11.1).

use std::borrow::Cow;
use std::ops::RangeInclusive;

use super::attributes::{self as tag, Attributes, EXPORT_AGAIN};
use crate::error::Result;

/// HU of pixels outside the field of view, where the file marks them.
pub(crate) const AIR: i16 = -1000;
/// Padding is taken for air where its HU is none of a body's: not above air, or at least this.
const DENSER_THAN_BONE: f64 = 3000.0;
/// A side beyond this is a damaged header: detectors end at 2048 columns, stitched radiographs at some 8000.
const LARGEST_SIDE: u16 = 8192;
/// Pixels of one frame; bounds what a decompressor is made to allocate.
const LARGEST_FRAME: usize = 1 << 24;

/// Rows and columns.
///
/// # Errors
/// Where one is missing, 0 or beyond what any CT has.
pub(crate) fn size(attributes: &Attributes<'_>) -> Result<[usize; 2]> {
    let side = |side| match attributes.number(side)? {
        n @ 1..=LARGEST_SIDE => Ok(usize::from(n)),
        n => Err(attributes.fault(
            side,
            format!("is {n}, not 1 to {LARGEST_SIDE}"),
            EXPORT_AGAIN,
        )),
    };
    let [rows, cols] = [side(tag::ROWS)?, side(tag::COLUMNS)?];
    if rows * cols > LARGEST_FRAME {
        let problem =
            format!("is {rows} with {cols} columns: an image beyond {LARGEST_FRAME} pixels");
        return Err(attributes.fault(tag::ROWS, problem, EXPORT_AGAIN));
    }
    Ok([rows, cols])
}

/// NumberOfFrames, which single-frame files may lack and some writers leave at 0.
///
/// # Errors
/// Where it is no number, or beyond what any scanner writes.
pub(crate) fn number_of_frames(attributes: &Attributes<'_>) -> Result<usize> {
    match attributes.integer(tag::NUMBER_OF_FRAMES)?.unwrap_or(1) {
        0 => Ok(1),
        frames => usize::try_from(frames)
            .ok()
            .filter(|&frames| frames <= tag::MOST_FRAMES)
            .ok_or_else(|| {
                attributes.unusable(tag::NUMBER_OF_FRAMES, &format!("1 to {}", tag::MOST_FRAMES))
            }),
    }
}

/// Which bits of a word are the stored value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bits {
    /// How many.
    pub(crate) stored: u32,
    /// The highest of them, counted from 0.
    pub(crate) high: u32,
    pub(crate) signed: bool,
}

/// How the frames of a monochrome image are stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PixelLayout {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Bytes of a native word: 1, 2 or 4.
    pub(crate) width: usize,
    pub(crate) bits: Bits,
}

impl PixelLayout {
    pub(crate) fn read(attributes: &Attributes<'_>) -> Result<Self> {
        let kind = attributes.text(tag::PHOTOMETRIC_INTERPRETATION)?;
        if !matches!(kind, "MONOCHROME1" | "MONOCHROME2") {
            return Err(attributes.unusable(tag::PHOTOMETRIC_INTERPRETATION, "monochrome"));
        }
        let [rows, cols] = size(attributes)?;
        let in_range = |tag, allowed: RangeInclusive<u16>| match attributes.number(tag)? {
            value if allowed.contains(&value) => Ok(value),
            value => Err(attributes.fault(
                tag,
                format!("is {value}, not {} to {}", allowed.start(), allowed.end()),
                EXPORT_AGAIN,
            )),
        };
        in_range(tag::SAMPLES_PER_PIXEL, 1..=1)?;
        let allocated = attributes.number(tag::BITS_ALLOCATED)?;
        if !matches!(allocated, 8 | 16 | 32) {
            let problem = format!("is {allocated}, not 8, 16 or 32");
            return Err(attributes.fault(tag::BITS_ALLOCATED, problem, EXPORT_AGAIN));
        }
        let stored = attributes.number(tag::BITS_STORED)?;
        if !(1..=allocated).contains(&stored) {
            let problem = format!("is {stored} where BitsAllocated is {allocated}");
            return Err(attributes.fault(tag::BITS_STORED, problem, EXPORT_AGAIN));
        }
        // Since 2004 the standard allows only one value.
        let high = match attributes.has(tag::HIGH_BIT) {
            true => in_range(tag::HIGH_BIT, stored - 1..=allocated - 1)?,
            false => stored - 1,
        };
        Ok(Self {
            rows,
            cols,
            width: usize::from(allocated / 8),
            bits: Bits {
                stored: stored.into(),
                high: high.into(),
                signed: in_range(tag::PIXEL_REPRESENTATION, 0..=1)? == 1,
            },
        })
    }

    /// Pixels of a frame.
    pub(crate) fn pixels(&self) -> usize {
        self.rows * self.cols
    }

    /// Bytes of a native frame.
    pub(crate) fn frame_bytes(&self) -> usize {
        self.pixels() * self.width
    }
}

/// How stored values become HU.
#[derive(Debug, Clone)]
pub(crate) struct Rescale {
    pub(crate) slope: f64,
    pub(crate) intercept: f64,
    /// Stored values that mark pixels without a measurement.
    pub(crate) padding: Option<RangeInclusive<i32>>,
}

impl Rescale {
    pub(crate) fn read(attributes: &Attributes<'_>, signed: bool) -> Result<Self> {
        if attributes.has(tag::MODALITY_LUT_SEQUENCE) {
            return Err(attributes.fault(
                tag::MODALITY_LUT_SEQUENCE,
                "is present, and HU by a look-up table are not read",
                EXPORT_AGAIN,
            ));
        }
        for (tag, allowed, expected) in [
            (tag::MODALITY, &["CT", ""][..], "CT"),
            // US is "unspecified".
            (tag::RESCALE_TYPE, &["HU", "US", ""], "HU"),
        ] {
            if attributes.has(tag) && !allowed.contains(&attributes.text(tag)?) {
                return Err(attributes.unusable(tag, expected));
            }
        }
        let [slope] = attributes.decimals(tag::RESCALE_SLOPE)?;
        let [intercept] = attributes.decimals(tag::RESCALE_INTERCEPT)?;
        if slope == 0.0 {
            return Err(attributes.unusable(tag::RESCALE_SLOPE, "a factor other than 0"));
        }
        let mut rescale = Self {
            slope,
            intercept,
            padding: None,
        };
        // VR US or SS, whichever PixelRepresentation says; writers mix them up, so the bits count.
        let value = |tag| match attributes.bytes(tag) {
            None => Ok(None),
            Some(_) => attributes.number(tag).map(|word| match signed {
                true => Some(i32::from(word as i16)),
                false => Some(i32::from(word)),
            }),
        };
        if let Some(padding) = value(tag::PIXEL_PADDING_VALUE)? {
            let limit = value(tag::PIXEL_PADDING_RANGE_LIMIT)?.unwrap_or(padding);
            let range = padding.min(limit)..=padding.max(limit);
            let ends = [padding, limit].map(|end| f64::from(end) * slope + intercept);
            // Some writers name 0 where that is water, or any other tissue: then nothing is known of those pixels.
            if ends.iter().all(|&hu| hu <= f64::from(AIR))
                || ends.iter().all(|&hu| hu >= DENSER_THAN_BONE)
            {
                rescale.padding = Some(range);
            }
        }
        Ok(rescale)
    }
}

/// The words of one frame.
pub(crate) struct Words<'a> {
    pub(crate) bytes: Cow<'a, [u8]>,
    /// Bytes of a word: 1, 2 or 4.
    pub(crate) width: usize,
    pub(crate) big_endian: bool,
    pub(crate) bits: Bits,
}

impl Words<'_> {
    /// HU, rounded to the nearest integer (half away from zero) and limited to i16; padding becomes air.
    pub(crate) fn to_hu(&self, rescale: &Rescale) -> Vec<i16> {
        // Half away from zero; `round` would be a call for each pixel. A cast limits to the range of the integer.
        let (slope, shift) = (rescale.slope, rescale.intercept);
        let by_float = move |value: f64| {
            let hu = value * slope + shift;
            (hu + 0.5_f64.copysign(hu)) as i16
        };
        let whole =
            rescale.intercept.round() == rescale.intercept && rescale.intercept.abs() <= 1e6;
        let limit = move |hu: i32| hu.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
        let intercept = rescale.intercept as i32;
        let padding = rescale.padding.clone();
        // Each arm is a loop of its own, without branches.
        match (padding, rescale.slope == 1.0 && whole && self.width < 4) {
            (None, true) => self.map(move |value| limit(value + intercept)),
            (Some(padding), true) => {
                let [first, last] = [*padding.start(), *padding.end()];
                self.map(move |value| match first <= value && value <= last {
                    true => AIR,
                    false => limit(value + intercept),
                })
            }
            (None, false) => self.map_wide(move |value| by_float(value as f64)),
            (Some(padding), false) => {
                let [first, last] = [*padding.start(), *padding.end()].map(i64::from);
                self.map_wide(move |value| match first <= value && value <= last {
                    true => AIR,
                    false => by_float(value as f64),
                })
            }
        }
    }

    /// The stored values.
    pub(crate) fn to_stored(&self) -> Vec<i64> {
        self.map_wide(move |value| value)
    }

    fn map_wide<T: Copy + Default>(&self, then: impl Fn(i64) -> T + Copy) -> Vec<T> {
        if self.width < 4 {
            return self.map(move |value| then(value.into()));
        }
        let bits = self.bits;
        let value = move |word: u32| {
            let aligned = word << (31 - bits.high);
            then(match bits.signed {
                true => i64::from(aligned as i32 >> (32 - bits.stored)),
                false => i64::from(aligned >> (32 - bits.stored)),
            })
        };
        let words = self.bytes.as_chunks().0;
        let mut values = vec![T::default(); words.len()];
        match self.big_endian {
            true => convert(&mut values, words, u32::from_be_bytes, value),
            false => convert(&mut values, words, u32::from_le_bytes, value),
        }
        values
    }

    /// For words of one or two bytes: the stored bits are moved to the top of 32, and back with or without their sign.
    fn map<T: Copy + Default>(&self, then: impl Fn(i32) -> T + Copy) -> Vec<T> {
        let (up, down) = (31 - self.bits.high, 32 - self.bits.stored);
        let signed = move |word: u32| then((word << up) as i32 >> down);
        let unsigned = move |word: u32| then(((word << up) >> down) as i32);
        let little = |pair| u32::from(u16::from_le_bytes(pair));
        let big = |pair| u32::from(u16::from_be_bytes(pair));
        let byte = |[byte]: [u8; 1]| u32::from(byte);
        let (single, pairs) = (self.bytes.as_chunks().0, self.bytes.as_chunks().0);
        let mut values = vec![T::default(); self.bytes.len() / self.width];
        match (self.width, self.big_endian, self.bits.signed) {
            (1, _, true) => convert(&mut values, single, byte, signed),
            (1, _, false) => convert(&mut values, single, byte, unsigned),
            (_, false, true) => convert(&mut values, pairs, little, signed),
            (_, false, false) => convert(&mut values, pairs, little, unsigned),
            (_, true, true) => convert(&mut values, pairs, big, signed),
            (_, true, false) => convert(&mut values, pairs, big, unsigned),
        }
        values
    }
}

/// A loop over two slices, which the compiler vectorises; one that collects from closures it does not.
#[inline]
fn convert<const N: usize, W, T>(
    values: &mut [T],
    words: &[[u8; N]],
    order: impl Fn([u8; N]) -> W,
    then: impl Fn(W) -> T,
) {
    for (value, word) in values.iter_mut().zip(words) {
        *value = then(order(*word));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(values: &[u16], stored: u32, signed: bool) -> Words<'static> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Words {
            bytes: bytes.into(),
            width: 2,
            big_endian: false,
            bits: Bits {
                stored,
                high: stored - 1,
                signed,
            },
        }
    }

    fn rescale(slope: f64, intercept: f64) -> Rescale {
        Rescale {
            slope,
            intercept,
            padding: None,
        }
    }

    #[test]
    fn only_the_stored_bits_are_the_value() {
        // 0xF801 holds the 12-bit value 0x801, and something else above it.
        assert_eq!(words(&[0xF801], 12, false).to_stored(), [0x801]);
        assert_eq!(
            words(&[0xF801, 0x0801], 12, true).to_stored(),
            [-2047, -2047]
        );
        assert_eq!(
            words(&[0x8000, 0x7FFF], 16, true).to_hu(&rescale(1.0, 0.0)),
            [i16::MIN, i16::MAX]
        );
        let mut high = words(&[0x801F], 12, true);
        high.bits.high = 15;
        assert_eq!(high.to_stored(), [-2047]);
    }

    #[test]
    fn every_width_and_order_holds_the_same_value() {
        let bits = |signed| Bits {
            stored: 8,
            high: 7,
            signed,
        };
        for signed in [true, false] {
            for (width, big_endian, bytes) in [
                (1, false, &[0xFE][..]),
                (2, false, &[0xFE, 0xAA]),
                (2, true, &[0xAA, 0xFE]),
                (4, false, &[0xFE, 0xAA, 0xAA, 0xAA]),
                (4, true, &[0xAA, 0xAA, 0xAA, 0xFE]),
            ] {
                let words = Words {
                    bytes: bytes.into(),
                    width,
                    big_endian,
                    bits: bits(signed),
                };
                let value = if signed { -2 } else { 254 };
                assert_eq!(words.to_stored(), [value]);
                assert_eq!(
                    words.to_hu(&rescale(1.0, -24.0)),
                    [value as i16 - 24],
                    "{width} {big_endian}"
                );
                assert_eq!(words.to_hu(&rescale(0.5, 0.0)), [value as i16 / 2]);
            }
        }
    }

    #[test]
    fn hu_are_rounded_and_limited() {
        let hu = |word: u16, slope, intercept| {
            words(&[word], 16, true).to_hu(&rescale(slope, intercept))[0]
        };
        assert_eq!(
            words(&[1, 2, 0xFFFD], 16, true).to_hu(&rescale(0.5, 0.25)),
            [1, 1, -1]
        );
        assert_eq!(
            words(&[60_000], 16, false).to_hu(&rescale(1.0, 0.0)),
            [i16::MAX]
        );
        assert_eq!(hu(0x8000, 1000.0, 0.0), i16::MIN);
        assert_eq!(hu(5, 1.0, -1e300), i16::MIN);
    }

    #[test]
    fn padding_is_air() {
        let padded = |slope, range| Rescale {
            slope,
            intercept: -1024.0,
            padding: Some(range),
        };
        let words = words(&[0xF830, 0xF831, 24, 1064], 16, true);
        assert_eq!(
            words.to_hu(&padded(1.0, -2000..=-2000)),
            [AIR, -3023, -1000, 40]
        );
        assert_eq!(
            words.to_hu(&padded(2.0, -2000..=-1999)),
            [AIR, AIR, -976, 1104]
        );
    }
}
