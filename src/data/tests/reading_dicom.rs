//! DICOM slices: what is written is read back, every stored form reads the same, and damage is named and never a panic.
//!
//! `fixtures/*.dcm` hold one 16 x 16 image, [`fixture_hu`], each in another transfer syntax; written by pydicom 3.0.1
//! (RLE, implicit, deflated) and GDCM 3.2 (JPEG lossless with unsigned words and intercept -1024, JPEG 2000).

use std::fs;
use std::path::{Path, PathBuf};

use data::dicom::write::{SliceToWrite, write_ct_slice};
use data::dicom::{DicomSlice, SliceHeader, read_frames, read_headers};
use data::{DataError, StudyUid};

fn read_slice(path: &Path) -> data::Result<DicomSlice> {
    let mut slices = read_frames(path, &[0])?;
    assert_eq!(slices.len(), 1);
    Ok(slices.remove(0))
}

fn read_slice_header(path: &Path) -> data::Result<SliceHeader> {
    let mut headers = read_headers(path)?;
    assert_eq!(headers.len(), 1);
    Ok(headers.remove(0))
}

fn slice<'a>(study: &'a StudyUid, hu: &'a [i16]) -> SliceToWrite<'a> {
    SliceToWrite {
        study,
        series_uid: "1.2.826.0.1.3680043.9.7777.5.1",
        sop_instance_uid: "1.2.826.0.1.3680043.9.7777.5.1.7",
        instance_number: 7,
        position: [-10.5, -20.25, 1.0 / 3.0],
        orientation: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        pixel_spacing: [0.5, 0.25],
        slice_thickness: 1.0,
        rows: 3,
        cols: 4,
        hu,
        signed: true,
        rescale_intercept: 0,
    }
}

const HU: [i16; 12] = [
    -1024,
    -1000,
    -1,
    0,
    1,
    40,
    400,
    1300,
    3071,
    i16::MIN,
    i16::MAX,
    7,
];

fn study() -> StudyUid {
    StudyUid::new("1.2.826.0.1.3680043.9.7777.5").unwrap()
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn fixture_hu() -> Vec<i16> {
    let pixel = |row: i16, col: i16| match (row, col) {
        (3..6, 4..9) => -1024,
        (10..12, _) => 1900,
        _ => row * 150 - 900 + col * 37 + row * col % 11,
    };
    (0..16)
        .flat_map(|row| (0..16).map(move |col| pixel(row, col)))
        .collect()
}

#[test]
fn a_written_slice_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("7.dcm");
    let study = study();
    write_ct_slice(&path, &slice(&study, &HU)).unwrap();
    let read = read_slice(&path).unwrap();
    assert_eq!(read.hu, HU);
    let header = read.header;
    assert_eq!(header, read_slice_header(&path).unwrap());
    assert_eq!((header.rows, header.cols), (3, 4));
    assert_eq!(header.study, study);
    assert_eq!(header.pixel_spacing, [0.5, 0.25]);
    assert_eq!(header.orientation, [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    assert_eq!(header.position[..2], [-10.5, -20.25]);
    assert!((header.position[2] - 1.0 / 3.0).abs() < 1e-9);
}

#[test]
fn unsigned_words_with_an_intercept_hold_the_same_hu() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("7.dcm");
    let study = study();
    let written = SliceToWrite {
        signed: false,
        rescale_intercept: -1024,
        ..slice(&study, &HU)
    };
    write_ct_slice(&path, &written).unwrap();
    // An unsigned word holds nothing below its intercept.
    let expected = HU.map(|hu| hu.max(-1024));
    assert_eq!(read_slice(&path).unwrap().hu, expected);
}

#[test]
fn too_few_pixels_are_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let study = study();
    let result = write_ct_slice(&dir.path().join("7.dcm"), &slice(&study, &HU[..11]));
    assert!(matches!(
        result,
        Err(DataError::VoxelCount {
            found: 11,
            expected: 12,
            ..
        })
    ));
}

#[test]
fn every_transfer_syntax_reads_the_same() {
    for name in ["implicit", "deflated", "rle", "jpeg_lossless", "jpeg_2000"] {
        let read = read_slice(&fixture(&format!("{name}.dcm"))).unwrap();
        assert_eq!(read.hu, fixture_hu(), "{name}");
        assert_eq!(read.header.position, [-8.0, -8.0, 100.0], "{name}");
    }
}

