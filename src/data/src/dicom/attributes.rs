//! The attributes of a DICOM file that place and scale a CT slice, found, checked for form and named in errors.
//!
//! In a multi-frame file they lie in functional groups, shared by all frames or a frame's own (PS3.3, C.7.6.16); a
//! [`Attributes`] of one frame looks there first.

use std::path::Path;

use super::elements::{Damage, Elements, Encoding, Header, Tag};
use super::file::DicomFile;
use crate::error::{DataError, Result, excerpt};

pub(crate) const TRANSFER_SYNTAX_UID: Tag = 0x0002_0010;
pub(crate) const IMAGE_TYPE: Tag = 0x0008_0008;
pub(crate) const FRAME_TYPE: Tag = 0x0008_9007;
pub(crate) const SOP_INSTANCE_UID: Tag = 0x0008_0018;
pub(crate) const STUDY_INSTANCE_UID: Tag = 0x0020_000D;
pub(crate) const SERIES_INSTANCE_UID: Tag = 0x0020_000E;
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
pub(crate) const PIXEL_PADDING_VALUE: Tag = 0x0028_0120;
pub(crate) const PIXEL_PADDING_RANGE_LIMIT: Tag = 0x0028_0121;
pub(crate) const RESCALE_INTERCEPT: Tag = 0x0028_1052;
pub(crate) const RESCALE_SLOPE: Tag = 0x0028_1053;
pub(crate) const MODALITY: Tag = 0x0008_0060;
pub(crate) const RESCALE_TYPE: Tag = 0x0028_1054;
pub(crate) const MODALITY_LUT_SEQUENCE: Tag = 0x0028_3000;
pub(crate) const SHARED_FUNCTIONAL_GROUPS: Tag = 0x5200_9229;
pub(crate) const PER_FRAME_FUNCTIONAL_GROUPS: Tag = 0x5200_9230;
pub(crate) const EXTENDED_OFFSET_TABLE: Tag = 0x7FE0_0001;
pub(crate) const PIXEL_DATA: Tag = 0x7FE0_0010;

pub(crate) const COPY_AGAIN: &str = "copy the file again from its source";
pub(crate) const EXPORT_AGAIN: &str = "export the study again as CT images, or leave it out";

/// The functional groups whose attributes are read: plane position, plane orientation, pixel measures, pixel value
/// transformation, CT image frame type.
const GROUPS: [Tag; 5] = [
    0x0020_9113,
    0x0020_9116,
    0x0028_9110,
    0x0028_9145,
    0x0018_9329,
];

/// The standard allows 64; some archives hold longer ones.
const LONGEST_IDENTIFIER: usize = 256;
/// Frames of one file; a long perfusion study has some ten thousand.
pub(crate) const MOST_FRAMES: usize = 1 << 16;

