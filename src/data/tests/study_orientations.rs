//! The same patient scanned in any direction, and segmented in any order of axes: the same labels on the same slices.

use std::fs;
use std::path::Path;

use data::dicom::write::{SliceToWrite, write_ct_slice};
use data::nifti::read_labels;
use data::nifti::write::{Layout, write_nifti_i16, write_nifti_u8};
use data::phantom::{SynthOptions, synthesize};
use data::targets::slice_targets;
use data::volume::{Volume, find_study, read_study, studies_below, study_header};
use data::{DataError, Geometry};

/// A phantom patient and its labels, head first.
fn patient(dir: &Path) -> (Volume, Vec<u8>) {
    let options = SynthOptions {
        out: dir.join("phantom"),
        studies: 1,
        slices: 40,
        size: 48,
        seed: 21,
        segmented: 1.0,
        ..SynthOptions::default()
    };
    synthesize(&options, &|_, _| ()).unwrap();
    let images = options.out.join("train_images");
    let study = &studies_below(&images).unwrap()[0];
    let header = find_study(&images, study).unwrap();
    let volume = read_study(&header.path).unwrap();
    let labels = options
        .out
        .join("segmentations")
        .join(format!("{study}.nii"));
    let labels = read_labels(&labels, &volume.geometry).unwrap().labels;
    assert!((1..=7).all(|vertebra| labels.contains(&vertebra)));
    (volume, labels)
}

/// Rotates by `degrees` about the axis from right to left, as a gantry tilts.
fn tilted(v: [f64; 3], degrees: f64) -> [f64; 3] {
    let (sin, cos) = degrees.to_radians().sin_cos();
    [v[0], cos * v[1] - sin * v[2], sin * v[1] + cos * v[2]]
}

/// Rotates by `degrees` about the axis from feet to head, as a head turns.
fn turned(v: [f64; 3], degrees: f64) -> [f64; 3] {
    let (sin, cos) = degrees.to_radians().sin_cos();
    [cos * v[0] - sin * v[1], sin * v[0] + cos * v[1], v[2]]
}

/// The ways in which the voxels of one scan may lie in the patient.
fn placements(axial: Geometry) -> Vec<(&'static str, Geometry)> {
    let placed = |turn: &dyn Fn([f64; 3]) -> [f64; 3]| Geometry {
        origin: turn(axial.origin),
        row: turn(axial.row),
        col: turn(axial.col),
        step: turn(axial.step),
        ..axial
    };
    vec![
        ("axial", axial),
        // The slices lean by 20 degrees, the table moves on as before.
        (
            "tilted gantry",
            Geometry {
                col: tilted(axial.col, 20.0),
                ..axial
            },
        ),
        ("tilted head", placed(&|v| tilted(v, -15.0))),
        ("oblique", placed(&|v| turned(tilted(v, 25.0), 18.0))),
    ]
}

fn write_series(folder: &Path, volume: &Volume, geometry: &Geometry, numbers: &[u32]) {
    fs::create_dir_all(folder).unwrap();
    let pixels = geometry.rows * geometry.cols;
    let [a, b] = [geometry.row, geometry.col];
    for (index, (hu, number)) in volume.hu.chunks_exact(pixels).zip(numbers).enumerate() {
        let slice = SliceToWrite {
            study: &volume.study,
            series_uid: "1.2.3",
            sop_instance_uid: &format!("1.2.3.{number}"),
            instance_number: *number,
            position: geometry.voxel_to_lps().apply([0.0, 0.0, index as f64]),
            orientation: [a[0], a[1], a[2], b[0], b[1], b[2]],
            pixel_spacing: geometry.spacing,
            slice_thickness: 1.0,
            rows: geometry.rows as u16,
            cols: geometry.cols as u16,
            hu,
            signed: true,
            rescale_intercept: 0,
        };
        write_ct_slice(&folder.join(format!("{number}.dcm")), &slice).unwrap();
    }
}

