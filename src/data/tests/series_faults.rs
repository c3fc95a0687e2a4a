//! Series with faults: each is either handled with a finding, or refused with its files named.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use data::dicom::write::{SliceToWrite, write_ct_slice};
use data::volume::{FindingKind, StudyHeader, find_study, study_header};
use data::{DataError, StudyUid};

const STUDY: &str = "1.2.826.0.1.3680043.9.7777.61";

/// One file of a series: 4 x 5 voxels of `hu`.
#[derive(Clone)]
struct File {
    name: String,
    instance: String,
    series: &'static str,
    position: [f64; 3],
    orientation: [f64; 6],
    spacing: [f64; 2],
    rows: u16,
    hu: i16,
    /// ImageType says LOCALIZER.
    scout: bool,
}

const AXIAL: [f64; 6] = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0];

/// A good series of 40 slices, 1 mm apart, head first; slice `n` holds `n` HU.
fn series() -> Vec<File> {
    (1..=40)
        .map(|n: i16| File {
            name: format!("{n}.dcm"),
            instance: format!("1.2.3.{n}"),
            series: "1.2.3",
            position: [-10.0, -20.0, 100.0 - f64::from(n)],
            orientation: AXIAL,
            spacing: [0.5, 0.5],
            rows: 4,
            hu: n,
            scout: false,
        })
        .collect()
}

fn write_file(folder: &Path, file: &File) {
    let path = folder.join(&file.name);
    write_ct_slice(
        &path,
        &SliceToWrite {
            study: &StudyUid::new(STUDY).unwrap(),
            series_uid: file.series,
            sop_instance_uid: &file.instance,
            instance_number: 1,
            position: file.position,
            orientation: file.orientation,
            pixel_spacing: file.spacing,
            slice_thickness: 1.0,
            rows: file.rows,
            cols: 5,
            hu: &vec![file.hu; usize::from(file.rows) * 5],
            signed: true,
            rescale_intercept: 0,
        },
    )
    .unwrap();
    if file.scout {
        // Of the same length, as ImageType is written.
        replace(
            &path,
            b"DERIVED\\PRIMARY\\AXIAL ",
            b"ORIGIN\\PRIM\\LOCALIZER ",
        );
    }
}

