//! Studies: slices are ordered by where they are, head first; what is no volume is refused; a real neck CT reads.

use std::fs;
use std::path::{Path, PathBuf};

use data::dicom::write::{SliceToWrite, write_ct_slice};
use data::volume::{read_study, study_header};
use data::{DataError, StudyUid};

const STUDY: &str = "1.2.826.0.1.3680043.9.7777.6";

/// A slice of 2 x 3 voxels whose HU are all `z`, or else `hu`, at height `z` mm.
struct Slice {
    number: u32,
    z: i16,
    study: &'static str,
    series: &'static str,
    rows: u16,
    orientation: [f64; 6],
    spacing: [f64; 2],
    hu: Option<i16>,
}

fn at(number: u32, z: i16) -> Slice {
    Slice {
        number,
        z,
        study: STUDY,
        series: "1.2.3.4",
        rows: 2,
        orientation: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        spacing: [0.5, 0.25],
        hu: None,
    }
}

fn write(dir: &Path, slices: &[Slice]) -> PathBuf {
    let folder = dir.join(STUDY);
    fs::create_dir_all(&folder).unwrap();
    for slice in slices {
        let study = StudyUid::new(slice.study).unwrap();
        let sop = format!("1.2.3.4.{}", slice.number);
        let file = SliceToWrite {
            study: &study,
            series_uid: slice.series,
            sop_instance_uid: &sop,
            instance_number: slice.number,
            position: [-1.0, -2.0, f64::from(slice.z)],
            orientation: slice.orientation,
            pixel_spacing: slice.spacing,
            slice_thickness: 1.0,
            rows: slice.rows,
            cols: 3,
            hu: &vec![slice.hu.unwrap_or(slice.z); usize::from(slice.rows) * 3],
            signed: true,
            rescale_intercept: 0,
        };
        write_ct_slice(&folder.join(format!("{}.dcm", slice.number)), &file).unwrap();
    }
    folder
}

#[test]
fn both_directions_of_numbering_give_head_first() {
    for (slices, numbers) in [
        ([at(1, 30), at(2, 20), at(10, 10)], [1, 2, 10]),
        ([at(1, 10), at(2, 20), at(10, 30)], [10, 2, 1]),
        ([at(4, 20), at(5, 30), at(6, 10)], [5, 4, 6]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let volume = read_study(&write(dir.path(), &slices)).unwrap();
        assert_eq!(volume.slice_numbers, numbers);
        let expected: Vec<i16> = [30, 20, 10].into_iter().flat_map(|z| [z; 6]).collect();
        assert_eq!(volume.hu, expected);
        assert_eq!(volume.study.as_str(), STUDY);
        let geometry = volume.geometry;
        assert_eq!(geometry.shape(), [3, 2, 3]);
        assert_eq!(
            (geometry.origin, geometry.step),
            ([-1.0, -2.0, 30.0], [0.0, 0.0, -10.0])
        );
        // Row 1, column 2, slice 1: spacing is between rows, then between columns.
        assert_eq!(
            geometry.voxel_to_lps().apply([2.0, 1.0, 1.0]),
            [-0.5, -1.5, 20.0]
        );
    }
}

#[test]
fn a_mirrored_normal_does_not_turn_the_order() {
    let dir = tempfile::tempdir().unwrap();
    // Rows run to the right: the cross product of row and column points down.
    let mirrored = |number, z| Slice {
        orientation: [-1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        ..at(number, z)
    };
    let folder = write(
        dir.path(),
        &[mirrored(1, 10), mirrored(2, 30), mirrored(3, 20)],
    );
    assert_eq!(study_header(&folder).unwrap().slice_numbers, [2, 3, 1]);
}

#[test]
fn headers_tell_uneven_steps_and_runs_of_slices_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let folder = write(dir.path(), &[at(1, 30), at(2, 20), at(3, 0)]);
    let header = study_header(&folder).unwrap();
    assert_eq!(header.depths, [0.0, 10.0, 30.0]);
    assert_eq!(header.slice_path(2), Some(folder.join("3.dcm")));
    assert_eq!(header.slice_path(3), None);
    assert_eq!(
        header.read_slices(1..3).unwrap(),
        [[20; 6], [0; 6]].concat()
    );
    assert!(matches!(
        header.read_slices(2..4),
        Err(DataError::Study { .. })
    ));
}

#[test]
fn slices_that_make_no_volume_are_refused() {
    let turned = [0.8, 0.6, 0.0, -0.6, 0.8, 0.0];
    let cases: [(&str, Vec<Slice>); 8] = [
        (
            "SeriesInstanceUID",
            vec![
                at(1, 1),
                at(2, 2),
                Slice {
                    series: "1.2.3.5",
                    ..at(3, 3)
                },
            ],
        ),
        (
            "StudyInstanceUID",
            vec![
                at(1, 1),
                Slice {
                    study: "1.2.9",
                    ..at(2, 2)
                },
            ],
        ),
        (
            "Rows x Columns",
            vec![
                at(1, 1),
                Slice {
                    rows: 4,
                    ..at(2, 2)
                },
            ],
        ),
        (
            "ImageOrientationPatient",
            vec![
                at(1, 1),
                Slice {
                    orientation: turned,
                    ..at(2, 2)
                },
            ],
        ),
        (
            "PixelSpacing",
            vec![
                at(1, 1),
                Slice {
                    spacing: [0.5, 0.5],
                    ..at(2, 2)
                },
            ],
        ),
        (
            "ImagePositionPatient",
            vec![
                at(1, 1),
                at(2, 2),
                Slice {
                    hu: Some(9),
                    ..at(3, 2)
                },
            ],
        ),
        ("one slice only", vec![at(1, 1)]),
        ("holds no file", vec![]),
    ];
    for (expected, slices) in cases {
        let dir = tempfile::tempdir().unwrap();
        let error = read_study(&write(dir.path(), &slices))
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains(STUDY), "{error}");
    }
}

