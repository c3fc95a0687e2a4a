//! What the header of a JPEG, JPEG-LS or JPEG 2000 codestream declares, read before a decompressor sees it: they
//! allocate whatever it says.

/// How a codestream is coded, and so who decodes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// JPEG baseline and extended: sequential DCT with Huffman codes.
    SequentialDct,
    /// JPEG lossless with Huffman codes.
    LosslessJpeg,
    JpegLs,
    /// JPEG 2000 and HTJ2K.
    Jpeg2000,
    /// What PS3.5 retired or never had: progressive, hierarchical, arithmetic codes.
    OtherJpeg,
}

/// The header of a codestream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Codestream {
    pub(crate) coding: Coding,
    pub(crate) rows: u32,
    pub(crate) cols: u32,
    pub(crate) components: u16,
    /// Bits of a sample.
    pub(crate) precision: u32,
}

impl Codestream {
    /// Bytes that hold a sample: 1 or 2.
    pub(crate) fn width(&self) -> usize {
        if self.precision <= 8 { 1 } else { 2 }
    }

    /// `None` where the bytes begin with no such header, or a damaged one.
    pub(crate) fn read(codestream: &[u8]) -> Option<Self> {
        match codestream {
            [0xFF, 0x4F, 0xFF, 0x51, siz @ ..] => jpeg2000(siz),
            [0xFF, 0xD8, segments @ ..] => jpeg(segments),
            _ => None,
        }
    }
}

/// A JPEG 2000 codestream without the boxes of a JP2 file, which some writers left around it.
pub(crate) fn without_boxes(bytes: &[u8]) -> &[u8] {
    match bytes.get(4..8) {
        Some(b"jP  ") => bytes
            .windows(4)
            .position(|window| window == [0xFF, 0x4F, 0xFF, 0x51])
            .and_then(|at| bytes.get(at..))
            .unwrap_or_default(),
        _ => bytes,
    }
}

