//! Reading CT slices from DICOM files: their place in the patient and their Hounsfield units.
//!
//! Read are the uncompressed transfer syntaxes (implicit, explicit, big endian, deflated), RLE, JPEG (baseline,
//! extended, lossless), JPEG-LS, JPEG 2000 and HTJ2K; monochrome images of 8, 16 and 32 bits, one or several frames a
//! file. A frame's attributes come from its functional groups where the file has them (enhanced CT).
//!
//! HU is stored value * RescaleSlope + RescaleIntercept, computed here from the bits that BitsStored, HighBit and
//! PixelRepresentation say are the value. A slice without rescale attributes is refused rather than taken for HU, one with
//! a ModalityLUTSequence too. MONOCHROME1 tells a display to show low values bright; it does not change HU, so it is read
//! like MONOCHROME2. Pixels that PixelPaddingValue (to PixelPaddingRangeLimit) marks as padding are air, -1000 HU, except
//! where that value is a tissue's (between air and 3000 HU): then real pixels have it too, and it counts as any other.

mod attributes;
mod codec;
mod elements;
mod encapsulated;
mod file;
mod pixels;
mod syntax;
pub mod write;

use std::borrow::Cow;
use std::path::Path;

use self::attributes::{Attributes, COPY_AGAIN, DataSet, EXPORT_AGAIN};
use self::encapsulated::Fragments;
use self::file::DicomFile;
use self::pixels::{PixelLayout, Rescale, Words};
use self::syntax::PixelForm;
use crate::error::Result;
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
    /// Whether the image is a scout view (ImageType or FrameType says LOCALIZER) and not a slice of the volume.
    pub localizer: bool,
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

/// The stored values of an image, before any rescale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPixels {
    /// Number of frames.
    pub frames: usize,
    /// Rows (height).
    pub rows: usize,
    /// Columns (width).
    pub cols: usize,
    /// Values, (frames, rows, columns).
    pub values: Vec<i64>,
}

/// Enough for the header of nearly every CT slice.
const HEADER_BYTES: usize = 32 << 10;
/// More than nearly every single slice: such a file is read in one go.
const SLICE_BYTES: usize = 4 << 20;
/// Pixels that one call reads; more are to be read by several.
const MOST_PIXELS: usize = 1 << 28;
const MOST_STORED_VALUES: usize = 1 << 26;

/// Reads what precedes the pixels, which may be damaged: one header a frame, in the order of the file.
///
/// # Errors
/// [`crate::DataError::Io`], and [`crate::DataError::Dicom`] naming the attribute that is missing, damaged or not supported.
pub fn read_headers(path: &Path) -> Result<Vec<SliceHeader>> {
    let file = DicomFile::open(path, HEADER_BYTES)?;
    let data_set = DataSet::read(&file)?;
    (0..frames_with_places(&data_set)?)
        .map(|frame| slice_header(&data_set, frame))
        .collect()
}

/// Reads the frames with these numbers, with their pixels, in this order; the header is read once. At most 2^28 pixels.
///
/// # Errors
/// As [`read_headers`], also where the file has no such frame or more pixels are asked for.
pub fn read_frames(path: &Path, frames: &[usize]) -> Result<Vec<DicomSlice>> {
    let file = DicomFile::open(path, SLICE_BYTES)?;
    let data_set = DataSet::read(&file)?;
    let count = frames_with_places(&data_set)?;
    let common = data_set.common();
    if let Some(frame) = frames.iter().find(|&&frame| frame >= count) {
        return Err(common.fault(
            attributes::NUMBER_OF_FRAMES,
            format!("is {count}: there is no frame {frame}, counted from 0"),
            COPY_AGAIN,
        ));
    }
    let layout = PixelLayout::read(&common)?;
    within(&common, layout.pixels() * frames.len(), MOST_PIXELS)?;
    let pixel_data = PixelData::find(&file, &data_set, layout, count)?;
    frames
        .iter()
        .map(|&frame| {
            let header = slice_header(&data_set, frame)?;
            let rescale = Rescale::read(&data_set.frame(frame), layout.bits.signed)?;
            let hu = pixel_data.frame(frame)?.to_hu(&rescale);
            Ok(DicomSlice { header, hu })
        })
        .collect()
}

/// Reads the stored values of every frame of any monochrome image, a CT or not. At most 2^26 of them.
///
/// # Errors
/// As [`read_frames`], but only about the attributes that describe pixels.
pub fn read_stored(path: &Path) -> Result<StoredPixels> {
    let file = DicomFile::open(path, SLICE_BYTES)?;
    let data_set = DataSet::read(&file)?;
    let common = data_set.common();
    let layout = PixelLayout::read(&common)?;
    let frames = pixels::number_of_frames(&common)?;
    within(&common, layout.pixels() * frames, MOST_STORED_VALUES)?;
    let pixel_data = PixelData::find(&file, &data_set, layout, frames)?;
    // Not reserved before the frames are there: their number is only a claim.
    let mut values = Vec::new();
    for frame in 0..frames {
        let stored = pixel_data.frame(frame)?.to_stored();
        values.reserve_exact(layout.pixels() * if frame == 0 { frames } else { 0 });
        values.extend_from_slice(&stored);
    }
    Ok(StoredPixels {
        frames,
        rows: layout.rows,
        cols: layout.cols,
        values,
    })
}

fn within(attributes: &Attributes<'_>, pixels: usize, most: usize) -> Result<()> {
    match pixels <= most {
        true => Ok(()),
        false => Err(attributes.fault(
            attributes::PIXEL_DATA,
            format!("would give {pixels} pixels at once, which is more than {most}"),
            "read fewer frames at a time",
        )),
    }
}

