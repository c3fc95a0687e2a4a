//! Writing CT slices as DICOM files: CT Image Storage, explicit VR little endian, 16 bits.
//!
//! Made for phantoms: the patient is called PHANTOM, and the attributes that the standard wants present but lets be empty
//! (dates, referring physician, birth date) are empty, so that files are the same bytes on every run.

use std::fs;
use std::path::Path;

use crate::error::{DataError, Result};
use crate::study::StudyUid;

/// One slice and what its header says.
#[derive(Debug, Clone, Copy)]
pub struct SliceToWrite<'a> {
    /// The study.
    pub study: &'a StudyUid,
    /// The series, the same for all slices of a volume.
    pub series_uid: &'a str,
    /// This file's own UID.
    pub sop_instance_uid: &'a str,
    /// The `<n>` of `<n>.dcm`.
    pub instance_number: u32,
    /// ImagePositionPatient: LPS mm of the centre of the first voxel.
    pub position: [f64; 3],
    /// ImageOrientationPatient: unit vectors along a row and along a column.
    pub orientation: [f64; 6],
    /// PixelSpacing: distance between rows, then between columns, mm.
    pub pixel_spacing: [f64; 2],
    /// SliceThickness, mm.
    pub slice_thickness: f64,
    /// Rows (height).
    pub rows: u16,
    /// Columns (width).
    pub cols: u16,
    /// Hounsfield units, (rows, columns).
    pub hu: &'a [i16],
    /// Whether stored values are signed.
    pub signed: bool,
    /// RescaleIntercept; the stored value is HU minus this, limited to what 16 bits hold. The slope is 1.
    pub rescale_intercept: i16,
}

/// Writes `slice` to `path`, replacing what was there.
///
/// # Errors
/// [`DataError::VoxelCount`] where `hu` is not rows x columns long, [`DataError::Io`].
pub fn write_ct_slice(path: &Path, slice: &SliceToWrite<'_>) -> Result<()> {
    let expected = usize::from(slice.rows) * usize::from(slice.cols);
    if slice.hu.len() != expected {
        return Err(DataError::VoxelCount {
            path: path.to_path_buf(),
            found: slice.hu.len(),
            expected,
        });
    }
    fs::write(path, encode(slice)).map_err(DataError::io("write", path))
}

const CT_IMAGE_STORAGE: &str = "1.2.840.10008.5.1.4.1.1.2";
const EXPLICIT_VR_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2.1";
const IMPLEMENTATION_CLASS: &str = "1.2.826.0.1.3680043.9.7777.100";

fn encode(slice: &SliceToWrite<'_>) -> Vec<u8> {
    let mut meta = Elements::default();
    meta.long(0x0002_0001, b"OB", &[0, 1]);
    meta.text(0x0002_0002, b"UI", CT_IMAGE_STORAGE);
    meta.text(0x0002_0003, b"UI", slice.sop_instance_uid);
    meta.text(0x0002_0010, b"UI", EXPLICIT_VR_LITTLE_ENDIAN);
    meta.text(0x0002_0012, b"UI", IMPLEMENTATION_CLASS);
    meta.text(0x0002_0013, b"SH", "SPINECTL");

    let mut file = Elements(Vec::with_capacity(1024 + slice.hu.len() * 2));
    file.0.resize(128, 0);
    file.0.extend_from_slice(b"DICM");
    let meta_length = meta.0.len() as u32;
    file.short(0x0002_0000, b"UL", &meta_length.to_le_bytes());
    file.0.append(&mut meta.0);

    file.text(0x0008_0008, b"CS", "DERIVED\\PRIMARY\\AXIAL");
    file.text(0x0008_0016, b"UI", CT_IMAGE_STORAGE);
    file.text(0x0008_0018, b"UI", slice.sop_instance_uid);
    file.text(0x0008_0020, b"DA", "");
    file.text(0x0008_0030, b"TM", "");
    file.text(0x0008_0050, b"SH", "");
    file.text(0x0008_0060, b"CS", "CT");
    file.text(0x0008_0070, b"LO", "spinectl");
    file.text(0x0008_0090, b"PN", "");
    file.text(0x0010_0010, b"PN", "PHANTOM");
    file.text(0x0010_0020, b"LO", "PHANTOM");
    file.text(0x0010_0030, b"DA", "");
    file.text(0x0010_0040, b"CS", "");
    file.text(0x0018_0050, b"DS", &decimals(&[slice.slice_thickness]));
    file.text(0x0018_0060, b"DS", "");
    file.text(0x0020_000D, b"UI", slice.study.as_str());
    file.text(0x0020_000E, b"UI", slice.series_uid);
    file.text(0x0020_0010, b"SH", "");
    file.text(0x0020_0011, b"IS", "1");
    file.text(0x0020_0013, b"IS", &slice.instance_number.to_string());
    file.text(0x0020_0032, b"DS", &decimals(&slice.position));
    file.text(0x0020_0037, b"DS", &decimals(&slice.orientation));
    file.text(0x0020_0052, b"UI", slice.series_uid);
    file.text(0x0020_1040, b"LO", "");
    file.number(0x0028_0002, 1);
    file.text(0x0028_0004, b"CS", "MONOCHROME2");
    file.number(0x0028_0010, slice.rows);
    file.number(0x0028_0011, slice.cols);
    file.text(0x0028_0030, b"DS", &decimals(&slice.pixel_spacing));
    file.number(0x0028_0100, 16);
    file.number(0x0028_0101, 16);
    file.number(0x0028_0102, 15);
    file.number(0x0028_0103, u16::from(slice.signed));
    file.text(0x0028_1050, b"DS", "400");
    file.text(0x0028_1051, b"DS", "1800");
    file.text(0x0028_1052, b"DS", &slice.rescale_intercept.to_string());
    file.text(0x0028_1053, b"DS", "1");
    file.text(0x0028_1054, b"LO", "HU");

    let intercept = i32::from(slice.rescale_intercept);
    let (lowest, highest) = if slice.signed {
        (i32::from(i16::MIN), i32::from(i16::MAX))
    } else {
        (0, i32::from(u16::MAX))
    };
    let mut pixels = Vec::with_capacity(slice.hu.len() * 2);
    for &hu in slice.hu {
        let stored = (i32::from(hu) - intercept).clamp(lowest, highest);
        // The low half is the stored value in both signednesses.
        pixels.extend_from_slice(&(stored as u16).to_le_bytes());
    }
    file.long(0x7FE0_0010, b"OW", &pixels);
    file.0
}