/// A codestream has no room above its samples: the header that claims some is wrong about them.
#[test]
fn a_high_bit_that_no_codestream_has_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("9.dcm");
    for name in ["jpeg_lossless", "jpeg_2000"] {
        let mut bytes = fs::read(fixture(&format!("{name}.dcm"))).unwrap();
        let stored = [0x28, 0, 1, 1, b'U', b'S', 2, 0, 16, 0];
        let at = bytes.windows(10).position(|w| w == stored).unwrap();
        bytes[at + 8] = 12;
        fs::write(&path, bytes).unwrap();
        let error = read_slice(&path).unwrap_err().to_string();
        assert!(
            error.contains("HighBit 15 for 12 stored bits"),
            "{name}: {error}"
        );
    }
}

/// Every beginning of a file is an error that names the file, except where only padding is missing.
#[test]
fn every_truncation_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("7.dcm");
    write_ct_slice(&whole, &slice(&study(), &HU)).unwrap();
    let mut files = vec![whole];
    files.extend(
        ["implicit", "rle", "jpeg_lossless", "jpeg_2000", "deflated"]
            .map(|name| fixture(&format!("{name}.dcm"))),
    );
    let cut = dir.path().join("8.dcm");
    for file in files {
        let bytes = fs::read(&file).unwrap();
        // A deflated stream may end with a byte of padding.
        let certain = bytes.len() - if file.ends_with("deflated.dcm") { 1 } else { 0 };
        for end in 0..certain {
            fs::write(&cut, &bytes[..end]).unwrap();
            let error = read_slice(&cut).expect_err(&format!("{} cut at {end}", file.display()));
            assert!(matches!(error, DataError::Dicom { .. }), "{error}");
            assert!(error.to_string().contains("8.dcm"), "{error}");
        }
    }
}

#[test]
fn missing_pixels_are_counted_and_the_header_still_reads() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("7.dcm");
    write_ct_slice(&path, &slice(&study(), &HU)).unwrap();
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
    let error = read_slice(&path).unwrap_err().to_string();
    assert!(error.contains("PixelData holds 4 of 24 bytes"), "{error}");
    assert!(read_slice_header(&path).is_ok());
}

#[test]
fn no_damaged_byte_panics() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("8.dcm");
    let silent = std::panic::take_hook();
    // Panics inside the decompressors are caught; their messages would bury a failure of this test.
    std::panic::set_hook(Box::new(|_| {}));
    let mut read = 0;
    for name in ["implicit", "rle", "jpeg_lossless", "jpeg_2000"] {
        let bytes = fs::read(fixture(&format!("{name}.dcm"))).unwrap();
        for at in 128..bytes.len() {
            for flip in [0x01, 0x80, 0xFF] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                fs::write(&path, damaged).unwrap();
                read += usize::from(read_slice(&path).is_ok_and(|slice| slice.hu.len() == 256));
            }
        }
    }
    std::panic::set_hook(silent);
    assert!(
        read > 0,
        "flipped bits in names and pixels leave a readable file"
    );
}

/// The bytes of a written slice with the value of one short element replaced by one of the same length.
fn edited(tag: [u8; 4], from: &[u8], to: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("7.dcm");
    write_ct_slice(&path, &slice(&study(), &HU)).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(4).position(|window| window == tag).unwrap() + 8;
    assert_eq!((&bytes[at..at + from.len()], from.len()), (from, to.len()));
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes
}

#[test]
fn what_is_not_hu_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("9.dcm");
    let cases: [(&str, Vec<u8>); 7] = [
        ("BitsStored", edited([0x28, 0, 1, 1], &[16, 0], &[32, 0])),
        ("BitsAllocated", edited([0x28, 0, 0, 1], &[16, 0], &[8, 0])),
        ("HighBit", edited([0x28, 0, 2, 1], &[15, 0], &[11, 0])),
        ("RescaleSlope", edited([0x28, 0, 0x53, 0x10], b"1 ", b"0 ")),
        ("RescaleSlope", edited([0x28, 0, 0x53, 0x10], b"1 ", b"x ")),
        ("SamplesPerPixel", edited([0x28, 0, 2, 0], &[1, 0], &[3, 0])),
        (
            "ImageOrientationPatient",
            edited([0x20, 0, 0x37, 0], b"1\\0", b"2\\0"),
        ),
    ];
    for (attribute, bytes) in cases {
        fs::write(&path, bytes).unwrap();
        let error = read_slice(&path).unwrap_err().to_string();
        assert!(
            error.contains(attribute) && error.contains("9.dcm"),
            "{error}"
        );
    }
}

