//! Segmentations: whatever the orientation of the file, labels land on the voxels of the study that they belong to.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use data::nifti::write::{Layout, write_nifti_i16, write_nifti_u8};
use data::nifti::{NiftiGrid, read_grid, read_labels};
use data::{DataError, Geometry};

/// Axial slices running to the feet, as a study that has been read has them: 4 slices, 3 rows, 2 columns.
fn axial() -> Geometry {
    Geometry {
        origin: [-10.0, -20.0, 300.0],
        row: [1.0, 0.0, 0.0],
        col: [0.0, 1.0, 0.0],
        spacing: [0.5, 0.25],
        step: [0.0, 0.0, -1.25],
        rows: 3,
        cols: 2,
        slices: 4,
    }
}

fn labels() -> Vec<u8> {
    (0..24).collect()
}

/// The voxels of an uncompressed file of bytes, in the order in which they lie there.
fn voxels_on_disk(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()[352..].to_vec()
}

/// PIPELINE: flip y always, flip z too when the study's z runs downwards, then transpose (x, y, z) to (z, y, x).
fn by_the_rule(disk: &[u8], g: &Geometry) -> Vec<u8> {
    let mut study = Vec::new();
    for slice in 0..g.slices {
        let z = if g.step[2] < 0.0 {
            g.slices - 1 - slice
        } else {
            slice
        };
        for row in 0..g.rows {
            let y = g.rows - 1 - row;
            study.extend((0..g.cols).map(|x| disk[x + g.cols * (y + g.rows * z)]));
        }
    }
    study
}

#[test]
fn the_reference_rule_comes_out_of_the_affines() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.nii");
    let downwards = axial();
    let upwards = Geometry {
        step: [0.0, 0.0, 1.25],
        ..axial()
    };
    for geometry in [downwards, upwards] {
        write_nifti_u8(&path, &geometry, &labels(), Layout::Kaggle).unwrap();
        // x to the left, y to the front, z to the head: the sign of each axis in RAS.
        let NiftiGrid { affine, shape } = read_grid(&path).unwrap();
        assert_eq!(shape, [2, 3, 4]);
        assert_eq!(
            affine.linear,
            [[-0.25, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 1.25]]
        );
        assert_eq!(by_the_rule(&voxels_on_disk(&path), &geometry), labels());
        let read = read_labels(&path, &geometry).unwrap();
        assert_eq!((read.labels, read.shape), (labels(), [4, 3, 2]));
    }
}

#[test]
fn both_layouts_and_compression_read_back() {
    let dir = tempfile::tempdir().unwrap();
    for (name, layout) in [
        ("a.nii", Layout::AsStored),
        ("b.nii.gz", Layout::AsStored),
        ("c.nii.gz", Layout::Kaggle),
    ] {
        let path = dir.path().join(name);
        write_nifti_u8(&path, &axial(), &labels(), layout).unwrap();
        let read = read_labels(&path, &axial()).unwrap();
        assert_eq!(read.labels, labels(), "{name}");
        assert_eq!(read.slice(1), [6, 7, 8, 9, 10, 11], "{name}");
        assert!(read.slice(4).is_empty());
    }
    // HU are stored with the same order and place.
    let hu: Vec<i16> = (0..24).map(|v| v * 10).collect();
    let path = dir.path().join("d.nii");
    write_nifti_i16(&path, &axial(), &hu, Layout::Kaggle).unwrap();
    let read = read_labels(&path, &axial()).unwrap();
    assert_eq!(read.labels, (0..24).map(|v| v * 10).collect::<Vec<u8>>());
}