/// From the frame header (ITU-T T.81, B.2.2; T.87, C.2.2): length, precision, lines, samples per line, components.
fn jpeg(mut segments: &[u8]) -> Option<Codestream> {
    loop {
        let [0xFF, marker, rest @ ..] = segments else {
            return None;
        };
        match marker {
            // A fill byte before the marker.
            0xFF => segments = segments.get(1..)?,
            // SOF0..SOF15, without the tables DHT, JPG and DAC that share their range; SOF55.
            0xC0..=0xCF | 0xF7 if !matches!(marker, 0xC4 | 0xC8 | 0xCC) => {
                let [_, _, precision, y0, y1, x0, x1, components, ..] = *rest else {
                    return None;
                };
                return Some(Codestream {
                    coding: match marker {
                        0xC0 | 0xC1 => Coding::SequentialDct,
                        0xC3 => Coding::LosslessJpeg,
                        0xF7 => Coding::JpegLs,
                        _ => Coding::OtherJpeg,
                    },
                    rows: u16::from_be_bytes([y0, y1]).into(),
                    cols: u16::from_be_bytes([x0, x1]).into(),
                    components: components.into(),
                    precision: precision.into(),
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

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u32::from_be_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u16::from_be_bytes)
}

/// From the SIZ segment after its marker (ISO/IEC 15444-1, A.5.1): length, capabilities, then Xsiz, Ysiz, XOsiz, YOsiz,
/// the tiles' size and offset, the number of components, and for each its precision and sampling.
fn jpeg2000(siz: &[u8]) -> Option<Codestream> {
    Some(Codestream {
        coding: Coding::Jpeg2000,
        cols: word(siz, 4)?.checked_sub(word(siz, 12)?)?,
        rows: word(siz, 8)?.checked_sub(word(siz, 16)?)?,
        components: half(siz, 36)?,
        precision: u32::from(siz.get(38)? & 0x7F) + 1,
    })
}

/// What a decoder of JPEG 2000 keeps is bounded by these, together far below a gigabyte.
const MOST_TILES: u64 = 4096;
const MOST_BLOCKS: u64 = 1 << 18;
const MOST_PACKETS: u64 = 1 << 24;

/// Whether a JPEG 2000 image is divided as encoders do it. Tiles, precincts, code blocks and layers each cost a decoder
/// memory, and a few damaged bytes can ask for millions of them.
pub(crate) fn jpeg2000_division(codestream: &[u8]) -> Result<(), &'static str> {
    const DAMAGED: &str = "holds a damaged JPEG 2000 header";
    const TOO_MANY: &str =
        "holds a JPEG 2000 image in more tiles, blocks or layers than one of its size has";
    let siz = codestream.get(4..).ok_or(DAMAGED)?;
    let at = |offset| word(siz, offset).map(u64::from).ok_or(DAMAGED);
    let [x1, y1, x0, y0] = [at(4)?, at(8)?, at(12)?, at(16)?];
    let [tile_w, tile_h, tile_x, tile_y] = [at(20)?, at(24)?, at(28)?, at(32)?];
    let subsampled = siz.get(39..41) != Some(&[1, 1]);
    if tile_w == 0 || tile_h == 0 || tile_x > x0 || tile_y > y0 || subsampled {
        return Err(DAMAGED);
    }
    let tiles = (x1 - tile_x).div_ceil(tile_w) * (y1 - tile_y).div_ceil(tile_h);
    if tiles > MOST_TILES {
        return Err(TOO_MANY);
    }
    let size = [
        x1.saturating_sub(x0).min(tile_w),
        y1.saturating_sub(y0).min(tile_h),
    ];
    let check = |style: &[u8], layers: u64, precincts: bool| {
        let (blocks, packets) = division(style, layers, precincts, size).ok_or(DAMAGED)?;
        match blocks <= MOST_BLOCKS && packets <= MOST_PACKETS {
            true => Ok(()),
            false => Err(TOO_MANY),
        }
    };

    let mut layers = 1;
    let mut at = 2;
    let mut tile_part_end = None;
    // The markers of the main header and of each tile-part's; the data between are passed over by their length.
    while let Some(marker) = half(codestream, at) {
        let length = match marker {
            0xFFD9 => break,
            0xFF93 => {
                match tile_part_end {
                    Some(end) if end > at => at = end,
                    _ => break,
                }
                continue;
            }
            _ => usize::from(half(codestream, at + 2).ok_or(DAMAGED)?),
        };
        // A tile-part that is cut is the decoder's to report.
        let Some(segment) = codestream.get(at + 4..at + 2 + length) else {
            return Err(DAMAGED);
        };
        match (marker, segment) {
            // COD: style, progression, layers, colour transform, then how a component is coded.
            (0xFF52, [style, _, l0, l1, _, coding @ ..]) => {
                layers = u16::from_be_bytes([*l0, *l1]).into();
                check(coding, layers, style & 1 != 0)?;
            }
            // COC: component, style, then the same.
            (0xFF53, [_, style, coding @ ..]) => check(coding, layers, style & 1 != 0)?,
            // SOT: tile, length of the tile-part from its marker on (0: to the end), part, number of parts.
            (0xFF90, [_, _, length @ .., _, _]) => {
                tile_part_end = match word(length, 0) {
                    Some(1..) => word(length, 0).map(|length| at + length as usize),
                    _ => None,
                };
            }
            (0xFF52 | 0xFF53 | 0xFF90, _) => return Err(DAMAGED),
            _ => {}
        }
        at += 2 + length;
    }
    Ok(())
}

/// About how many code blocks and packets a tile of this size is divided into. `coding` is the part that COD and COC
/// share (A.6.1): levels, code block width and height, block style, transform, and precinct sizes where there are any.
fn division(coding: &[u8], layers: u64, precincts: bool, size: [u64; 2]) -> Option<(u64, u64)> {
    let [levels, block_w, block_h, _, _, sizes @ ..] = coding else {
        return None;
    };
    if *levels > 32 || *block_w > 8 || *block_h > 8 {
        return None;
    }
    let (mut blocks, mut packets) = (0, 0);
    for resolution in 0..=*levels {
        let (precinct_w, precinct_h) = match precincts {
            true => {
                let exponents = sizes.get(usize::from(resolution))?;
                (exponents & 15, exponents >> 4)
            }
            false => (15, 15),
        };
        let shift = u32::from(levels - resolution).min(31);
        let [w, h] = size.map(|side| side.div_ceil(1 << shift));
        // One more a side: a grid need not begin at the image's corner.
        let across = |side: u64, exponent: u8| side.div_ceil(1 << exponent) + 1;
        packets += across(w, precinct_w) * across(h, precinct_h) * layers;
        blocks += across(w, precinct_w) * across(h, precinct_h)
            + across(w, precinct_w.min(*block_w + 2)) * across(h, precinct_h.min(*block_h + 2));
    }
    Some((blocks, packets))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jpeg2000_header(side: u32, tile: u32, cod: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0xFF, 0x4F, 0xFF, 0x51, 0, 41, 0, 0];
        for word in [side, side, 0, 0, tile, tile, 0, 0] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend([0, 1, 0x8B, 1, 1, 0xFF, 0x52, 0, 2 + cod.len() as u8]);
        bytes.extend(cod);
        bytes.extend([0xFF, 0x93]);
        bytes
    }

    #[test]
    fn headers_are_read_from_every_kind_of_codestream() {
        let jpeg = |marker| {
            [
                0xFF, 0xD8, 0xFF, 0xE0, 0, 4, 1, 2, 0xFF, 0xFF, marker, 0, 11, 12, 0, 48, 0, 64, 1,
                1, 0x11, 0,
            ]
        };
        for (marker, coding) in [
            (0xC0, Coding::SequentialDct),
            (0xC1, Coding::SequentialDct),
            (0xC2, Coding::OtherJpeg),
            (0xC3, Coding::LosslessJpeg),
            (0xF7, Coding::JpegLs),
        ] {
            let header = Codestream {
                coding,
                rows: 48,
                cols: 64,
                components: 1,
                precision: 12,
            };
            assert_eq!(Codestream::read(&jpeg(marker)), Some(header));
            for end in 0..18 {
                assert_eq!(Codestream::read(&jpeg(marker)[..end]), None);
            }
        }
        let header = Codestream {
            coding: Coding::Jpeg2000,
            rows: 64,
            cols: 64,
            components: 1,
            precision: 12,
        };
        let bytes = jpeg2000_header(64, 64, &[]);
        assert_eq!(Codestream::read(&bytes), Some(header));
        let boxed = [&b"\0\0\0\x0CjP  \r\n\x87\n"[..], &bytes].concat();
        assert_eq!(without_boxes(&boxed), bytes);
        assert_eq!(without_boxes(&bytes), bytes);
    }

    #[test]
    fn only_a_usual_division_of_an_image_passes() {
        let usual = [0, 0, 0, 1, 0, 5, 4, 4, 0, 1];
        let divided = |side, tile, cod: &[u8]| {
            jpeg2000_division(&jpeg2000_header(side, tile, cod)).map_err(|_| ())
        };
        assert_eq!(divided(512, 512, &usual), Ok(()));
        assert_eq!(divided(4096, 256, &usual), Ok(()));
        assert_eq!(divided(4096, 1, &usual), Err(()), "16 million tiles");
        assert_eq!(
            divided(4096, 4096, &[1, 0, 0, 1, 0, 1, 4, 4, 0, 1, 0x11, 0x11]),
            Err(()),
            "4 million precincts"
        );
        assert_eq!(
            divided(4096, 4096, &[0, 0, 0, 1, 0, 5, 0, 0, 0, 1]),
            Err(()),
            "a million code blocks"
        );
        assert_eq!(
            divided(4096, 4096, &[1, 0, 255, 255, 0, 1, 4, 4, 0, 1, 0x77, 0x77]),
            Err(()),
            "65,535 layers"
        );
        assert_eq!(divided(512, 512, &[0, 0, 0, 1, 0]), Err(()), "cut short");
    }
}
