//! NIfTI volumes are read as nibabel reads them: the files that nibabel ships, and generated ones of every type
//! (tests/python/nibabel_values.py).

mod interpreter;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use data::DataError;
use data::nifti::{NiftiGrid, read_labels, read_values};
use data::volume::read_study;

use interpreter::{python, workspace};

fn numbers<T: std::str::FromStr>(text: &str) -> Option<Vec<T>> {
    text.split(' ').map(|number| number.parse().ok()).collect()
}

/// Runs the script into `out`.
fn nibabel(out: &Path, studies: &[PathBuf]) {
    let result = Command::new(python())
        .arg(workspace().join("tests/python/nibabel_values.py"))
        .arg(out)
        .args(studies)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&result.stderr);
    assert!(
        result.status.success(),
        "{stderr}\nrun `make setup-tests` where a module is missing"
    );
}

#[test]
fn values_and_places_are_nibabels() {
    let dir = tempfile::tempdir().unwrap();
    nibabel(dir.path(), &[]);

    let index = fs::read_to_string(dir.path().join("index.tsv")).unwrap();
    let (mut shipped, mut generated, mut refused) = (0, 0, 0);
    for line in index.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [path, shape, values, affine] = fields[..] else {
            panic!("{line}");
        };
        let read = read_values(Path::new(path));
        let Some(shape) = numbers::<usize>(shape) else {
            let error = read.expect_err(line);
            assert!(
                matches!(error, DataError::Nifti { .. }) && error.to_string().contains(path),
                "{error}"
            );
            refused += 1;
            continue;
        };
        let (grid, found) = read.unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(grid.shape.to_vec(), shape, "{path}");
        let expected = fs::read(values).unwrap();
        let (expected, _) = expected.as_chunks::<8>();
        assert_eq!(found.len(), expected.len(), "{path}");
        for (n, (found, expected)) in found.iter().zip(expected).enumerate() {
            let expected = f64::from_le_bytes(*expected);
            assert!(
                *found == expected || found.is_nan() && expected.is_nan(),
                "{path}, voxel {n}: {found} and not {expected}"
            );
        }
        same_place(path, &grid, &numbers::<f64>(affine).unwrap());
        match path.contains("generated-") {
            true => generated += 1,
            false => shipped += 1,
        }
    }
    // A reader that refuses everything would agree as well.
    assert!(shipped >= 4, "{shipped} of nibabel's own files are volumes");
    assert_eq!(generated, 10 * 2 * 2 * 2);
    assert!(
        refused >= 5,
        "{refused} of nibabel's own files are no volumes"
    );
}

/// nibabel's sixteen numbers by rows; the quaternion's square root leaves a rounding.
fn same_place(path: &str, grid: &NiftiGrid, expected: &[f64]) {
    for (i, row) in expected.chunks(4).take(3).enumerate() {
        let [a, b, c] = grid.affine.linear[i];
        for (found, expected) in [a, b, c, grid.affine.offset[i]].iter().zip(row) {
            assert!(
                (found - expected).abs() <= 1e-6 * expected.abs().max(1.0),
                "{path}: {:?} and not {expected:?}",
                grid.affine
            );
        }
    }
}

/// A real CT and the labels of its vertebrae, stored to the back, to the feet and to the right.
#[test]
fn a_real_ct_turns_head_first_as_nibabel_turns_it() {
    let shared =
        std::env::var_os("SPINECTL_SHARED").map_or(workspace().join("../shared"), PathBuf::from);
    let folder = shared.join("data/spine_nifti");
    if !folder.is_dir() {
        eprintln!("skipped: no real data (set SPINECTL_SHARED)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [ct, segmentation] = ["ct.nii.gz", "vertebrae.nii.gz"].map(|name| folder.join(name));
    nibabel(dir.path(), &[ct.clone(), segmentation.clone()]);
    let expected = |name: &str| -> Vec<i16> {
        let bytes = fs::read(dir.path().join(format!("{name}.study"))).unwrap();
        let (words, _) = bytes.as_chunks();
        words.iter().map(|word| i16::from_le_bytes(*word)).collect()
    };
    let volume = read_study(&ct).unwrap();
    assert_eq!(volume.geometry.shape(), [47, 73, 73]);
    assert!(volume.hu == expected("ct.nii.gz"));
    let labels = read_labels(&segmentation, &volume.geometry).unwrap().labels;
    let labels: Vec<i16> = labels.into_iter().map(i16::from).collect();
    assert!(labels == expected("vertebrae.nii.gz"));
}