#[test]
fn other_modalities_and_units_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("9.dcm");
    fs::write(&path, edited([0x08, 0, 0x60, 0], b"CT", b"PT")).unwrap();
    let error = read_slice(&path).unwrap_err().to_string();
    assert!(error.contains("Modality is \"PT\", not CT"), "{error}");
    // Unspecified, and optical density.
    for (unit, reads) in [(b"US", true), (b"OD", false)] {
        fs::write(&path, edited([0x28, 0, 0x54, 0x10], b"HU", unit)).unwrap();
        let read = read_slice(&path).map_err(|error| error.to_string());
        assert_eq!(read.is_ok(), reads, "{read:?}");
        if let Err(error) = read {
            assert!(error.contains("RescaleType is \"OD\", not HU"), "{error}");
        }
    }
}

#[test]
fn a_slice_without_rescale_is_refused() {
    let bytes = edited([0x28, 0, 0x53, 0x10], b"1 ", b"1 ");
    let at = bytes
        .windows(4)
        .position(|w| w == [0x28, 0, 0x53, 0x10])
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("9.dcm");
    fs::write(&path, [&bytes[..at], &bytes[at + 10..]].concat()).unwrap();
    let error = read_slice(&path).unwrap_err().to_string();
    assert!(error.contains("RescaleSlope is missing"), "{error}");
}

#[test]
fn a_rescale_slope_of_unknown_vr_is_still_a_number() {
    let bytes = edited([0x28, 0, 0x53, 0x10], b"1 ", b"2 ");
    let at = bytes
        .windows(4)
        .position(|w| w == [0x28, 0, 0x53, 0x10])
        .unwrap();
    let unknown = [&bytes[..at + 4], b"UN\0\0\x02\0\0\x002 ", &bytes[at + 10..]].concat();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("9.dcm");
    fs::write(&path, unknown).unwrap();
    assert_eq!(read_slice(&path).unwrap().hu[5], 80);
}

#[test]
fn long_names_in_the_file_meta_group_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("9.dcm");
    write_ct_slice(&path, &slice(&study(), &HU)).unwrap();
    let bytes = fs::read(&path).unwrap();
    let at = bytes.windows(4).position(|w| w == [2, 0, 0x13, 0]).unwrap();
    let long = b"\x02\0\x13\0SH\x1E\0A_VERSION_OF_THIRTY_CHARACTERS";
    assert_eq!(long.len(), 8 + 30);
    fs::write(&path, [&bytes[..at], long, &bytes[at + 16..]].concat()).unwrap();
    assert_eq!(read_slice(&path).unwrap().hu, HU);
}

#[test]
fn a_file_of_another_kind_is_told_from_a_slice() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("1.dcm");
    for bytes in [&b""[..], b"not a DICOM file", &[0; 4096]] {
        fs::write(&path, bytes).unwrap();
        let error = read_slice(&path).unwrap_err().to_string();
        assert!(error.contains("TransferSyntaxUID is missing"), "{error}");
    }
    let missing = read_slice(&dir.path().join("2.dcm")).unwrap_err();
    assert!(matches!(missing, DataError::Io { .. }));
}

/// A header longer than what is read of it at first.
#[test]
fn a_long_header_is_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("9.dcm");
    write_ct_slice(&path, &slice(&study(), &HU)).unwrap();
    let bytes = fs::read(&path).unwrap();
    let at = bytes
        .windows(4)
        .position(|w| w == [0x18, 0, 0x50, 0])
        .unwrap();
    let mut private = b"\x11\0\x10\x10OB\0\0\0\0\x01\0".to_vec();
    private.resize(12 + 65_536, 0xAB);
    fs::write(&path, [&bytes[..at], &private, &bytes[at..]].concat()).unwrap();
    assert_eq!(read_slice_header(&path).unwrap().rows, 3);
    assert_eq!(read_slice(&path).unwrap().hu, HU);
}