/// Sagittal slices (rows to the front, columns to the feet), through a tilted direction as well.
#[test]
fn other_orientations_land_too_by_sform_and_by_qform() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.nii");
    let (sin, cos) = 0.3_f64.sin_cos();
    let sagittal = Geometry {
        row: [0.0, -1.0, 0.0],
        col: [0.0, 0.0, -1.0],
        step: [-2.0, 0.0, 0.0],
        ..axial()
    };
    let oblique = Geometry {
        row: [cos, sin, 0.0],
        col: [0.0, 0.0, -1.0],
        step: [3.0 * sin, -3.0 * cos, 0.0],
        ..axial()
    };
    for geometry in [axial(), sagittal, oblique] {
        for layout in [Layout::Kaggle, Layout::AsStored] {
            write_nifti_u8(&path, &geometry, &labels(), layout).unwrap();
            let by_sform = read_grid(&path).unwrap().affine;
            assert_eq!(read_labels(&path, &geometry).unwrap().labels, labels());

            let mut bytes = fs::read(&path).unwrap();
            bytes[254] = 0; // sform_code
            fs::write(&path, &bytes).unwrap();
            let by_qform = read_grid(&path).unwrap().affine;
            for (s, q) in by_sform
                .linear
                .iter()
                .flatten()
                .zip(by_qform.linear.iter().flatten())
            {
                assert!((s - q).abs() < 1e-5, "{by_sform:?} {by_qform:?}");
            }
            assert_eq!(read_labels(&path, &geometry).unwrap().labels, labels());

            bytes[252] = 0; // qform_code
            fs::write(&path, &bytes).unwrap();
            let error = read_labels(&path, &geometry).unwrap_err().to_string();
            assert!(
                error.contains("where the volume lies is unknown"),
                "{error}"
            );
        }
    }
}

#[test]
fn a_segmentation_of_another_grid_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.nii");
    write_nifti_u8(&path, &axial(), &labels(), Layout::Kaggle).unwrap();
    let longer = Geometry {
        slices: 5,
        ..axial()
    };
    let error = read_labels(&path, &longer).unwrap_err();
    assert!(matches!(
        error,
        DataError::SegmentationShape {
            found: [4, 3, 2],
            expected: [5, 3, 2],
            ..
        }
    ));
    let others = [
        Geometry {
            spacing: [0.7, 0.25],
            ..axial()
        },
        Geometry {
            step: [0.0, 0.0, -2.0],
            ..axial()
        },
        Geometry {
            origin: [-10.0, -20.0, 350.0],
            ..axial()
        },
        Geometry {
            row: [0.8, 0.6, 0.0],
            col: [-0.6, 0.8, 0.0],
            ..axial()
        },
    ];
    for other in others {
        let error = read_labels(&path, &other).unwrap_err();
        assert!(
            matches!(error, DataError::SegmentationGrid { .. }),
            "{error}"
        );
    }
}

/// A float volume, big endian or little, scaled, behind an extension.
fn float_file(path: &Path, big_endian: bool, values: &[f32], slope: f32, inter: f32) {
    write_nifti_u8(path, &axial(), &labels(), Layout::AsStored).unwrap();
    let mut header = fs::read(path).unwrap()[..352].to_vec();
    header[70..74].copy_from_slice(&[16, 0, 32, 0]);
    header[108..112].copy_from_slice(&368_f32.to_le_bytes());
    header[112..116].copy_from_slice(&slope.to_le_bytes());
    header[116..120].copy_from_slice(&inter.to_le_bytes());
    if big_endian {
        let fields: [(std::ops::Range<usize>, usize); 6] = [
            (0..4, 4),
            (40..56, 2),
            (70..74, 2),
            (76..120, 4),
            (252..256, 2),
            (256..328, 4),
        ];
        for (range, size) in fields {
            header[range]
                .chunks_exact_mut(size)
                .for_each(|field| field.reverse());
        }
    }
    let mut file = fs::File::create(path).unwrap();
    file.write_all(&header).unwrap();
    file.write_all(&[0; 16]).unwrap();
    for value in values {
        let bytes = if big_endian {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        };
        file.write_all(&bytes).unwrap();
    }
}