/// Data elements in explicit VR little endian, one after the other (DICOM PS3.5, section 7.1.2). Tags are
/// `group << 16 | element`.
#[derive(Default)]
struct Elements(Vec<u8>);

impl Elements {
    fn tag(&mut self, tag: u32, vr: &[u8; 2]) {
        self.0
            .extend_from_slice(&((tag >> 16) as u16).to_le_bytes());
        self.0.extend_from_slice(&(tag as u16).to_le_bytes());
        self.0.extend_from_slice(vr);
    }

    /// An element whose VR has a 16-bit length; `value` has an even number of bytes.
    fn short(&mut self, tag: u32, vr: &[u8; 2], value: &[u8]) {
        self.tag(tag, vr);
        self.0
            .extend_from_slice(&(value.len() as u16).to_le_bytes());
        self.0.extend_from_slice(value);
    }

    /// An element whose VR (OB, OW) has a 32-bit length; `value` has an even number of bytes.
    fn long(&mut self, tag: u32, vr: &[u8; 2], value: &[u8]) {
        self.tag(tag, vr);
        self.0.extend_from_slice(&[0, 0]);
        self.0
            .extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.0.extend_from_slice(value);
    }

    /// Text, padded to an even length: UIDs by a NUL, the rest by a space.
    fn text(&mut self, tag: u32, vr: &[u8; 2], value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        if bytes.len() % 2 == 1 {
            bytes.push(if vr == b"UI" { 0 } else { b' ' });
        }
        self.short(tag, vr, &bytes);
    }

    fn number(&mut self, tag: u32, value: u16) {
        self.short(tag, b"US", &value.to_le_bytes());
    }
}

/// Numbers as decimal strings, with as many digits as the 16 characters of a DS hold, joined by backslashes.
fn decimals(values: &[f64]) -> String {
    let one = |value: &f64| {
        (0..=10)
            .rev()
            .map(|digits| format!("{value:.digits$}"))
            .map(|text| match text.contains('.') {
                true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
                false => text,
            })
            .find(|text| text.len() <= 16)
            .unwrap_or_else(|| format!("{value:.8e}"))
    };
    values.iter().map(one).collect::<Vec<_>>().join("\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_strings_fit_and_keep_their_value() {
        assert_eq!(decimals(&[1.0, -0.5, 1.5]), "1\\-0.5\\1.5");
        assert_eq!(decimals(&[100.0]), "100");
        for value in [
            1.0 / 3.0,
            -204.799_999_999_9,
            12_345.678_901_234,
            -1e15,
            1e300,
        ] {
            let text = decimals(&[value]);
            assert!(text.len() <= 16, "{text}");
            let back: f64 = text.parse().unwrap();
            assert!((back - value).abs() <= value.abs() * 1e-8, "{text}");
        }
    }
}