/// The number of frames, each of which has a place of its own.
fn frames_with_places(data_set: &DataSet<'_>) -> Result<usize> {
    let attributes = data_set.common();
    let frames = pixels::number_of_frames(&attributes)?;
    let places = data_set.grouped_frames();
    if frames > 1 && places == 0 {
        return Err(attributes.fault(
            attributes::NUMBER_OF_FRAMES,
            format!(
                "is {frames}, and no PerFrameFunctionalGroupsSequence gives each frame a place"
            ),
            EXPORT_AGAIN,
        ));
    }
    if places > 0 && places != frames {
        return Err(attributes.fault(
            attributes::PER_FRAME_FUNCTIONAL_GROUPS,
            format!("has {places} items where there are {frames} frames"),
            COPY_AGAIN,
        ));
    }
    Ok(frames)
}

fn slice_header(data_set: &DataSet<'_>, frame: usize) -> Result<SliceHeader> {
    use self::attributes as tag;

    let attributes = data_set.frame(frame);
    let study = StudyUid::from_dicom(attributes.text(tag::STUDY_INSTANCE_UID)?).map_err(|_| {
        attributes.unusable(
            tag::STUDY_INSTANCE_UID,
            "digits and dots, at most 64 characters",
        )
    })?;
    let [rows, cols] = pixels::size(&attributes)?;
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
    let types = |tag| match attributes.has(tag) {
        true => attributes.text(tag),
        false => Ok(""),
    };
    let types = [types(tag::IMAGE_TYPE)?, types(tag::FRAME_TYPE)?];
    Ok(SliceHeader {
        study,
        series: attributes.identifier(tag::SERIES_INSTANCE_UID)?,
        instance: attributes.identifier(tag::SOP_INSTANCE_UID)?,
        frame,
        localizer: types
            .iter()
            .flat_map(|values| values.split('\\'))
            .any(|value| value.trim() == "LOCALIZER"),
        rows,
        cols,
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

/// The frames of PixelData, each decoded when it is asked for.
struct PixelData<'a> {
    file: &'a DicomFile,
    attributes: Attributes<'a>,
    layout: PixelLayout,
    stored: Stored<'a>,
}

enum Stored<'a> {
    /// Frame after frame, from here of the data set on; where words of one byte are swapped in pairs (VR OW in big
    /// endian, PS3.5, 8.1.1), it says so.
    Native {
        at: u64,
        swapped: bool,
    },
    Fragments(Fragments<'a>),
}

impl<'a> PixelData<'a> {
    fn find(
        file: &'a DicomFile,
        data_set: &'a DataSet<'a>,
        layout: PixelLayout,
        frames: usize,
    ) -> Result<Self> {
        let attributes = data_set.common();
        let fault =
            |problem: String, remedy| attributes.fault(attributes::PIXEL_DATA, problem, remedy);
        let Some((element, at)) = data_set.pixel_data else {
            return Err(fault("is missing".into(), COPY_AGAIN));
        };
        let stored = match (file.syntax.form, element.length) {
            (PixelForm::Native, Some(length)) => {
                let expected = layout.frame_bytes() * frames;
                file.check_held(at, length)?;
                if length < expected {
                    let problem = format!("holds {length} of {expected} bytes");
                    return Err(fault(problem, COPY_AGAIN));
                }
                Stored::Native {
                    at,
                    swapped: layout.width == 1
                        && file.syntax.encoding.big_endian
                        && element.vr == Some(*b"OW"),
                }
            }
            (PixelForm::Native | PixelForm::Unknown, _) | (_, Some(_)) => {
                let problem = format!(
                    "is stored in a way that is not read (transfer syntax {})",
                    file.transfer_syntax
                );
                return Err(fault(
                    problem,
                    "convert the study to explicit VR little endian",
                ));
            }
            (_, None) => Stored::Fragments(Fragments::find(file, &attributes, at, frames)?),
        };
        Ok(Self {
            file,
            attributes,
            layout,
            stored,
        })
    }

    /// The words of the frame with this number, which is below the number of frames.
    fn frame(&self, frame: usize) -> Result<Words<'a>> {
        const COPY_OR_CONVERT: &str = "copy the file again from its source, or convert the study to explicit VR little endian";
        let file = self.file;
        let native = |bytes| Words {
            bytes,
            width: self.layout.width,
            big_endian: file.syntax.encoding.big_endian,
            bits: self.layout.bits,
        };
        let length = self.layout.frame_bytes();
        let fragments = match &self.stored {
            Stored::Native { at, swapped } => {
                let start = frame * length;
                if !swapped {
                    let bytes = file.pixel_bytes(at + start as u64, length)?;
                    return Ok(native(bytes));
                }
                let even = start & !1;
                let pairs = (start + length).next_multiple_of(2) - even;
                let mut bytes = file.pixel_bytes(at + even as u64, pairs)?.into_owned();
                bytes
                    .as_chunks_mut::<2>()
                    .0
                    .iter_mut()
                    .for_each(|pair| pair.reverse());
                bytes.drain(..start - even);
                bytes.truncate(length);
                return Ok(native(bytes.into()));
            }
            Stored::Fragments(fragments) => fragments,
        };
        let encoded = fragments.frame(frame)?;
        let words = match file.syntax.form {
            PixelForm::NativeFragments => match encoded.get(..length) {
                Some(bytes) => Ok(native(Cow::Owned(bytes.to_vec()))),
                None => Err(format!("holds {} of {length} bytes", encoded.len())),
            },
            PixelForm::Rle => codec::decode_rle(&encoded, &self.layout),
            _ => codec::decode_codestream(&encoded, &self.layout),
        };
        words.map_err(|problem| {
            self.attributes
                .fault(attributes::PIXEL_DATA, problem, COPY_OR_CONVERT)
        })
    }
}
