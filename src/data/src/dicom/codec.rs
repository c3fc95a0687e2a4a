//! Decompressing the pixel data of one slice: JPEG, JPEG 2000, RLE, by the decoders of dicom-rs.
//!
//! The decoders are given only images whose own header agrees with the DICOM header, because they allocate what a
//! codestream asks for; and a panic inside them (damaged RLE, JPEG 2000 and JPEG streams cause some) becomes an error.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use dicom_encoding::adapters::{PixelDataObject, RawPixelData};
use dicom_encoding::{Codec, TransferSyntaxIndex};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

const RLE_LOSSLESS: &str = "1.2.840.10008.1.2.5";

/// One compressed monochrome image of 16 bits a pixel.
pub(crate) struct Encapsulated<'a> {
    pub(crate) transfer_syntax: &'a str,
    pub(crate) rows: u16,
    pub(crate) cols: u16,
    pub(crate) bits_stored: u16,
    /// The whole codestream: the fragments after the offset table, joined.
    pub(crate) codestream: Vec<u8>,
}

/// Whether there is a decoder for the transfer syntax with this UID.
pub(crate) fn can_decode(transfer_syntax: &str) -> bool {
    TransferSyntaxRegistry
        .get(transfer_syntax)
        .is_some_and(|syntax| matches!(syntax.codec(), Codec::EncapsulatedPixelData(Some(_), _)))
}

/// Pixels as little-endian 16-bit words, `rows * cols` of them; or what is wrong, as the end of a sentence that begins
/// with "PixelData".
pub(crate) fn decode(image: &Encapsulated<'_>) -> Result<Vec<u8>, String> {
    if image.transfer_syntax != RLE_LOSSLESS {
        let found = image_size(&image.codestream)
            .ok_or("holds no JPEG or JPEG 2000 image header: its bytes are damaged")?;
        let expected = ImageSize {
            rows: image.rows.into(),
            cols: image.cols.into(),
            components: 1,
        };
        if found != expected {
            return Err(format!(
                "holds an image of {} rows, {} columns, {} components where the header says {}, {}, 1",
                found.rows, found.cols, found.components, expected.rows, expected.cols
            ));
        }
    }
    let syntax = TransferSyntaxRegistry.get(image.transfer_syntax);
    let Some(Codec::EncapsulatedPixelData(Some(decoder), _)) = syntax.map(|s| s.codec()) else {
        return Err(format!(
            "is compressed as {}, which is not read",
            image.transfer_syntax
        ));
    };
    let mut pixels = Vec::new();
    match catch_unwind(AssertUnwindSafe(|| decoder.decode(image, &mut pixels))) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(format!("cannot be decompressed: {}", innermost(&error))),
        Err(_) => return Err("is damaged: the decompressor gave up".into()),
    }
    let expected = usize::from(image.rows) * usize::from(image.cols) * 2;
    if pixels.len() < expected {
        return Err(format!(
            "decompresses to {} of {expected} bytes",
            pixels.len()
        ));
    }
    pixels.truncate(expected);
    Ok(pixels)
}