/// Replaces the one occurrence of `from`.
fn replace(path: &Path, from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.windows(from.len()).position(|w| w == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
    fs::write(path, bytes).unwrap();
}

fn write(dir: &tempfile::TempDir, files: &[File]) -> PathBuf {
    let folder = dir.path().join(STUDY);
    fs::create_dir_all(&folder).unwrap();
    for file in files {
        write_file(&folder, file);
    }
    folder
}

/// The header of a series, and its findings by kind.
fn read(files: &[File]) -> (StudyHeader, BTreeMap<String, String>) {
    let dir = tempfile::tempdir().unwrap();
    let header = study_header(&write(&dir, files)).unwrap();
    let findings = findings(&header);
    (header, findings)
}

fn findings(header: &StudyHeader) -> BTreeMap<String, String> {
    let by_kind =
        |finding: &data::volume::Finding| (format!("{:?}", finding.kind), finding.message.clone());
    header.findings.iter().map(by_kind).collect()
}

/// The one finding that a series has.
fn only(files: &[File], kind: FindingKind) -> (StudyHeader, String) {
    let (header, found) = read(files);
    let kinds: Vec<_> = header.findings.iter().map(|f| f.kind).collect();
    assert_eq!(kinds, [kind], "{found:?}");
    let message = header.findings[0].message.clone();
    (header, message)
}

/// Why a series is refused; the words that must be in it.
fn refused(files: &[File], words: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let error = study_header(&write(&dir, files)).unwrap_err().to_string();
    for word in words.iter().chain(&[STUDY]) {
        assert!(error.contains(word), "{word}: {error}");
    }
}

#[test]
fn a_good_series_has_no_findings() {
    let (header, found) = read(&series());
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(header.slice_numbers, (1..=40).collect::<Vec<_>>());
}

#[test]
fn repeated_slices_are_left_out() {
    let mut files = series();
    let again = File {
        name: "copy of 7".into(),
        ..files[6].clone()
    };
    // A copy under another UID, too.
    let renamed = File {
        name: "1007.dcm".into(),
        instance: "1.2.3.1007".into(),
        ..files[8].clone()
    };
    files.extend([again, renamed]);
    let (header, message) = only(&files, FindingKind::Duplicate);
    assert!(
        message.contains("copy of 7") && message.contains("1007.dcm"),
        "{message}"
    );
    // Names are numbers again once the copies are gone.
    assert_eq!(header.slice_numbers, (1..=40).collect::<Vec<_>>());
    assert_eq!(header.files().len(), 40);
}

#[test]
fn other_pixels_at_one_place_are_refused() {
    let mut files = series();
    let contrast = File {
        name: "1007.dcm".into(),
        hu: 300,
        ..files[6].clone()
    };
    files.push(contrast);
    refused(
        &files,
        &["7.dcm", "1007.dcm", "ImagePositionPatient", "other pixels"],
    );
    files[40].position[0] += 3.0;
    refused(&files, &["7.dcm", "1007.dcm", "another place"]);
}

#[test]
fn one_uid_for_all_slices_is_an_anonymisers_work() {
    let mut files = series();
    for file in &mut files {
        file.instance = "1.2.3.0".into();
    }
    let (header, message) = only(&files, FindingKind::RepeatedUid);
    assert_eq!(header.slice_numbers.len(), 40);
    assert!(
        message.contains("2.dcm") && message.contains("38 more"),
        "{message}"
    );
}

#[test]
fn scout_views_are_left_out() {
    let mut files = series();
    files.push(File {
        name: "41.dcm".into(),
        series: "1.2.4",
        orientation: [0.0, 1.0, 0.0, 0.0, 0.0, -1.0],
        scout: true,
        ..files[0].clone()
    });
    let (header, message) = only(&files, FindingKind::Localizer);
    assert!(message.contains("41.dcm"), "{message}");
    assert_eq!(header.geometry.slices, 40);

    let dir = tempfile::tempdir().unwrap();
    let error = study_header(&write(&dir, &files[40..])).unwrap_err();
    assert!(
        error.to_string().contains("no slice but 1 scout"),
        "{error}"
    );
}

#[test]
fn two_series_are_refused_with_their_sizes() {
    let mut files = series();
    for n in [5, 6, 7] {
        files[n].series = "1.2.9";
    }
    refused(
        &files,
        &[
            "1.dcm",
            "6.dcm",
            "1.2.3 (37 slices)",
            "1.2.9 (3 slices)",
            "one series a folder",
        ],
    );
}

#[test]
fn missing_slices_are_found_and_a_hole_for_a_vertebra_is_refused() {
    let mut files = series();
    files.drain(19..22);
    let (header, message) = only(&files, FindingKind::Gap);
    assert!(
        message.contains("19.dcm") && message.contains("23.dcm"),
        "{message}"
    );
    assert!(message.contains("about 3 slice(s)"), "{message}");
    assert_eq!(header.geometry.slices, 37);

    let mut files = series();
    for file in &mut files[20..] {
        file.position[2] -= 20.5;
    }
    refused(&files, &["20.dcm", "21.dcm", "21.5 mm apart", "vertebra"]);
}

#[test]
fn unequal_steps_are_found() {
    let mut files = series();
    files[10].position[2] += 0.3;
    let (_, message) = only(&files, FindingKind::UnequalSpacing);
    assert!(message.contains("0.70 to 1.30 mm"), "{message}");

    // Coarse slices over the chest, where the step is another on purpose, are no gaps.
    let mut files = series();
    for (n, file) in files.iter_mut().enumerate().skip(30) {
        file.position[2] -= 2.0 * (n as f64 - 30.0);
    }
    let (_, message) = only(&files, FindingKind::UnequalSpacing);
    assert!(message.contains("1.00 to 3.00 mm"), "{message}");

    // Positions rounded to a tenth are even.
    let mut files = series();
    for (n, file) in files.iter_mut().enumerate() {
        file.position[2] = (1000.0 - 6.25 * n as f64).round() / 10.0;
    }
    assert!(read(&files).1.is_empty());
}

#[test]
fn a_tilted_gantry_is_in_the_geometry() {
    let tilt = 12.0_f64.to_radians();
    let mut files = series();
    for (n, file) in files.iter_mut().enumerate() {
        // Slices lean, the table moves along the body.
        file.orientation = [1.0, 0.0, 0.0, 0.0, tilt.cos(), -tilt.sin()];
        file.position = [-10.0, -20.0, 100.0 - 1.5 * n as f64];
    }
    let (header, found) = read(&files);
    let message = &found["GantryTilt"];
    assert!(message.contains("12.0 degrees"), "{message}");
    assert!(
        found.contains_key("Oblique") && found.len() == 2,
        "{found:?}"
    );
    let step = header.geometry.step;
    let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
    assert!(close(step[0], 0.0) && close(step[1], 0.0) && close(step[2], -1.5));
    assert!(close(header.depths[1], 1.5 * tilt.cos()));

    // A sheared stack is one, too, up to what no gantry does.
    let mut files = series();
    for (n, file) in files.iter_mut().enumerate() {
        file.position[1] += 0.2 * n as f64;
    }
    let (_, message) = only(&files, FindingKind::GantryTilt);
    assert!(message.contains("11.3 degrees"), "{message}");
    for (n, file) in files.iter_mut().enumerate() {
        file.position[1] += 1.0 * n as f64;
    }
    refused(&files, &["1.dcm", "40.dcm", "50 degrees"]);
}

#[test]
fn a_stack_that_is_not_straight_is_refused() {
    let mut files = series();
    for (n, file) in files.iter_mut().enumerate() {
        file.position[0] += (n as f64 / 6.0).sin() * 4.0;
    }
    refused(&files, &["1.dcm", "straight", "mm beside"]);
    // Less than half a millimetre is rounding.
    let mut files = series();
    files[9].position[0] += 0.3;
    assert!(read(&files).1.is_empty());
}

#[test]
fn any_matrix_is_read_and_pixels_that_are_no_squares_are_found() {
    let mut files = series();
    for file in &mut files {
        (file.rows, file.spacing) = (9, [0.8, 0.5]);
    }
    let (header, message) = only(&files, FindingKind::NonSquarePixels);
    assert!(message.contains("0.8 mm high and 0.5 mm wide"), "{message}");
    assert_eq!(header.geometry.shape(), [40, 9, 5]);
    let dir = tempfile::tempdir().unwrap();
    let header = study_header(&write(&dir, &files)).unwrap();
    assert_eq!(header.read_slices(39..40).unwrap(), [40; 45]);
}

#[test]
fn a_matrix_beyond_every_scanner_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let folder = write(&dir, &series());
    // Rows, Columns as written: US, 2 bytes.
    let element = |tag: u8, side: u16| {
        let [low, high] = side.to_le_bytes();
        [0x28, 0x00, tag, 0x00, b'U', b'S', 2, 0, low, high]
    };
    for n in 1..=40 {
        let path = folder.join(format!("{n}.dcm"));
        replace(&path, &element(0x10, 4), &element(0x10, 8000));
        replace(&path, &element(0x11, 5), &element(0x11, 8000));
    }
    let error = study_header(&folder).unwrap_err().to_string();
    assert!(
        error.contains("1.dcm") && error.contains("Rows is 8000 with 8000 columns"),
        "{error}"
    );
}

