//! RLE lossless (PS3.5, annex G): a plane of bytes for each byte of a word, the highest first, each packed as PackBits.

/// The most segments that the header of a frame has room for.
const MOST_SEGMENTS: usize = 15;

/// Words of `width` bytes, little endian, `pixels` of them; or what is wrong, as the end of a sentence that begins with
/// "PixelData".
pub(crate) fn decode(frame: &[u8], pixels: usize, width: usize) -> Result<Vec<u8>, String> {
    let number = |index: usize| {
        frame
            .get(index * 4..)
            .and_then(|bytes| bytes.first_chunk())
            .map(|bytes| u32::from_le_bytes(*bytes) as usize)
            .ok_or("holds no RLE header: it is cut short")
    };
    let segments = number(0)?;
    if segments != width || segments > MOST_SEGMENTS {
        return Err(format!(
            "holds {segments} RLE segments where {width} bytes a pixel need as many"
        ));
    }
    let mut words = vec![0; pixels * width];
    for segment in 0..segments {
        let start = number(1 + segment)?;
        let end = match segment + 1 < segments {
            true => number(2 + segment)?,
            false => frame.len(),
        };
        let packed = frame
            .get(start..end)
            .ok_or("holds RLE segments outside of its bytes: it is damaged")?;
        let byte = width - 1 - segment;
        let found = unpack(packed, words.iter_mut().skip(byte).step_by(width));
        if found < pixels {
            return Err(format!(
                "decompresses to {found} of {pixels} pixels: its RLE segments are damaged"
            ));
        }
    }
    Ok(words)
}

/// Unpacks into the places of `plane`, and says how many were filled. What is left of `packed` then is padding.
fn unpack<'a>(mut packed: &[u8], mut plane: impl Iterator<Item = &'a mut u8>) -> usize {
    let mut filled = 0;
    while let [control, rest @ ..] = packed {
        match *control as i8 {
            // The next bytes as they are.
            literal @ 0.. => {
                let (bytes, behind) = rest.split_at(rest.len().min(literal as usize + 1));
                for byte in bytes {
                    let Some(place) = plane.next() else {
                        return filled;
                    };
                    *place = *byte;
                    filled += 1;
                }
                packed = behind;
            }
            // Nothing.
            i8::MIN => packed = rest,
            // The next byte several times.
            run => {
                let [byte, behind @ ..] = rest else {
                    return filled;
                };
                for _ in 0..=-i32::from(run) {
                    let Some(place) = plane.next() else {
                        return filled;
                    };
                    *place = *byte;
                    filled += 1;
                }
                packed = behind;
            }
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(segments: &[&[u8]]) -> Vec<u8> {
        let mut header = [0_u32; 16];
        header[0] = segments.len() as u32;
        let mut at = 64;
        for (slot, segment) in header[1..].iter_mut().zip(segments) {
            *slot = at;
            at += segment.len() as u32;
        }
        let mut bytes: Vec<u8> = header.iter().flat_map(|n| n.to_le_bytes()).collect();
        segments
            .iter()
            .for_each(|segment| bytes.extend_from_slice(segment));
        bytes
    }

    #[test]
    fn runs_and_literals_become_words() {
        // The high bytes 1, 1, 1, 2; the low ones 7, 8, 9, 10 behind a control that does nothing.
        let packed = frame(&[&[0xFE, 1, 0, 2], &[0x80, 3, 7, 8, 9, 10, 0]]);
        assert_eq!(
            decode(&packed, 4, 2).unwrap(),
            [7, 1, 8, 1, 9, 1, 10, 2],
            "little endian"
        );
        assert!(decode(&packed, 5, 2).unwrap_err().contains("4 of 5 pixels"));
        assert!(
            decode(&packed, 4, 1)
                .unwrap_err()
                .contains("2 RLE segments")
        );
        for end in 0..packed.len() - 2 {
            assert!(decode(&packed[..end], 4, 2).is_err(), "cut at {end}");
        }
    }
}