/// The same voxels with axes exchanged and reversed: new axis (column, row, slice) `i` is the old axis `order[i]`.
fn reordered<T: Copy>(
    geometry: &Geometry,
    voxels: &[T],
    order: [usize; 3],
    reversed: [bool; 3],
) -> (Geometry, Vec<T>) {
    let sides = [geometry.cols, geometry.rows, geometry.slices];
    let lps = geometry.voxel_to_lps();
    let vector = |axis: usize| lps.linear.map(|row| row[axis]);
    let length = |v: [f64; 3]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
    let [col, row, slice] = [0, 1, 2].map(|i| {
        let v = vector(order[i]);
        if reversed[i] { v.map(|v| -v) } else { v }
    });
    let mut first = [0.0; 3];
    for i in 0..3 {
        if reversed[i] {
            first[order[i]] = sides[order[i]] as f64 - 1.0;
        }
    }
    let [cols, rows, slices] = order.map(|axis| sides[axis]);
    let new = Geometry {
        origin: lps.apply(first),
        row: col.map(|v| v / length(col)),
        col: row.map(|v| v / length(row)),
        spacing: [length(row), length(col)],
        step: slice,
        rows,
        cols,
        slices,
    };
    let mut out = Vec::with_capacity(voxels.len());
    for k in 0..slices {
        for j in 0..rows {
            for i in 0..cols {
                let mut old = [0; 3];
                for (axis, (index, side)) in
                    [(i, cols), (j, rows), (k, slices)].into_iter().enumerate()
                {
                    old[order[axis]] = if reversed[axis] {
                        side - 1 - index
                    } else {
                        index
                    };
                }
                out.push(voxels[old[0] + sides[0] * (old[1] + sides[1] * old[2])]);
            }
        }
    }
    (new, out)
}

const ORDERS: [[usize; 3]; 6] = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
];

/// All 48 orders of axes. RAS is the columns and the rows reversed, and the slices too; LPS is the slices reversed.
fn orders() -> impl Iterator<Item = ([usize; 3], [bool; 3])> {
    ORDERS
        .into_iter()
        .flat_map(|order| (0..8).map(move |bits| (order, [0, 1, 2].map(|i| bits >> i & 1 == 1))))
}

