//! Reading one CT slice from a DICOM file: its place in the patient and its Hounsfield units.
//!
//! Read are uncompressed implicit, explicit and deflated little endian, and JPEG, JPEG 2000 and RLE. HU is
//! stored value * RescaleSlope + RescaleIntercept, computed here from the bits that BitsStored and PixelRepresentation
//! say are the value. A slice without rescale attributes is refused rather than taken for HU. MONOCHROME1 tells a
//! display to show low values bright; it does not change HU, so it is read like MONOCHROME2.

mod attributes;
mod codec;
mod elements;
pub mod write;

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::Path;

use self::attributes::{Attributes, COPY_AGAIN, DataSet, EXPORT_AGAIN};
use self::codec::Encapsulated;
use crate::error::{DataError, Result};
use crate::geometry::dot;
use crate::study::StudyUid;

/// What the header of a CT slice says of its place.
#[derive(Debug, Clone, PartialEq)]
pub struct SliceHeader {
    /// StudyInstanceUID.
    pub study: StudyUid,
    /// SeriesInstanceUID; empty where the file has none.
    pub series: String,
    /// SOPInstanceUID; empty where the file has none.
    pub instance: String,
    /// Number of the frame in its file, from 0.
    pub frame: usize,
    /// Whether the image is a scout view (ImageType says LOCALIZER) and not a slice of the volume.
    pub localizer: bool,
    /// InstanceNumber, where there is one. Not to be used for order.
    pub instance_number: Option<i32>,
    /// Rows (height).
    pub rows: usize,
    /// Columns (width).
    pub cols: usize,
    /// ImagePositionPatient: LPS mm of the centre of the first voxel.
    pub position: [f64; 3],
    /// ImageOrientationPatient: unit vectors along a row and along a column.
    pub orientation: [f64; 6],
    /// PixelSpacing: distance between rows, then between columns, mm.
    pub pixel_spacing: [f64; 2],
}

/// One CT slice.
#[derive(Debug, Clone, PartialEq)]
pub struct DicomSlice {
    /// Where it is.
    pub header: SliceHeader,
    /// Hounsfield units, (rows, columns), rounded to the nearest integer (half away from zero) and limited to i16.
    /// CT stores integers, so rounding only acts where RescaleSlope or RescaleIntercept is fractional.
    pub hu: Vec<i16>,
}

/// Reads what precedes the pixels, which may be damaged: one header a frame, in the order of the file.
///
/// # Errors
/// [`DataError::Io`], and [`DataError::Dicom`] naming the attribute that is missing, damaged or not supported.
pub fn read_headers(path: &Path) -> Result<Vec<SliceHeader>> {
    let beginning = read_up_to(path, HEADER_BYTES)?;
    let header = match header_from(path, &beginning) {
        // A header longer than usual, or a deflated file, which only inflates as a whole.
        Err(_) if beginning.len() == HEADER_BYTES => header_from(path, &read_whole(path)?),
        result => result,
    };
    Ok(vec![header?])
}

/// Reads the frames with these numbers, with their pixels; the file is read once.
///
/// # Errors
/// As [`read_headers`], also where the file has no such frame.
pub fn read_frames(path: &Path, frames: &[usize]) -> Result<Vec<DicomSlice>> {
    let file = read_whole(path)?;
    frames.iter().map(|_| slice_from(path, &file)).collect()
}

/// More than any single CT slice, compressed or not.
const LARGEST_FILE: usize = 256 << 20;
/// Enough for the header of nearly every CT slice.
const HEADER_BYTES: usize = 32 << 10;
/// Detectors end at 2048 columns; a side beyond this is a damaged header.
const LARGEST_SIDE: u16 = 8192;

fn read_up_to(path: &Path, limit: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit as u64).read_to_end(&mut bytes))
        .map_err(DataError::io("read", path))?;
    Ok(bytes)
}

fn read_whole(path: &Path) -> Result<Vec<u8>> {
    let bytes = read_up_to(path, LARGEST_FILE + 1)?;
    if bytes.len() > LARGEST_FILE {
        let problem = format!("is larger than {} MiB", LARGEST_FILE >> 20);
        return Err(attributes::fault(path, 0, problem, EXPORT_AGAIN));
    }
    Ok(bytes)
}

fn header_from(path: &Path, file: &[u8]) -> Result<SliceHeader> {
    let data_set = DataSet::open(path, file, LARGEST_FILE)?;
    slice_header(&Attributes::read(path, &data_set)?)
}

fn slice_from(path: &Path, file: &[u8]) -> Result<DicomSlice> {
    let data_set = DataSet::open(path, file, LARGEST_FILE)?;
    let attributes = Attributes::read(path, &data_set)?;
    let header = slice_header(&attributes)?;
    let format = PixelFormat::read(&attributes)?;
    let pixels = stored_pixels(path, &data_set, &attributes, format.bits_stored)?;
    Ok(DicomSlice {
        header,
        hu: format.to_hu(&pixels),
    })
}