/// The keyword (DICOM PS3.6) of an attribute that is read; `None` for the others, whose values are never looked at.
fn keyword(tag: Tag) -> Option<&'static str> {
    Some(match tag {
        TRANSFER_SYNTAX_UID => "TransferSyntaxUID",
        IMAGE_TYPE => "ImageType",
        FRAME_TYPE => "FrameType",
        SOP_INSTANCE_UID => "SOPInstanceUID",
        STUDY_INSTANCE_UID => "StudyInstanceUID",
        SERIES_INSTANCE_UID => "SeriesInstanceUID",
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
        PIXEL_PADDING_VALUE => "PixelPaddingValue",
        PIXEL_PADDING_RANGE_LIMIT => "PixelPaddingRangeLimit",
        RESCALE_INTERCEPT => "RescaleIntercept",
        RESCALE_SLOPE => "RescaleSlope",
        MODALITY => "Modality",
        RESCALE_TYPE => "RescaleType",
        MODALITY_LUT_SEQUENCE => "ModalityLUTSequence",
        SHARED_FUNCTIONAL_GROUPS => "SharedFunctionalGroupsSequence",
        PER_FRAME_FUNCTIONAL_GROUPS => "PerFrameFunctionalGroupsSequence",
        EXTENDED_OFFSET_TABLE => "ExtendedOffsetTable",
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

/// Where PixelData stands in the file's data set; `None` where the head ends before.
pub(crate) fn find_pixel_data(file: &DicomFile) -> std::result::Result<Option<usize>, Damage> {
    let mut elements = Elements::new(file.head(), file.syntax.encoding);
    while let Some(header) = elements.header()? {
        if header.tag == PIXEL_DATA {
            return Ok(Some(elements.position()));
        }
        elements.skip(header)?;
    }
    Ok(None)
}

/// Values by tag, in the order of the file.
type Values<'a> = Vec<(Tag, &'a [u8])>;

/// The values of the attributes that are read, and where the pixels begin.
pub(crate) struct DataSet<'a> {
    path: &'a Path,
    encoding: Encoding,
    values: Values<'a>,
    shared: Values<'a>,
    /// The functional groups of each frame; empty where the file has none.
    frames: Vec<Values<'a>>,
    /// The header of PixelData and where its value begins; `None` where the data set ends before.
    pub(crate) pixel_data: Option<(Header, u64)>,
}

impl<'a> DataSet<'a> {
    /// Reads the elements of `file` up to PixelData.
    pub(crate) fn read(file: &'a DicomFile) -> Result<Self> {
        let mut data_set = Self {
            path: &file.path,
            encoding: file.syntax.encoding,
            values: Values::new(),
            shared: Values::new(),
            frames: Vec::new(),
            pixel_data: None,
        };
        let elements = Elements::new(file.head(), file.syntax.encoding);
        data_set
            .read_elements(elements)
            .map_err(|damage| damaged(&file.path, damage))?;
        Ok(data_set)
    }

    fn read_elements(&mut self, mut elements: Elements<'a>) -> std::result::Result<(), Damage> {
        while let Some(header) = elements.header()? {
            match header.tag {
                PIXEL_DATA => {
                    self.pixel_data = Some((header, elements.position() as u64));
                    return Ok(());
                }
                SHARED_FUNCTIONAL_GROUPS => {
                    let mut items = elements.inside(header)?;
                    if let Some(groups) = items.item()? {
                        read_groups(groups, &mut self.shared)?;
                    }
                }
                PER_FRAME_FUNCTIONAL_GROUPS => {
                    let mut items = elements.inside(header)?;
                    while let Some(groups) = items.item()? {
                        if self.frames.len() == MOST_FRAMES {
                            let offset = elements.position();
                            return Err(Damage::Malformed { offset });
                        }
                        let mut values = Values::new();
                        read_groups(groups, &mut values)?;
                        self.frames.push(values);
                    }
                }
                _ => read_value(header, &mut elements, &mut self.values)?,
            }
        }
        Ok(())
    }

    /// Frames that have functional groups of their own.
    pub(crate) fn grouped_frames(&self) -> usize {
        self.frames.len()
    }

    /// What holds of the frame with this number, from 0.
    pub(crate) fn frame(&self, frame: usize) -> Attributes<'_> {
        Attributes {
            data_set: self,
            own: self.frames.get(frame).map_or(&[], Vec::as_slice),
        }
    }

    /// What holds of all frames.
    pub(crate) fn common(&self) -> Attributes<'_> {
        Attributes {
            data_set: self,
            own: &[],
        }
    }
}

/// Keeps the value of an element that is read, and passes over the others.
fn read_value<'a>(
    header: Header,
    elements: &mut Elements<'a>,
    values: &mut Values<'a>,
) -> std::result::Result<(), Damage> {
    let value = match header.length {
        Some(length) if keyword(header.tag).is_some() => elements.take(header.tag, length)?,
        _ => {
            elements.skip(header)?;
            &[]
        }
    };
    if keyword(header.tag).is_some() {
        // The last of several counts, and a file full of one tag takes no memory.
        match values.iter_mut().find(|(tag, _)| *tag == header.tag) {
            Some((_, held)) => *held = value,
            None => values.push((header.tag, value)),
        }
    }
    Ok(())
}