#[test]
fn folders_are_checked_too() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("1.2.3");
    assert!(matches!(
        read_study(&missing),
        Err(DataError::StudyMissing { .. })
    ));

    let folder = write(dir.path(), &[at(1, 1), at(2, 2)]);
    for ignored in ["._1.dcm", "notes.txt"] {
        fs::write(folder.join(ignored), b"not a slice").unwrap();
    }
    assert!(read_study(&folder).is_ok());

    fs::rename(&folder, &missing).unwrap();
    let error = read_study(&missing).unwrap_err().to_string();
    assert!(
        error.contains(STUDY) && error.contains("name the folder"),
        "{error}"
    );

    let other = dir.path().join("a study");
    fs::rename(&missing, &other).unwrap();
    assert!(
        read_study(&other).is_ok(),
        "a name that is no UID claims nothing"
    );
    fs::write(other.join("scout.dcm"), b"").unwrap();
    assert!(
        read_study(&other)
            .unwrap_err()
            .to_string()
            .contains("scout.dcm")
    );
}

/// The folder of real data that some checkouts have beside them.
fn shared() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let root = std::env::var_os("SPINECTL_SHARED").map_or(beside, PathBuf::from);
    let data = root.join("data");
    data.is_dir().then_some(data)
}

#[test]
fn a_real_neck_ct_reads_head_first() {
    let Some(data) = shared() else {
        eprintln!("skipped: no real data (set SPINECTL_SHARED)");
        return;
    };
    let folder = data.join("neck/train_images/1.2.826.0.1.3680043.9.7777.1");
    let volume = read_study(&folder).unwrap();
    let geometry = volume.geometry;
    assert_eq!(geometry.shape(), [93, 64, 64]);
    assert_eq!(
        (geometry.spacing, geometry.step),
        ([3.2, 3.2], [0.0, 0.0, -1.5])
    );
    assert_eq!(volume.slice_numbers, (1..=93).collect::<Vec<_>>());
    // Air around a head with bone in it.
    let slice = |n: usize| &volume.hu[n * 4096..(n + 1) * 4096];
    assert!(slice(40)[0] < -900 && slice(40).iter().any(|&hu| hu > 700));
}
