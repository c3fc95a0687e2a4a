//! What is read of DICOM files equals what pydicom reads (tests/python/dump_dicom.py): every file that the packages pydicom
//! and pydicom-data ship, and variants made for it. Stored values to the last bit, of lossy JPEG within 1; HU too.

mod interpreter;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use data::dicom::{read_frames, read_headers, read_stored};

use interpreter::{python, workspace};

/// Monochrome files of transfer syntaxes that are read, which are refused all the same.
const REFUSED: [(&str, &str); 9] = [
    // A delimiter was written over its JPEG 2000 header.
    (
        "JPEG2000-embedded-sequence-delimiter.dcm",
        "holds an image of 1024 rows, 3722445056 columns",
    ),
    ("MR_truncated.dcm", "the file is cut short"),
    ("badVR.dcm", "NumberOfFrames is \"1A\""),
    // Segmentations: no CT has one bit a pixel.
    ("liver_1frame.dcm", "BitsAllocated is 1"),
    ("liver_expb_1frame.dcm", "BitsAllocated is 1"),
    ("liver.dcm", "BitsAllocated is 1"),
    ("liver_expb.dcm", "BitsAllocated is 1"),
    ("meta_missing_tsyntax.dcm", "TransferSyntaxUID is missing"),
    (
        "emri_small_jpeg_2k_lossless_too_short.dcm",
        "the file is cut short",
    ),
];

fn numbers<const N: usize, T>(path: &Path, number: impl Fn([u8; N]) -> T) -> Vec<T> {
    let bytes = fs::read(path).unwrap();
    bytes
        .as_chunks::<N>()
        .0
        .iter()
        .map(|chunk| number(*chunk))
        .collect()
}

#[test]
fn pixels_equal_those_of_pydicom() {
    let folder = tempfile::tempdir().unwrap();
    let result = Command::new(python())
        .arg(workspace().join("tests/python/dump_dicom.py"))
        .arg(folder.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&result.stderr);
    assert!(
        !stderr.contains("ModuleNotFoundError"),
        "{stderr}\nrun `make setup-tests`"
    );
    assert!(result.status.success(), "{stderr}");

    let mut counts: BTreeMap<(String, &str), usize> = BTreeMap::new();
    let (mut faults, mut hu_compared) = (Vec::new(), 0);
    let index = fs::read_to_string(folder.path().join("index.tsv")).unwrap();
    for line in index.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [path, kind, syntax, monochrome, lossy, hu, values, why] = fields[..] else {
            panic!("{line}");
        };
        let path = Path::new(path);
        let name = path.file_name().unwrap().to_string_lossy();
        let reference = (values != "-").then(|| {
            numbers(&folder.path().join(values), |bytes: [u8; 8]| {
                i64::from_le_bytes(bytes)
            })
        });
        let outcome = match (read_stored(path), reference) {
            (Ok(read), Some(reference)) => {
                assert_eq!(read.values.len(), read.frames * read.rows * read.cols);
                let difference = read
                    .values
                    .iter()
                    .zip(&reference)
                    .map(|(a, b)| a.abs_diff(*b))
                    .max();
                match difference {
                    Some(0) if read.values.len() == reference.len() => "equal",
                    Some(1) if lossy == "1" && read.values.len() == reference.len() => "within 1",
                    _ => {
                        faults.push(format!("{name}: differs by {difference:?}"));
                        "differs"
                    }
                }
            }
            (Ok(_), None) => "pydicom fails",
            (Err(error), reference) => {
                let error = error.to_string();
                let expected = REFUSED.iter().find(|(file, _)| *file == name);
                if let Some((_, reason)) = expected {
                    if !error.contains(reason) {
                        faults.push(format!("{name}: refused for another reason: {error}"));
                    }
                } else if monochrome == "1" && why != "no PixelData" {
                    faults.push(error);
                }
                match reference {
                    Some(_) if monochrome == "0" => "refused: colour",
                    Some(_) => "refused",
                    None => "neither reads",
                }
            }
        };
        *counts.entry((syntax.to_owned(), outcome)).or_default() += 1;
        if hu != "-" {
            let expected = numbers(&folder.path().join(hu), |bytes: [u8; 2]| {
                i16::from_le_bytes(bytes)
            });
            match hu_of(path) {
                Ok(read) if read == expected => hu_compared += 1,
                Ok(_) => faults.push(format!("{name}: other HU")),
                // What pydicom ships need not be a slice with a place.
                Err(error) if kind == "made" => faults.push(error.to_string()),
                Err(_) => {}
            }
        }
    }

    for ((syntax, outcome), count) in &counts {
        println!("{count:4} {outcome:15} {syntax}");
    }
    println!("{hu_compared:4} equal in HU");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let total = |wanted: &str| -> usize {
        counts
            .iter()
            .filter(|((_, outcome), _)| *outcome == wanted)
            .map(|(_, count)| count)
            .sum()
    };
    assert!(
        total("equal") >= FLOOR_EQUAL,
        "{} are equal",
        total("equal")
    );
    assert!(total("refused") <= 4, "{} are refused", total("refused"));
    assert!(hu_compared >= FLOOR_HU, "{hu_compared} compared in HU");
    for syntax in [
        "1.2.840.10008.1.2",
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.1.2.1.98",
        "1.2.840.10008.1.2.1.99",
        "1.2.840.10008.1.2.2",
        "1.2.840.10008.1.2.5",
        "1.2.840.10008.1.2.4.50",
        "1.2.840.10008.1.2.4.51",
        "1.2.840.10008.1.2.4.57",
        "1.2.840.10008.1.2.4.70",
        "1.2.840.10008.1.2.4.80",
        "1.2.840.10008.1.2.4.81",
        "1.2.840.10008.1.2.4.90",
        "1.2.840.10008.1.2.4.91",
        "1.2.840.10008.1.2.4.201",
        "1.2.840.10008.1.2.4.202",
        "1.2.840.10008.1.2.4.203",
    ] {
        let equal = ["equal", "within 1"]
            .iter()
            .any(|outcome| counts.contains_key(&(syntax.to_owned(), *outcome)));
        assert!(equal, "no file of {syntax} was read");
    }
}

/// What is equal today; the versions of the packages are fixed.
const FLOOR_EQUAL: usize = 232;
const FLOOR_HU: usize = 32;

/// HU of all frames, (frames, rows, columns).
fn hu_of(path: &Path) -> data::Result<Vec<i16>> {
    let headers = read_headers(path)?;
    let frames: Vec<usize> = headers.iter().map(|header| header.frame).collect();
    let slices = read_frames(path, &frames)?;
    // The places are those of the frames, and one frame alone reads the same.
    for (slice, header) in slices.iter().zip(&headers) {
        assert_eq!(&slice.header, header);
    }
    if let Some(last) = frames.last() {
        assert_eq!(read_frames(path, &[*last])?.first(), slices.last());
    }
    let beyond = read_frames(path, &[frames.len()]).unwrap_err().to_string();
    assert!(beyond.contains("there is no frame"), "{beyond}");
    if path.ends_with("enhanced_native.dcm") {
        let heights: Vec<f64> = headers.iter().map(|header| header.position[2]).collect();
        assert_eq!(heights, [25.5, 30.0, 24.0, 28.5, 27.0]);
    }
    Ok(slices.into_iter().flat_map(|slice| slice.hu).collect())
}
