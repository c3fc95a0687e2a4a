//! Decompressing the pixel data of one frame: RLE, JPEG, JPEG-LS, JPEG 2000 and HTJ2K.
//!
//! JPEG lossless and JPEG 2000 are decoded by dicom-rs's adapters (jpeg-decoder and OpenJPEG), which are given only
//! images whose own header agrees with the DICOM header, because they allocate what a codestream asks for; a panic inside
//! them (damaged streams cause some) becomes an error. The rest is decoded here, for the reasons that each file says.

mod codestream;
mod jpeg_dct;
mod jpeg_ls;
mod rle;

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use dicom_encoding::adapters::{PixelDataObject, RawPixelData};
use dicom_encoding::{Codec, TransferSyntaxIndex};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use self::codestream::{Codestream, Coding};
use super::pixels::{Bits, PixelLayout, Words};

/// What dicom-rs knows its decoders by; that of JPEG 2000 is also that of HTJ2K.
const JPEG_LOSSLESS: &str = "1.2.840.10008.1.2.4.70";
const JPEG_2000: &str = "1.2.840.10008.1.2.4.90";

/// Decompresses a frame of RLE segments; or what is wrong, as the end of a sentence that begins with "PixelData".
pub(crate) fn decode_rle(frame: &[u8], layout: &PixelLayout) -> Result<Words<'static>, String> {
    Ok(Words {
        bytes: rle::decode(frame, layout.pixels(), layout.width)?.into(),
        width: layout.width,
        big_endian: false,
        bits: layout.bits,
    })
}

/// Decompresses a frame that is a JPEG, JPEG-LS or JPEG 2000 codestream; or what is wrong, as the end of a sentence that
/// begins with "PixelData".
///
/// Which of them it is, the codestream says itself: archives hold files that were labelled wrongly.
pub(crate) fn decode_codestream(
    frame: &[u8],
    layout: &PixelLayout,
) -> Result<Words<'static>, String> {
    let frame = codestream::without_boxes(frame);
    let header = Codestream::read(frame)
        .ok_or("holds no JPEG or JPEG 2000 image header: its bytes are damaged")?;
    let (rows, cols) = (layout.rows as u32, layout.cols as u32);
    if (header.rows, header.cols, header.components) != (rows, cols, 1) {
        return Err(format!(
            "holds an image of {} rows, {} columns, {} components where the header says {rows}, {cols}, 1",
            header.rows, header.cols, header.components
        ));
    }
    if !(2..=16).contains(&header.precision) || header.precision > 8 * layout.width as u32 {
        return Err(format!(
            "holds an image of {} bits a pixel where BitsAllocated is {}",
            header.precision,
            8 * layout.width
        ));
    }
    let decode = || match header.coding {
        Coding::SequentialDct => jpeg_dct::decode(frame).map(little_endian),
        Coding::JpegLs => jpeg_ls::decode(frame).map(little_endian),
        Coding::LosslessJpeg => by_dicom_rs(JPEG_LOSSLESS, frame, &header),
        Coding::Jpeg2000 => {
            codestream::jpeg2000_division(frame)?;
            by_dicom_rs(JPEG_2000, frame, &header)
        }
        Coding::OtherJpeg => Err(
            "is progressive, hierarchical or arithmetic-coded JPEG, which is not read".to_owned(),
        ),
    };
    let mut bytes = catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err("is damaged: the decompressor gave up".into()))?;
    let width = match header.coding {
        Coding::LosslessJpeg | Coding::Jpeg2000 => header.width(),
        _ => 2,
    };
    let expected = layout.pixels() * width;
    if bytes.len() < expected {
        return Err(format!(
            "decompresses to {} of {expected} bytes",
            bytes.len()
        ));
    }
    bytes.truncate(expected);
    if layout.bits.high + 1 != layout.bits.stored {
        return Err(format!(
            "is compressed with HighBit {} for {} stored bits, which no codestream can hold",
            layout.bits.high, layout.bits.stored
        ));
    }
    // Lossy pixels may lie a little above what BitsStored holds, and must not wrap. JPEG-LS knows no signs and JPEG 2000
    // may be told wrong, so the sign is the highest bit of the codestream's samples.
    let stored = match header.coding {
        Coding::JpegLs | Coding::Jpeg2000 => header.precision,
        Coding::SequentialDct if !layout.bits.signed => header.precision,
        _ => layout.bits.stored,
    };
    Ok(Words {
        bytes: bytes.into(),
        width,
        big_endian: false,
        bits: Bits {
            stored,
            high: stored - 1,
            signed: layout.bits.signed,
        },
    })
}

fn little_endian(samples: Vec<u16>) -> Vec<u8> {
    samples.into_iter().flat_map(u16::to_le_bytes).collect()
}

/// Samples of `header.width()` bytes, little endian, by dicom-rs's decoder for this transfer syntax.
fn by_dicom_rs(
    transfer_syntax: &'static str,
    codestream: &[u8],
    header: &Codestream,
) -> Result<Vec<u8>, String> {
    let syntax = TransferSyntaxRegistry.get(transfer_syntax);
    let Some(Codec::EncapsulatedPixelData(Some(decoder), _)) = syntax.map(|s| s.codec()) else {
        return Err(format!(
            "is compressed as {transfer_syntax}, which is not read"
        ));
    };
    let image = OneFrame {
        transfer_syntax,
        header,
        codestream,
    };
    let mut samples = Vec::new();
    decoder
        .decode(&image, &mut samples)
        .map_err(|error| format!("cannot be decompressed: {}", innermost(&error)))?;
    Ok(samples)
}

/// The last error of a chain, which says what happened; the outer ones say where.
fn innermost(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => innermost(source),
        None => error.to_string(),
    }
}

/// A codestream in the form that dicom-rs's decoders take: an object of one frame.
struct OneFrame<'a> {
    transfer_syntax: &'static str,
    header: &'a Codestream,
    codestream: &'a [u8],
}

impl PixelDataObject for OneFrame<'_> {
    fn transfer_syntax_uid(&self) -> &str {
        self.transfer_syntax
    }

    fn rows(&self) -> Option<u16> {
        self.header.rows.try_into().ok()
    }

    fn cols(&self) -> Option<u16> {
        self.header.cols.try_into().ok()
    }

    fn samples_per_pixel(&self) -> Option<u16> {
        Some(1)
    }

    fn bits_allocated(&self) -> Option<u16> {
        Some(8 * self.header.width() as u16)
    }

    fn bits_stored(&self) -> Option<u16> {
        Some(self.header.precision as u16)
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
        (fragment == 0).then_some(Cow::Borrowed(self.codestream))
    }

    fn offset_table(&self) -> Option<Cow<'_, [u32]>> {
        None
    }

    fn raw_pixel_data(&self) -> Option<RawPixelData> {
        Some(RawPixelData {
            fragments: vec![self.codestream.to_vec()].into(),
            offset_table: Vec::new().into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_larger_than_its_header_is_refused_before_decoding() {
        let mut codestream = vec![0xFF, 0x4F, 0xFF, 0x51, 0, 41, 0, 0];
        for word in [1_000_000_u32, 1_000_000, 0, 0, 64, 48, 0, 0] {
            codestream.extend(word.to_be_bytes());
        }
        codestream.extend([0, 1, 15, 1, 1]);
        let layout = PixelLayout {
            rows: 64,
            cols: 64,
            width: 2,
            bits: Bits {
                stored: 16,
                high: 15,
                signed: false,
            },
        };
        let problem = decode_codestream(&codestream, &layout).map(|_| ());
        assert!(problem.unwrap_err().contains("1000000 rows"));
    }
}
