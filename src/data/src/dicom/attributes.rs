//! The attributes of a DICOM file that place and scale a CT slice, found, checked for form and named in errors.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use flate2::read::DeflateDecoder;

use super::elements::{Damage, Elements, Header, Tag};
use crate::error::{DataError, Result, excerpt};

const TRANSFER_SYNTAX_UID: Tag = 0x0002_0010;
pub(crate) const IMAGE_TYPE: Tag = 0x0008_0008;
pub(crate) const SOP_INSTANCE_UID: Tag = 0x0008_0018;
pub(crate) const STUDY_INSTANCE_UID: Tag = 0x0020_000D;
pub(crate) const SERIES_INSTANCE_UID: Tag = 0x0020_000E;
pub(crate) const INSTANCE_NUMBER: Tag = 0x0020_0013;
pub(crate) const IMAGE_POSITION_PATIENT: Tag = 0x0020_0032;
pub(crate) const IMAGE_ORIENTATION_PATIENT: Tag = 0x0020_0037;
pub(crate) const SAMPLES_PER_PIXEL: Tag = 0x0028_0002;
pub(crate) const PHOTOMETRIC_INTERPRETATION: Tag = 0x0028_0004;
pub(crate) const NUMBER_OF_FRAMES: Tag = 0x0028_0008;
pub(crate) const ROWS: Tag = 0x0028_0010;
pub(crate) const COLUMNS: Tag = 0x0028_0011;
pub(crate) const PIXEL_SPACING: Tag = 0x0028_0030;
pub(crate) const BITS_ALLOCATED: Tag = 0x0028_0100;
pub(crate) const BITS_STORED: Tag = 0x0028_0101;
pub(crate) const HIGH_BIT: Tag = 0x0028_0102;
pub(crate) const PIXEL_REPRESENTATION: Tag = 0x0028_0103;
pub(crate) const RESCALE_INTERCEPT: Tag = 0x0028_1052;
pub(crate) const RESCALE_SLOPE: Tag = 0x0028_1053;
pub(crate) const MODALITY_LUT_SEQUENCE: Tag = 0x0028_3000;
pub(crate) const PIXEL_DATA: Tag = 0x7FE0_0010;

pub(crate) const COPY_AGAIN: &str = "copy the file again from its source";
pub(crate) const EXPORT_AGAIN: &str = "export the study again as CT images, or leave it out";

const IMPLICIT_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2";
const EXPLICIT_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2.1";
const DEFLATED_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2.1.99";
const EXPLICIT_BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";

/// The keyword (DICOM PS3.6) of an attribute that is read; `None` for the others, whose values are never looked at.
fn keyword(tag: Tag) -> Option<&'static str> {
    Some(match tag {
        TRANSFER_SYNTAX_UID => "TransferSyntaxUID",
        IMAGE_TYPE => "ImageType",
        SOP_INSTANCE_UID => "SOPInstanceUID",
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
        _ => return None,
    })
}

/// An error about the attribute `tag` of the file `path`.
pub(crate) fn fault(
    path: &Path,
    tag: Tag,
    problem: impl Into<String>,
    remedy: &'static str,
) -> DataError {
    DataError::Dicom {
        path: path.to_path_buf(),
        attribute: keyword(tag).unwrap_or("the data set"),
        problem: problem.into(),
        remedy,
    }
}

/// What stopped the reading of elements, as an error about the file `path`.
pub(crate) fn damaged(path: &Path, damage: Damage) -> DataError {
    match damage {
        Damage::Truncated { tag, held, needed } if keyword(tag).is_some() => fault(
            path,
            tag,
            format!("holds {held} of {needed} bytes: the file is cut short"),
            COPY_AGAIN,
        ),
        Damage::Truncated { tag, held, needed } => fault(
            path,
            tag,
            format!(
                "ends in element ({:04X},{:04X}), after {held} of {needed} bytes: the file is cut short",
                tag >> 16,
                tag & 0xFFFF
            ),
            COPY_AGAIN,
        ),
        Damage::Malformed { offset } => fault(
            path,
            0,
            format!("has no element where one should be, at byte {offset}"),
            COPY_AGAIN,
        ),
    }
}

/// A file after its meta group: the data set's bytes and how they are to be read.
pub(crate) struct DataSet<'a> {
    pub(crate) transfer_syntax: String,
    bytes: Cow<'a, [u8]>,
}

impl<'a> DataSet<'a> {
    /// Takes the beginning off `file`: the preamble, where there is one, and the file-meta group.
    pub(crate) fn open(path: &Path, file: &'a [u8], largest: usize) -> Result<Self> {
        const NOT_DICOM: &str =
            "put only DICOM files with a file-meta group under the name <n>.dcm";
        let after_preamble = match file.get(128..132) {
            Some(b"DICM") => file.get(132..).unwrap_or_default(),
            _ => file,
        };
        let mut meta = Elements::new(after_preamble, true);
        let mut transfer_syntax = None;
        while meta.peek_tag().is_some_and(|tag| tag >> 16 == 0x0002) {
            let header = meta.header().map_err(|damage| damaged(path, damage))?;
            let Some(header) = header else { break };
            match header.length {
                Some(length) => {
                    let value = meta
                        .take(header.tag, length)
                        .map_err(|damage| damaged(path, damage))?;
                    if header.tag == TRANSFER_SYNTAX_UID {
                        transfer_syntax = Some(text(value).unwrap_or_default().to_owned());
                    }
                }
                None => break,
            }
        }
        let transfer_syntax = transfer_syntax
            .ok_or_else(|| fault(path, TRANSFER_SYNTAX_UID, "is missing", NOT_DICOM))?;
        if transfer_syntax == EXPLICIT_BIG_ENDIAN {
            return Err(fault(
                path,
                TRANSFER_SYNTAX_UID,
                "is explicit VR big endian, which is retired and not read",
                "convert the study to explicit VR little endian",
            ));
        }
        let bytes = if transfer_syntax == DEFLATED_LITTLE_ENDIAN {
            let mut inflated = Vec::new();
            DeflateDecoder::new(meta.rest())
                .take(largest as u64)
                .read_to_end(&mut inflated)
                .map_err(|error| {
                    fault(path, 0, format!("cannot be inflated: {error}"), COPY_AGAIN)
                })?;
            Cow::Owned(inflated)
        } else {
            Cow::Borrowed(meta.rest())
        };
        Ok(Self {
            transfer_syntax,
            bytes,
        })
    }