#[test]
fn coronal_and_sagittal_stacks_are_refused() {
    let coronal = [1.0, 0.0, 0.0, 0.0, 0.0, -1.0];
    let sagittal = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0];
    for (orientation, axis) in [(coronal, 1), (sagittal, 0)] {
        let mut files = series();
        for (n, file) in files.iter_mut().enumerate() {
            file.orientation = orientation;
            file.position = [-10.0, -20.0, 100.0];
            file.position[axis] += n as f64;
        }
        refused(
            &files,
            &["1.dcm", "ImageOrientationPatient", "coronal or sagittal"],
        );
    }
}

#[test]
fn oblique_turned_and_short_studies_are_found() {
    let (sin, cos) = 25.0_f64.to_radians().sin_cos();
    let mut files = series();
    for (n, file) in files.iter_mut().enumerate() {
        file.orientation = [1.0, 0.0, 0.0, 0.0, cos, sin];
        file.position = [-10.0, -20.0 + sin * n as f64, 100.0 - cos * n as f64];
    }
    let (_, message) = only(&files, FindingKind::Oblique);
    assert!(message.contains("25.0 degrees"), "{message}");

    let mut prone = series();
    for file in &mut prone {
        file.orientation = [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0];
    }
    let (_, message) = only(&prone, FindingKind::Turned);
    assert!(
        message.contains("turned") && message.contains("to right"),
        "{message}"
    );
    for file in &mut prone {
        file.orientation = [-1.0, 0.0, 0.0, 0.0, 1.0, 0.0];
    }
    let (_, message) = only(&prone, FindingKind::Turned);
    assert!(message.contains("mirrored"), "{message}");

    let (_, message) = only(&series()[..29], FindingKind::FewSlices);
    assert!(message.contains("29 slices"), "{message}");
}