#[test]
fn labels_may_be_scaled_floats_of_either_byte_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.nii");
    let stored: Vec<f32> = (0..24).map(|v| (v as f32 - 3.0) / 0.5).collect();
    for big_endian in [false, true] {
        float_file(&path, big_endian, &stored, 0.5, 3.0);
        assert_eq!(read_labels(&path, &axial()).unwrap().labels, labels());
    }
    // No number, or zero, as a slope means unscaled.
    let plain: Vec<f32> = (0..24).map(|v| v as f32).collect();
    for slope in [f32::NAN, 0.0] {
        float_file(&path, false, &plain, slope, 9.0);
        assert_eq!(read_labels(&path, &axial()).unwrap().labels, labels());
    }
    float_file(&path, false, &[2.5; 24], 1.0, 0.0);
    let error = read_labels(&path, &axial()).unwrap_err().to_string();
    assert!(error.contains("2.5, which is no label"), "{error}");
}

#[test]
fn truncations_are_errors_and_no_damaged_byte_of_a_compressed_file_changes_labels() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.nii.gz");
    for name in ["s.nii", "s.nii.gz"] {
        let path = dir.path().join(name);
        write_nifti_u8(&path, &axial(), &labels(), Layout::Kaggle).unwrap();
        let bytes = fs::read(&path).unwrap();
        for end in 0..bytes.len() {
            fs::write(&path, &bytes[..end]).unwrap();
            let error = read_labels(&path, &axial()).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
        fs::write(&path, &bytes).unwrap();
    }
    let bytes = fs::read(&path).unwrap();
    // The ten bytes of the gzip header hold a time and an operating system, which may be anything.
    for at in 10..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        fs::write(&path, damaged).unwrap();
        // Some bits of a deflate stream stand for nothing.
        let read = read_labels(&path, &axial());
        assert!(
            read.is_err() || read.unwrap().labels == labels(),
            "byte {at}"
        );
    }
}

#[test]
fn a_wrong_number_of_voxels_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.nii");
    let result = write_nifti_u8(&path, &axial(), &labels()[1..], Layout::Kaggle);
    assert!(matches!(
        result,
        Err(DataError::VoxelCount {
            found: 23,
            expected: 24,
            ..
        })
    ));
    assert!(!path.exists());
}

fn shared() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let root = std::env::var_os("SPINECTL_SHARED").map_or(beside, PathBuf::from);
    let data = root.join("data");
    data.is_dir().then_some(data)
}

/// A real label volume, stored posterior-inferior-right, onto an axial grid of the same voxels.
#[test]
fn a_real_segmentation_turns_onto_axial_slices() {
    let Some(data) = shared() else {
        eprintln!("skipped: no real data (set SPINECTL_SHARED)");
        return;
    };
    let path = data.join("spine_nifti/vertebrae.nii.gz");
    let NiftiGrid {
        shape: [p, i, r],
        affine,
    } = read_grid(&path).unwrap();
    assert_eq!([p, i, r], [73, 47, 73]);
    // RAS of the right-most, front-most, upper-most voxel: i runs to the back, j to the feet, k to the right.
    let corner = affine.apply([0.0, 0.0, (r - 1) as f64]);
    let geometry = Geometry {
        origin: [-corner[0], -corner[1], corner[2]],
        row: [1.0, 0.0, 0.0],
        col: [0.0, 1.0, 0.0],
        spacing: [1.5, 1.5],
        step: [0.0, 0.0, -1.5],
        rows: p,
        cols: r,
        slices: i,
    };
    let volume = read_labels(&path, &geometry).unwrap();
    let mut seen: Vec<u8> = volume.labels.clone();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, [0, 21, 22, 23]);
    // Lower vertebrae have higher numbers, and the slices go down.
    let mean_slice = |label| {
        let at = |i: usize| volume.slice(i).iter().filter(|&&v| v == label).count();
        let (sum, n) = (0..47).fold((0, 0), |(sum, n), i| (sum + i * at(i), n + at(i)));
        sum as f64 / n as f64
    };
    assert!(mean_slice(21) < mean_slice(22) && mean_slice(22) < mean_slice(23));
}
