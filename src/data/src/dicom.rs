//! Reading one CT slice from a DICOM file: its place in the patient and its Hounsfield units.
//!
//! Read are uncompressed implicit, explicit and deflated little endian, and JPEG, JPEG 2000 and RLE. HU is
//! stored value * RescaleSlope + RescaleIntercept, computed here from the bits that BitsStored and PixelRepresentation
//! say are the value. A slice without rescale attributes is refused rather than taken for HU. MONOCHROME1 tells a
//! display to show low values bright; it does not change HU, so it is read like MONOCHROME2.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::dicom_codec::{self, Encapsulated};
use crate::dicom_elements::{Damage, Elements, Header, Tag};
use crate::error::{DataError, Result, excerpt};
use crate::geometry::dot;
use crate::study::StudyUid;

/// What the header of a CT slice says of its place.
#[derive(Debug, Clone, PartialEq)]
pub struct SliceHeader {
    /// StudyInstanceUID.
    pub study: StudyUid,
    /// SeriesInstanceUID.
    pub series: String,
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
    /// CT stores integers, so rounding only acts where RescaleSlope is fractional.
    pub hu: Vec<i16>,
}

/// Reads a slice with its pixels.
///
/// # Errors
/// [`DataError::Io`], and [`DataError::Dicom`] naming the attribute that is missing, damaged or not supported.
pub fn read_slice(path: &Path) -> Result<DicomSlice> {
    let bytes = read_up_to(path, LARGEST_FILE)?;
    let file = DicomFile { path, bytes: &bytes };
    file.refuse_if_over(LARGEST_FILE)?;
    file.slice()
}

/// Reads only what precedes the pixels; the pixels may be damaged.
///
/// # Errors
/// As [`read_slice`].
pub fn read_slice_header(path: &Path) -> Result<SliceHeader> {
    let bytes = read_up_to(path, HEADER_BYTES)?;
    let whole_file = bytes.len() < HEADER_BYTES;
    match (DicomFile { path, bytes: &bytes }).header() {
        // A header longer than usual, or a deflated file, which is only readable in one piece.
        Err(_) if !whole_file => {
            let bytes = read_up_to(path, LARGEST_FILE)?;
            let file = DicomFile { path, bytes: &bytes };
            file.refuse_if_over(LARGEST_FILE)?;
            file.header()
        }
        result => result,
    }
}

/// More than the largest single CT slice by far.
const LARGEST_FILE: usize = 256 << 20;
/// Enough for the header of nearly every CT slice.
const HEADER_BYTES: usize = 32 << 10;
/// Detectors end at 2048 columns.
const LARGEST_SIDE: u16 = 8192;

fn read_up_to(path: &Path, limit: usize) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(DataError::io("open", path))?;
    let size = file.metadata().map_err(DataError::io("read", path))?.len();
    let mut bytes = Vec::with_capacity((size as usize).min(limit));
    file.take(limit as u64)
        .read_to_end(&mut bytes)
        .map_err(DataError::io("read", path))?;
    Ok(bytes)
}

const COPY_AGAIN: &str = "copy the file again from its source";
const EXPORT_AGAIN: &str = "export the study again as CT images, or leave it out";

const IMPLICIT_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2";
const EXPLICIT_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2.1";
const DEFLATED_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2.1.99";

const TRANSFER_SYNTAX_UID: Tag = 0x0002_0010;
const STUDY_INSTANCE_UID: Tag = 0x0020_000D;
const SERIES_INSTANCE_UID: Tag = 0x0020_000E;
const INSTANCE_NUMBER: Tag = 0x0020_0013;
const IMAGE_POSITION_PATIENT: Tag = 0x0020_0032;
const IMAGE_ORIENTATION_PATIENT: Tag = 0x0020_0037;
const SAMPLES_PER_PIXEL: Tag = 0x0028_0002;
const PHOTOMETRIC_INTERPRETATION: Tag = 0x0028_0004;
const NUMBER_OF_FRAMES: Tag = 0x0028_0008;
const ROWS: Tag = 0x0028_0010;
const COLUMNS: Tag = 0x0028_0011;
const PIXEL_SPACING: Tag = 0x0028_0030;
const BITS_ALLOCATED: Tag = 0x0028_0100;
const BITS_STORED: Tag = 0x0028_0101;
const HIGH_BIT: Tag = 0x0028_0102;
const PIXEL_REPRESENTATION: Tag = 0x0028_0103;
const RESCALE_INTERCEPT: Tag = 0x0028_1052;
const RESCALE_SLOPE: Tag = 0x0028_1053;
const MODALITY_LUT_SEQUENCE: Tag = 0x0028_3000;
const PIXEL_DATA: Tag = 0x7FE0_0010;

/// Keywords of the attributes above (DICOM PS3.6).
fn keyword(tag: Tag) -> &'static str {
    match tag {
        TRANSFER_SYNTAX_UID => "TransferSyntaxUID",
        STUDY_INSTANCE_UID => "StudyInstanceUID",
        SERIES_INSTANCE_UID => "SeriesInstanceUID",
        INSTANCE_NUMBER => "InstanceNumber",
        IMAGE_POSITION_PATIENT => "ImagePositionPatient",
        IMAGE_ORIENTATION_PATIENT => "ImageOrientationPatient",
        SAMPLES_PER_PIXEL => "SamplesPerPixel",
        PHOTOMETRIC_INTERPRETATION => "PhotometricInterpretation",
        NUMBER_OF_FRAMES => "NumberOfFrames",
        ROWS => "Rows",
        COLUMNS => "Columns",
        PIXEL_SPACING => "PixelSpacing",
        BITS_ALLOCATED => "BitsAllocated",
        BITS_STORED => "BitsStored",
        HIGH_BIT => "HighBit",
        PIXEL_REPRESENTATION => "PixelRepresentation",
        RESCALE_INTERCEPT => "RescaleIntercept",
        RESCALE_SLOPE => "RescaleSlope",
        MODALITY_LUT_SEQUENCE => "ModalityLUTSequence",
        PIXEL_DATA => "PixelData",
        _ => "an attribute",
    }
}

/// The bytes of a file, or its first ones, and its name for messages.
#[derive(Clone, Copy)]
struct DicomFile<'a> {
    path: &'a Path,
    bytes: &'a [u8],
}

/// How pixels are stored.
struct PixelFormat {
    bits_stored: u16,
    signed: bool,
    slope: f64,
    intercept: f64,
}

impl DicomFile<'_> {
    fn header(self) -> Result<SliceHeader> {
        self.with_data_set(|syntax, data| {
            let (attributes, _) = self.attributes(syntax, data)?;
            self.slice_header(&attributes)
        })
    }

    fn slice(self) -> Result<DicomSlice> {
        self.with_data_set(|syntax, data| {
            let (attributes, rest) = self.attributes(syntax, data)?;
            let header = self.slice_header(&attributes)?;
            let format = self.pixel_format(&attributes)?;
            let hu = match rest {
                None => return Err(self.fault(PIXEL_DATA, "is missing", COPY_AGAIN)),
                Some((PixelElement { length: Some(length), .. }, elements)) => {
                    let pixels = self.native_pixels(elements.rest(), length, &header)?;
                    format.to_hu(pixels)
                }
                Some((PixelElement { header: element }, elements)) => {
                    todo!()
                }
            };
            Ok(DicomSlice { header, hu })
        })
    }
}