#[test]
fn sizes_spacings_and_orientations_do_not_mix() {
    let with = |change: fn(&mut File)| {
        let mut files = series();
        change(&mut files[11]);
        files
    };
    refused(&with(|f| f.rows = 6), &["12.dcm", "Rows x Columns"]);
    refused(
        &with(|f| f.spacing = [0.5, 0.6]),
        &["12.dcm", "PixelSpacing"],
    );
    refused(
        &with(|f| f.orientation = [0.8, 0.6, 0.0, -0.6, 0.8, 0.0]),
        &["12.dcm", "ImageOrientationPatient"],
    );
}

/// As a CD from a hospital looks.
#[test]
fn a_name_that_is_no_number_among_numbers_is_refused() {
    let mut files = series();
    files[4].name = "05.dcm".into();
    refused(&files, &["39 of its 40 slices", "05.dcm", "or none"]);
}

#[test]
fn hospital_folders_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = series();
    for (n, file) in files.iter_mut().enumerate() {
        // Names that run to the head, one of them with another ending.
        file.name = format!("IM{:04}", 40 - n);
    }
    files[3].name = "IM0037.IMA".into();
    let folder = write(&dir, &files);
    let renamed = dir.path().join("patient-17_ct");
    fs::rename(&folder, &renamed).unwrap();

    fs::write(renamed.join("notes.txt"), b"read me").unwrap();
    fs::write(renamed.join("Thumbs.db"), [0xD0; 600]).unwrap();
    fs::write(renamed.join(".DS_Store"), b"").unwrap();
    fs::write(renamed.join("DICOMDIR"), directory("1.2.840.10008.1.3.10")).unwrap();
    let report = directory("1.2.840.10008.5.1.4.1.1.88.67");
    fs::write(renamed.join("IM9999"), report).unwrap();
    fs::create_dir(renamed.join("series 2")).unwrap();
    fs::write(renamed.join("series 2/IM0001"), b"not looked at").unwrap();

    let study = StudyUid::new("patient-17_ct").unwrap();
    let header = find_study(dir.path(), &study).unwrap();
    assert_eq!(header.study, study);
    assert_eq!(header.slice_numbers, (1..=40).collect::<Vec<_>>());
    let hu = header.read_slices(0..40).unwrap();
    assert!(hu.chunks(20).zip(1..).all(|(slice, n)| slice == [n; 20]));
    let found = findings(&header);
    assert_eq!(found.len(), 1, "{found:?}");
    let message = &found["PassedOver"];
    for name in [".DS_Store", "DICOMDIR", "IM9999", "Thumbs.db", "1 more"] {
        assert!(message.contains(name), "{name}: {message}");
    }
    // Findings go into reports.
    let json = serde_json::to_string(&header.findings).unwrap();
    assert!(json.contains("\"kind\":\"passed_over\""), "{json}");

    // A slice that is damaged is not passed over, whatever its name.
    let path = renamed.join("IM0005");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..400]).unwrap();
    let error = find_study(dir.path(), &study).unwrap_err().to_string();
    assert!(error.contains("IM0005"), "{error}");
}

/// The beginning of a DICOM file of another class than images.
fn directory(class: &str) -> Vec<u8> {
    let mut file = vec![0; 128];
    file.extend(b"DICM");
    let uid = format!("{class}\0");
    let uid = &uid.as_bytes()[..uid.len() / 2 * 2];
    file.extend([2, 0, 2, 0, b'U', b'I', uid.len() as u8, 0]);
    file.extend(uid);
    file.extend([2, 0, 0x10, 0, b'U', b'I', 20, 0]);
    file.extend(b"1.2.840.10008.1.2.1\0");
    file.extend([8, 0, 0x60, 0, b'C', b'S', 2, 0, b'S', b'R']);
    file
}

#[test]
fn a_folder_named_by_a_uid_holds_that_study() {
    let dir = tempfile::tempdir().unwrap();
    let folder = write(&dir, &series());
    let other = dir.path().join("1.2.3.4");
    fs::rename(&folder, &other).unwrap();
    let study = StudyUid::new("1.2.3.4").unwrap();
    let error = find_study(dir.path(), &study).unwrap_err();
    assert!(matches!(error, DataError::Study { .. }), "{error}");
    assert!(error.to_string().contains(STUDY), "{error}");
    // A number alone is a hospital's own, and no UID.
    fs::rename(&other, dir.path().join("0017")).unwrap();
    let study = StudyUid::new("0017").unwrap();
    assert_eq!(find_study(dir.path(), &study).unwrap().study, study);
}