    /// Whether pixels are stored as they are, without fragments.
    pub(crate) fn is_native(&self) -> bool {
        matches!(
            self.transfer_syntax.as_str(),
            IMPLICIT_LITTLE_ENDIAN | EXPLICIT_LITTLE_ENDIAN | DEFLATED_LITTLE_ENDIAN
        )
    }
}

/// The values of the attributes that are read, and where the pixels begin.
pub(crate) struct Attributes<'a> {
    path: &'a Path,
    values: BTreeMap<Tag, &'a [u8]>,
    /// The header of PixelData and what follows it; `None` where the data set ends before.
    pub(crate) pixel_data: Option<(Header, Elements<'a>)>,
}

impl<'a> Attributes<'a> {
    /// Reads the elements of `data_set` up to PixelData.
    pub(crate) fn read(path: &'a Path, data_set: &'a DataSet<'_>) -> Result<Self> {
        let explicit = data_set.transfer_syntax != IMPLICIT_LITTLE_ENDIAN;
        let mut elements = Elements::new(&data_set.bytes, explicit);
        let mut values = BTreeMap::new();
        let mut pixel_data = None;
        let mut read = || -> std::result::Result<(), Damage> {
            while let Some(header) = elements.header()? {
                match header.length {
                    _ if header.tag == PIXEL_DATA => {
                        pixel_data = Some((header, elements.clone()));
                        return Ok(());
                    }
                    Some(length) if keyword(header.tag).is_some() => {
                        values.insert(header.tag, elements.take(header.tag, length)?);
                    }
                    _ => {
                        elements.skip(header)?;
                        if keyword(header.tag).is_some() {
                            values.insert(header.tag, &[]);
                        }
                    }
                }
            }
            Ok(())
        };
        read().map_err(|damage| damaged(path, damage))?;
        Ok(Self {
            path,
            values,
            pixel_data,
        })
    }

    pub(crate) fn has(&self, tag: Tag) -> bool {
        self.values.contains_key(&tag)
    }

    /// An error about the attribute `tag`.
    pub(crate) fn fault(
        &self,
        tag: Tag,
        problem: impl Into<String>,
        remedy: &'static str,
    ) -> DataError {
        fault(self.path, tag, problem, remedy)
    }

    /// An error about the value of `tag`, which is shown.
    pub(crate) fn unusable(&self, tag: Tag, expected: &str) -> DataError {
        let value = self.values.get(&tag).copied().unwrap_or_default();
        let shown = excerpt(&String::from_utf8_lossy(value));
        self.fault(tag, format!("is {shown:?}, not {expected}"), EXPORT_AGAIN)
    }

    fn required(&self, tag: Tag) -> Result<&'a [u8]> {
        self.values
            .get(&tag)
            .copied()
            .ok_or_else(|| self.fault(tag, "is missing", EXPORT_AGAIN))
    }

    /// Text without its padding.
    pub(crate) fn text(&self, tag: Tag) -> Result<&'a str> {
        text(self.required(tag)?).ok_or_else(|| self.unusable(tag, "text"))
    }

    /// An unsigned 16-bit number (VR US).
    pub(crate) fn number(&self, tag: Tag) -> Result<u16> {
        match *self.required(tag)? {
            [low, high] => Ok(u16::from_le_bytes([low, high])),
            ref bytes => Err(self.fault(
                tag,
                format!("has {} bytes instead of 2", bytes.len()),
                EXPORT_AGAIN,
            )),
        }
    }

    /// One whole number as text (VR IS); `None` where the attribute is missing or empty.
    pub(crate) fn integer(&self, tag: Tag) -> Result<Option<i32>> {
        if !self.has(tag) {
            return Ok(None);
        }
        match self.text(tag)? {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| self.unusable(tag, "a whole number")),
        }
    }

    /// `N` finite decimal numbers as text (VR DS), whatever VR the file gives them.
    pub(crate) fn decimals<const N: usize>(&self, tag: Tag) -> Result<[f64; N]> {
        let values: Option<Vec<f64>> = self
            .text(tag)?
            .split('\\')
            .map(|part| part.trim().parse().ok().filter(|v: &f64| v.is_finite()))
            .collect();
        values
            .and_then(|values| <[f64; N]>::try_from(values).ok())
            .ok_or_else(|| self.unusable(tag, &format!("{N} decimal number(s)")))
    }
}

/// Text without DICOM's padding by spaces and NULs; `None` where it is not UTF-8.
fn text(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    Some(text.trim_matches([' ', '\0']))
}