/// Keeps the values in the functional groups of one frame, or of all.
fn read_groups<'a>(
    mut groups: Elements<'a>,
    values: &mut Values<'a>,
) -> std::result::Result<(), Damage> {
    while let Some(group) = groups.header()? {
        if !GROUPS.contains(&group.tag) {
            groups.skip(group)?;
            continue;
        }
        let Some(mut elements) = groups.inside(group)?.item()? else {
            continue;
        };
        while let Some(header) = elements.header()? {
            read_value(header, &mut elements, values)?;
        }
    }
    Ok(())
}

/// The attributes of one frame, or of all.
#[derive(Clone, Copy)]
pub(crate) struct Attributes<'a> {
    data_set: &'a DataSet<'a>,
    own: &'a [(Tag, &'a [u8])],
}

impl<'a> Attributes<'a> {
    fn value(&self, tag: Tag) -> Option<&'a [u8]> {
        let scopes: [&'a [(Tag, &'a [u8])]; 3] =
            [self.own, &self.data_set.shared, &self.data_set.values];
        scopes
            .into_iter()
            .find_map(|values| values.iter().find(|(named, _)| *named == tag))
            .map(|(_, value)| *value)
    }

    pub(crate) fn has(&self, tag: Tag) -> bool {
        self.value(tag).is_some()
    }

    /// The bytes of a value; `None` where the attribute is missing or empty.
    pub(crate) fn bytes(&self, tag: Tag) -> Option<&'a [u8]> {
        self.value(tag).filter(|value| !value.is_empty())
    }

    /// An error about the attribute `tag`.
    pub(crate) fn fault(
        &self,
        tag: Tag,
        problem: impl Into<String>,
        remedy: &'static str,
    ) -> DataError {
        fault(self.data_set.path, tag, problem, remedy)
    }

    /// An error about the value of `tag`, which is shown.
    pub(crate) fn unusable(&self, tag: Tag, expected: &str) -> DataError {
        let value = self.value(tag).unwrap_or_default();
        let shown = excerpt(&String::from_utf8_lossy(value));
        self.fault(tag, format!("is {shown:?}, not {expected}"), EXPORT_AGAIN)
    }

    fn required(&self, tag: Tag) -> Result<&'a [u8]> {
        self.value(tag)
            .ok_or_else(|| self.fault(tag, "is missing", EXPORT_AGAIN))
    }

    /// Text without its padding.
    pub(crate) fn text(&self, tag: Tag) -> Result<&'a str> {
        text(self.required(tag)?).ok_or_else(|| self.unusable(tag, "text"))
    }

    /// A UID, or whatever stands in its place; empty where the attribute is missing.
    pub(crate) fn identifier(&self, tag: Tag) -> Result<String> {
        match self.has(tag) {
            false => Ok(String::new()),
            true => match self.text(tag)? {
                text if text.len() <= LONGEST_IDENTIFIER => Ok(text.to_owned()),
                _ => Err(self.unusable(tag, "a UID of at most 64 characters")),
            },
        }
    }

    /// An unsigned 16-bit number (VR US).
    pub(crate) fn number(&self, tag: Tag) -> Result<u16> {
        match *self.required(tag)? {
            [first, second] => Ok(self.data_set.encoding.number([first, second])),
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
            .take(N + 1)
            .map(|part| part.trim().parse().ok().filter(|v: &f64| v.is_finite()))
            .collect();
        values
            .and_then(|values| <[f64; N]>::try_from(values).ok())
            .ok_or_else(|| self.unusable(tag, &format!("{N} decimal number(s)")))
    }
}

/// Text without DICOM's padding by spaces and NULs; `None` where it is not UTF-8.
pub(crate) fn text(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    Some(text.trim_matches([' ', '\0']))
}