#[test]
fn series_and_segmentations_in_any_direction_give_the_same_labels_and_targets() {
    let dir = tempfile::tempdir().unwrap();
    let (volume, labels) = patient(dir.path());
    let (rows, cols) = (volume.geometry.rows, volume.geometry.cols);
    let targets = slice_targets(&labels, rows, cols);
    let count = volume.geometry.slices as u32;
    let segmentation = dir.path().join("s.nii.gz");
    let mut compared = 0;
    for (name, geometry) in placements(volume.geometry) {
        // Numbers from the head, from the feet, and with holes.
        let numberings = [
            (1..=count).collect::<Vec<u32>>(),
            (1..=count).rev().collect(),
            (1..=count).map(|n| 3 * n + 7).collect(),
        ];
        for numbers in numberings {
            let folder = dir.path().join(format!("{name} {}", numbers[0]));
            write_series(&folder, &volume, &geometry, &numbers);
            let read = read_study(&folder).unwrap();
            assert_eq!(read.slice_numbers, numbers, "{name}");
            assert!(read.hu == volume.hu, "{name}: HU");
            for (order, reversed) in orders() {
                let (grid, voxels) = reordered(&geometry, &labels, order, reversed);
                write_nifti_u8(&segmentation, &grid, &voxels, Layout::AsStored).unwrap();
                let found = read_labels(&segmentation, &read.geometry).unwrap();
                assert!(found.labels == labels, "{name}, {order:?} {reversed:?}");
                assert_eq!(slice_targets(&found.labels, rows, cols), targets);
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 4 * 3 * 48);
}

#[test]
fn images_in_any_direction_are_one_study_and_labels_lie_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let (volume, labels) = patient(dir.path());
    let [image, segmentation] = ["ct.nii.gz", "s.nii"].map(|name| dir.path().join(name));
    for (name, geometry) in placements(volume.geometry) {
        write_nifti_u8(&segmentation, &geometry, &labels, Layout::Kaggle).unwrap();
        for (order, reversed) in orders() {
            let (grid, voxels) = reordered(&geometry, &volume.hu, order, reversed);
            write_nifti_i16(&image, &grid, &voxels, Layout::AsStored).unwrap();
            let header = study_header(&image).unwrap();
            let read = header.read_slices(0..header.geometry.slices).unwrap();
            assert!(read == volume.hu, "{name}, {order:?} {reversed:?}");
            let mut by_slice = vec![0; read.len()];
            let pixels = header.geometry.rows * header.geometry.cols;
            header
                .for_each_slice(0..header.geometry.slices, |index, slice| {
                    by_slice[index * pixels..][..pixels].copy_from_slice(slice);
                    Ok(())
                })
                .unwrap();
            assert!(by_slice == read, "{name}, {order:?} {reversed:?}");
            assert_eq!(
                header.read_slices(5..9).unwrap(),
                read[5 * pixels..9 * pixels]
            );
            let found = read_labels(&segmentation, &header.geometry).unwrap();
            assert!(found.labels == labels, "{name}, {order:?} {reversed:?}");
        }
    }
}

/// A segmentation of the same shape that belongs elsewhere.
#[test]
fn segmentations_that_do_not_match_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (volume, labels) = patient(dir.path());
    let study = volume.geometry;
    let shifted = |by: [f64; 3]| Geometry {
        origin: std::array::from_fn(|i| study.origin[i] + by[i]),
        ..study
    };
    let [between_rows, between_columns] = study.spacing;
    // Left and right mistaken, as by a writer that takes LPS for RAS: only where the volume lies tells.
    let mirrored = Geometry {
        origin: [-study.origin[0] + 40.0, study.origin[1], study.origin[2]],
        row: [-1.0, 0.0, 0.0],
        ..study
    };
    let others = [
        ("shifted", shifted([1.5 * between_columns, 0.0, 0.0])),
        ("shifted", shifted([0.0, 0.0, 1.5 * study.step[2]])),
        // Within the tolerance of a voxel's size, and many voxels off at the border.
        (
            "corner",
            Geometry {
                spacing: [between_rows * 1.095, between_columns * 1.095],
                origin: std::array::from_fn(|i| {
                    let middle = |v: f64, n: usize| 0.0475 * v * (n as f64 - 1.0);
                    study.origin[i]
                        - study.row[i] * middle(between_columns, study.cols)
                        - study.col[i] * middle(between_rows, study.rows)
                }),
                ..study
            },
        ),
        ("shifted", shifted([3.0 * between_columns, 0.0, 0.0])),
        ("shifted", shifted([0.0, -3.0 * between_rows, 0.0])),
        ("shifted", shifted([0.0, 0.0, 3.0 * study.step[2]])),
        ("shifted", mirrored),
        (
            "voxel size",
            Geometry {
                spacing: [between_rows * 1.2, between_columns],
                ..study
            },
        ),
        (
            "voxel size",
            Geometry {
                step: study.step.map(|v| v * 0.8),
                ..study
            },
        ),
    ];
    let path = dir.path().join("s.nii");
    for (expected, other) in others {
        write_nifti_u8(&path, &other, &labels, Layout::Kaggle).unwrap();
        let error = read_labels(&path, &study).unwrap_err();
        assert!(
            matches!(&error, DataError::SegmentationGrid { problem, .. } if problem.contains(expected)),
            "{expected}: {error}"
        );
    }
    let fewer = Geometry {
        slices: study.slices - 1,
        ..study
    };
    let pixels = study.rows * study.cols;
    write_nifti_u8(&path, &fewer, &labels[pixels..], Layout::Kaggle).unwrap();
    assert!(matches!(
        read_labels(&path, &study),
        Err(DataError::SegmentationShape { .. })
    ));
}