/// The last error of a chain, which says what happened; the outer ones say where.
fn innermost(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => innermost(source),
        None => error.to_string(),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ImageSize {
    rows: u32,
    cols: u32,
    components: u16,
}

/// The size that a JPEG or JPEG 2000 codestream declares.
fn image_size(codestream: &[u8]) -> Option<ImageSize> {
    match codestream {
        [0xFF, 0x4F, 0xFF, 0x51, siz @ ..] => jpeg2000_size(siz),
        [0xFF, 0xD8, segments @ ..] => jpeg_size(segments),
        _ => None,
    }
}

/// From the SIZ segment after its marker (ISO/IEC 15444-1, A.5.1): length, capabilities, then Xsiz, Ysiz, XOsiz, YOsiz,
/// the tiles' size and offset, and the number of components.
fn jpeg2000_size(siz: &[u8]) -> Option<ImageSize> {
    let word = |at: usize| {
        siz.get(at..)?
            .first_chunk()
            .copied()
            .map(u32::from_be_bytes)
    };
    Some(ImageSize {
        cols: word(4)?.checked_sub(word(12)?)?,
        rows: word(8)?.checked_sub(word(16)?)?,
        components: u16::from_be_bytes(*siz.get(36..)?.first_chunk()?),
    })
}

/// From the frame header (ITU-T T.81, B.2.2): length, precision, lines, samples per line, components.
fn jpeg_size(mut segments: &[u8]) -> Option<ImageSize> {
    loop {
        let [0xFF, marker, rest @ ..] = segments else {
            return None;
        };
        match marker {
            // A fill byte before the marker.
            0xFF => segments = &segments[1..],
            // SOF0..SOF15, without the tables DHT, JPG and DAC that share their range.
            0xC0..=0xCF if !matches!(marker, 0xC4 | 0xC8 | 0xCC) => {
                let [_, _, _, y0, y1, x0, x1, components, ..] = *rest else {
                    return None;
                };
                return Some(ImageSize {
                    rows: u16::from_be_bytes([y0, y1]).into(),
                    cols: u16::from_be_bytes([x0, x1]).into(),
                    components: components.into(),
                });
            }
            // No frame header may follow the scan's.
            0xDA => return None,
            _ => {
                let length = u16::from_be_bytes(*rest.first_chunk()?);
                segments = rest.get(usize::from(length)..)?;
            }
        }
    }
}

impl PixelDataObject for Encapsulated<'_> {
    fn transfer_syntax_uid(&self) -> &str {
        self.transfer_syntax
    }

    fn rows(&self) -> Option<u16> {
        Some(self.rows)
    }

    fn cols(&self) -> Option<u16> {
        Some(self.cols)
    }

    fn samples_per_pixel(&self) -> Option<u16> {
        Some(1)
    }

    fn bits_allocated(&self) -> Option<u16> {
        Some(16)
    }

    fn bits_stored(&self) -> Option<u16> {
        Some(self.bits_stored)
    }

    fn photometric_interpretation(&self) -> Option<&str> {
        Some("MONOCHROME2")
    }

    fn number_of_frames(&self) -> Option<u32> {
        Some(1)
    }

    fn number_of_fragments(&self) -> Option<u32> {
        Some(1)
    }

    fn fragment(&self, fragment: usize) -> Option<Cow<'_, [u8]>> {
        (fragment == 0).then_some(Cow::Borrowed(&self.codestream))
    }

    fn offset_table(&self) -> Option<Cow<'_, [u32]>> {
        None
    }

    fn raw_pixel_data(&self) -> Option<RawPixelData> {
        Some(RawPixelData {
            fragments: vec![self.codestream.clone()].into(),
            offset_table: Vec::new().into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_from_both_kinds_of_codestream() {
        let jpeg = [
            0xFF, 0xD8, 0xFF, 0xE0, 0, 4, 1, 2, 0xFF, 0xFF, 0xC3, 0, 11, 16, 0, 48, 0, 64, 1, 1,
            0x11, 0,
        ];
        let size = ImageSize {
            rows: 48,
            cols: 64,
            components: 1,
        };
        assert_eq!(image_size(&jpeg), Some(size));
        let mut jpeg2000 = vec![0xFF, 0x4F, 0xFF, 0x51, 0, 41, 0, 0];
        for word in [70_u32, 50, 6, 2, 64, 48, 0, 0] {
            jpeg2000.extend(word.to_be_bytes());
        }
        jpeg2000.extend([0, 1]);
        assert_eq!(image_size(&jpeg2000), Some(size));
        for stream in [&jpeg[..], &jpeg2000] {
            for end in 0..19 {
                assert_eq!(image_size(&stream[..end]), None);
            }
        }
    }

    #[test]
    fn an_image_larger_than_its_header_is_refused_before_decoding() {
        let mut codestream = vec![0xFF, 0x4F, 0xFF, 0x51, 0, 41, 0, 0];
        for word in [1_000_000_u32, 1_000_000, 0, 0, 64, 48, 0, 0] {
            codestream.extend(word.to_be_bytes());
        }
        codestream.extend([0, 1]);
        let problem = decode(&Encapsulated {
            transfer_syntax: "1.2.840.10008.1.2.4.90",
            rows: 64,
            cols: 64,
            bits_stored: 16,
            codestream,
        });
        assert!(problem.unwrap_err().contains("1000000 rows"));
    }
}