fn slice_header(attributes: &Attributes<'_>) -> Result<SliceHeader> {
    use self::attributes as tag;

    let study = StudyUid::from_dicom(attributes.text(tag::STUDY_INSTANCE_UID)?).map_err(|_| {
        attributes.unusable(
            tag::STUDY_INSTANCE_UID,
            "digits and dots, at most 64 characters",
        )
    })?;
    let optional = |tag| match attributes.has(tag) {
        true => attributes.text(tag).map(str::to_owned),
        false => Ok(String::new()),
    };
    let series = optional(tag::SERIES_INSTANCE_UID)?;
    let image_type = optional(tag::IMAGE_TYPE)?;
    let [rows, cols] = [tag::ROWS, tag::COLUMNS].map(|side| match attributes.number(side)? {
        n @ 1..=LARGEST_SIDE => Ok(usize::from(n)),
        n => Err(attributes.fault(
            side,
            format!("is {n}, not 1 to {LARGEST_SIDE}"),
            EXPORT_AGAIN,
        )),
    });
    let orientation = attributes.decimals(tag::IMAGE_ORIENTATION_PATIENT)?;
    let [row, col] = directions(&orientation);
    let crooked = [dot(row, row) - 1.0, dot(col, col) - 1.0, dot(row, col)];
    if crooked.iter().any(|deviation| deviation.abs() > 0.01) {
        return Err(attributes.unusable(
            tag::IMAGE_ORIENTATION_PATIENT,
            "two perpendicular unit vectors",
        ));
    }
    let pixel_spacing: [f64; 2] = attributes.decimals(tag::PIXEL_SPACING)?;
    if pixel_spacing.iter().any(|&mm| mm <= 0.0) {
        return Err(attributes.unusable(tag::PIXEL_SPACING, "two positive lengths"));
    }
    Ok(SliceHeader {
        study,
        series,
        instance: optional(tag::SOP_INSTANCE_UID)?,
        frame: 0,
        localizer: image_type
            .split('\\')
            .any(|value| value.trim() == "LOCALIZER"),
        instance_number: attributes.integer(tag::INSTANCE_NUMBER)?,
        rows: rows?,
        cols: cols?,
        position: attributes.decimals(tag::IMAGE_POSITION_PATIENT)?,
        orientation,
        pixel_spacing,
    })
}

/// The unit vectors along a row and along a column of ImageOrientationPatient.
pub(crate) fn directions(orientation: &[f64; 6]) -> [[f64; 3]; 2] {
    let [rx, ry, rz, cx, cy, cz] = *orientation;
    [[rx, ry, rz], [cx, cy, cz]]
}

/// How Hounsfield units are stored in 16-bit words.
struct PixelFormat {
    /// Bits of a word that are the value, from the lowest: 1 to 16.
    bits_stored: u16,
    signed: bool,
    slope: f64,
    intercept: f64,
}

impl PixelFormat {
    fn read(attributes: &Attributes<'_>) -> Result<Self> {
        use self::attributes as tag;

        if attributes.has(tag::MODALITY_LUT_SEQUENCE) {
            return Err(attributes.fault(
                tag::MODALITY_LUT_SEQUENCE,
                "is present, and HU by a look-up table are not read",
                EXPORT_AGAIN,
            ));
        }
        let kind = attributes.text(tag::PHOTOMETRIC_INTERPRETATION)?;
        if !matches!(kind, "MONOCHROME1" | "MONOCHROME2") {
            return Err(attributes.unusable(tag::PHOTOMETRIC_INTERPRETATION, "monochrome"));
        }
        if let Some(frames) = attributes.integer(tag::NUMBER_OF_FRAMES)?
            && frames != 1
        {
            return Err(attributes.unusable(tag::NUMBER_OF_FRAMES, "1: one slice a file is read"));
        }
        let in_range = |tag, allowed: RangeInclusive<u16>| match attributes.number(tag)? {
            value if allowed.contains(&value) => Ok(value),
            value => Err(attributes.fault(
                tag,
                format!("is {value}, not {} to {}", allowed.start(), allowed.end()),
                EXPORT_AGAIN,
            )),
        };
        in_range(tag::SAMPLES_PER_PIXEL, 1..=1)?;
        in_range(tag::BITS_ALLOCATED, 16..=16)?;
        let bits_stored = in_range(tag::BITS_STORED, 1..=16)?;
        in_range(tag::HIGH_BIT, bits_stored - 1..=bits_stored - 1)?;
        let signed = in_range(tag::PIXEL_REPRESENTATION, 0..=1)? == 1;
        let [slope] = attributes.decimals(tag::RESCALE_SLOPE)?;
        let [intercept] = attributes.decimals(tag::RESCALE_INTERCEPT)?;
        if slope == 0.0 {
            return Err(attributes.unusable(tag::RESCALE_SLOPE, "a factor other than 0"));
        }
        Ok(Self {
            bits_stored,
            signed,
            slope,
            intercept,
        })
    }

