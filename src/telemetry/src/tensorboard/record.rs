//! TFRecord framing: length, its checksum, data, its checksum.
//!
//! <https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details>

use std::io::Read;

use crc32c::crc32c;

/// Appends `data` to `out` as one record.
pub(super) fn append(out: &mut Vec<u8>, data: &[u8]) {
    let length = (data.len() as u64).to_le_bytes();
    out.extend(length);
    out.extend(masked_crc32c(&length).to_le_bytes());
    out.extend(data);
    out.extend(masked_crc32c(data).to_le_bytes());
}

/// The data of the next record; none where no whole one follows.
pub(super) fn next(input: &mut impl Read) -> Option<Vec<u8>> {
    let (mut length, mut checksum) = ([0; 8], [0; 4]);
    input.read_exact(&mut length).ok()?;
    input.read_exact(&mut checksum).ok()?;
    if checksum != masked_crc32c(&length).to_le_bytes() {
        return None;
    }
    let mut data = Vec::new();
    let wanted = u64::from_le_bytes(length);
    // No more memory than the file has bytes, whatever it says.
    let found = input.take(wanted).read_to_end(&mut data).ok()?;
    input.read_exact(&mut checksum).ok()?;
    let whole = found as u64 == wanted && checksum == masked_crc32c(&data).to_le_bytes();
    whole.then_some(data)
}

/// A CRC-32C, changed so that the checksum of data that holds its own checksum is not degenerate.
fn masked_crc32c(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_length_checksum_data_checksum() {
        let data = b"\x1a\x0dbrain.Event:2";
        let mut out = Vec::new();
        append(&mut out, data);
        assert_eq!(out.len(), 8 + 4 + data.len() + 4);
        assert_eq!(out[..8], 15u64.to_le_bytes());
        assert_eq!(out[8..12], masked_crc32c(&out[..8]).to_le_bytes());
        assert_eq!(out[12..27], *data);
        assert_eq!(out[27..], masked_crc32c(data).to_le_bytes());
    }

    #[test]
    fn what_was_appended_is_read_up_to_the_first_record_that_is_not_whole() {
        let mut file = Vec::new();
        append(&mut file, b"one");
        append(&mut file, b"");
        append(&mut file, b"three");
        let all = |mut file: &[u8]| {
            std::iter::from_fn(|| next(&mut file))
                .collect::<Vec<_>>()
                .len()
        };
        assert_eq!(next(&mut &file[..]).unwrap(), b"one");
        assert_eq!(all(&file), 3);
        assert_eq!(all(&file[..file.len() - 1]), 2, "cut off");
        for byte in [0, 8, 13, 15] {
            let mut damaged = file.clone();
            damaged[byte] ^= 1;
            assert_eq!(all(&damaged), 0, "byte {byte}");
        }
    }

    #[test]
    fn the_checksum_is_a_masked_crc32c() {
        // RFC 3720, B.4: the CRC-32C of 32 zero bytes is 8a9136aa. Masked by hand.
        assert_eq!(masked_crc32c(&[0; 32]), 0x0fd7_fffa);
    }
}
