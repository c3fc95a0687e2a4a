//! TFRecord framing: length, its checksum, data, its checksum.
//!
//! <https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details>

use crc32c::crc32c;

/// Appends `data` to `out` as one record.
pub(super) fn append(out: &mut Vec<u8>, data: &[u8]) {
    let length = (data.len() as u64).to_le_bytes();
    out.extend(length);
    out.extend(masked_crc32c(&length).to_le_bytes());
    out.extend(data);
    out.extend(masked_crc32c(data).to_le_bytes());
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
    fn the_checksum_is_a_masked_crc32c() {
        // RFC 3720, B.4: the CRC-32C of 32 zero bytes is 8a9136aa. Masked by hand.
        assert_eq!(masked_crc32c(&[0; 32]), 0x0fd7_fffa);
    }
}