    /// Little-endian words to HU. Bits above the stored ones are ignored, or filled with the sign.
    fn to_hu(&self, words: &[u8]) -> Vec<i16> {
        let shift = 16 - u32::from(self.bits_stored);
        let signed = self.signed;
        let stored = words.chunks_exact(2).map(|word| {
            let aligned = u16::from_le_bytes([word[0], word[1]]) << shift;
            match signed {
                true => i32::from(aligned as i16 >> shift),
                false => i32::from(aligned >> shift),
            }
        });
        let whole = self.intercept.round() == self.intercept && self.intercept.abs() <= 1e6;
        if self.slope == 1.0 && whole {
            let intercept = self.intercept as i32;
            let limit = |hu: i32| hu.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
            stored.map(|value| limit(value + intercept)).collect()
        } else {
            // A cast from float limits to the range of the integer.
            stored
                .map(|value| (f64::from(value) * self.slope + self.intercept).round() as i16)
                .collect()
        }
    }
}

/// The stored words of the slice, little endian, exactly rows * columns of them.
fn stored_pixels<'a>(
    path: &Path,
    data_set: &DataSet<'_>,
    attributes: &Attributes<'a>,
    bits_stored: u16,
) -> Result<Cow<'a, [u8]>> {
    use self::attributes as tag;

    const COPY_OR_CONVERT: &str =
        "copy the file again from its source, or convert the study to explicit VR little endian";
    let fault = |problem: String, remedy| attributes.fault(tag::PIXEL_DATA, problem, remedy);
    let damaged = |damage| attributes::damaged(path, damage);
    let Some((element, mut rest)) = attributes.pixel_data.clone() else {
        return Err(fault("is missing".into(), COPY_AGAIN));
    };
    let [rows, cols] = [
        attributes.number(tag::ROWS)?,
        attributes.number(tag::COLUMNS)?,
    ];
    let expected = usize::from(rows) * usize::from(cols) * 2;

    match element.length {
        Some(length) if data_set.is_native() => {
            let value = rest.take(tag::PIXEL_DATA, length).map_err(damaged)?;
            value
                .get(..expected)
                .map(Cow::Borrowed)
                .ok_or_else(|| fault(format!("holds {length} of {expected} bytes"), COPY_AGAIN))
        }
        None if codec::can_decode(&data_set.transfer_syntax) => {
            let fragments = rest.fragments(tag::PIXEL_DATA).map_err(damaged)?;
            let codestream = fragments.get(1..).unwrap_or_default().concat();
            codec::decode(&Encapsulated {
                transfer_syntax: &data_set.transfer_syntax,
                rows,
                cols,
                bits_stored,
                codestream,
            })
            .map(Cow::Owned)
            .map_err(|problem| fault(problem, COPY_OR_CONVERT))
        }
        _ => Err(fault(
            format!(
                "is stored in a way that is not read (transfer syntax {})",
                data_set.transfer_syntax
            ),
            "convert the study to explicit VR little endian",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(bits_stored: u16, signed: bool, slope: f64, intercept: f64) -> PixelFormat {
        PixelFormat {
            bits_stored,
            signed,
            slope,
            intercept,
        }
    }

    fn words(values: &[u16]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    #[test]
    fn only_the_stored_bits_are_the_value() {
        // 0xF801 holds the 12-bit value 0x801, and something else above it.
        assert_eq!(
            format(12, false, 1.0, -1024.0).to_hu(&words(&[0xF801])),
            [0x801 - 1024]
        );
        assert_eq!(
            format(12, true, 1.0, 0.0).to_hu(&words(&[0xF801, 0x0801])),
            [-2047, -2047]
        );
        assert_eq!(
            format(16, true, 1.0, 0.0).to_hu(&words(&[0x8000, 0x7FFF])),
            [i16::MIN, i16::MAX]
        );
    }

    #[test]
    fn hu_are_rounded_and_limited() {
        assert_eq!(
            format(16, true, 0.5, 0.25).to_hu(&words(&[1, 2, 0xFFFD])),
            [1, 1, -1]
        );
        assert_eq!(
            format(16, false, 1.0, 0.0).to_hu(&words(&[60_000])),
            [i16::MAX]
        );
        assert_eq!(
            format(16, true, 1000.0, 0.0).to_hu(&words(&[0x8000])),
            [i16::MIN]
        );
        assert_eq!(
            format(16, true, 1.0, -1e300).to_hu(&words(&[5])),
            [i16::MIN]
        );
    }
}
