//! Studies by name, whatever form they have on disk: DICOM folders, NIfTI images; and studies written out as NIfTI.

use std::fs;
use std::path::{Path, PathBuf};

use data::nifti::write::{Layout, write_nifti_i16};
use data::nifti::{NiftiGrid, read_grid, read_labels, read_values};
use data::phantom::{SynthOptions, synthesize};
use data::volume::{
    FindingKind, export_nifti, find_study, read_study, studies_below, study_header, study_path,
};
use data::{DataError, Geometry, StudyUid};

fn geometry() -> Geometry {
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

fn hu() -> Vec<i16> {
    (0..24).map(|v| v * 100 - 1000).collect()
}

fn image(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    write_nifti_i16(path, &geometry(), &hu(), Layout::Kaggle).unwrap();
}

fn named(name: &str) -> StudyUid {
    StudyUid::new(name).unwrap()
}

#[test]
fn nifti_images_are_studies_as_files_and_alone_in_folders() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    image(&root.join("1.2.3.nii"));
    image(&root.join("sub-verse004.nii.gz"));
    image(&root.join("s0011/ct.nii.gz"));
    fs::create_dir(root.join("s0011/segmentations")).unwrap();
    fs::write(root.join("s0011/segmentations/c1.nii.gz"), b"").unwrap();
    fs::write(root.join("dataset.json"), b"{}").unwrap();

    let names = ["1.2.3", "s0011", "sub-verse004"].map(named);
    assert_eq!(studies_below(root).unwrap(), names);
    for study in names {
        let header = find_study(root, &study).unwrap();
        assert_eq!(header.study, study);
        assert_eq!(header.slice_numbers, [1, 2, 3, 4]);
        assert_eq!(header.depths, [0.0, 1.25, 2.5, 3.75]);
        assert_eq!(header.geometry, geometry());
        assert_eq!(header.read_slices(0..4).unwrap(), hu());
        assert_eq!(header.read_slices(2..3).unwrap(), hu()[12..18]);
        assert!(header.read_slices(3..5).is_err());
        let mut seen = [0; 24];
        let visit = |index: usize, slice: &[i16]| {
            seen[index * 6..][..6].copy_from_slice(slice);
            Ok(())
        };
        header.for_each_slice(1..4, visit).unwrap();
        assert_eq!((&seen[..6], &seen[6..]), (&[0; 6][..], &hu()[6..]));
        let files = header.files();
        assert_eq!(files.len(), 1);
        assert_eq!(header.slice_path(3).as_ref(), files.first());
        assert_eq!(header.slice_path(4), None);
        let kinds: Vec<_> = header.findings.iter().map(|f| f.kind).collect();
        assert_eq!(
            kinds,
            [FindingKind::NonSquarePixels, FindingKind::FewSlices]
        );
        let volume = read_study(&study_path(root, &study).unwrap()).unwrap();
        assert_eq!((volume.hu, volume.study), (hu(), study));
    }
}

#[test]
fn a_study_that_is_there_twice_or_not_at_all_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let study = named("s0011");
    assert!(matches!(
        find_study(root, &study),
        Err(DataError::StudyMissing { .. })
    ));
    image(&root.join("s0011.nii"));
    assert!(find_study(root, &study).is_ok());
    image(&root.join("s0011.nii.gz"));
    let error = find_study(root, &study).unwrap_err().to_string();
    assert!(
        error.contains("s0011.nii is there a second time"),
        "{error}"
    );
    fs::remove_file(root.join("s0011.nii")).unwrap();
    fs::create_dir(root.join("s0011")).unwrap();
    assert!(find_study(root, &study).is_err());
    fs::remove_file(root.join("s0011.nii.gz")).unwrap();
    let error = find_study(root, &study).unwrap_err().to_string();
    assert!(error.contains("holds no file"), "{error}");
    for name in ["ct.nii", "seg.nii.gz"] {
        image(&root.join("s0011").join(name));
    }
    let error = find_study(root, &study).unwrap_err().to_string();
    let [image, labels] = ["ct.nii", "seg.nii.gz"].map(|name| root.join("s0011").join(name));
    let told = format!(
        "several NIfTI files: {}, {}",
        image.display(),
        labels.display()
    );
    assert!(error.contains(&told), "{error}");
}

#[test]
fn compression_goes_by_the_content_and_not_by_the_name() {
    let dir = tempfile::tempdir().unwrap();
    let (plain, packed) = (dir.path().join("a.nii"), dir.path().join("b.nii.gz"));
    image(&plain);
    image(&packed);
    let (c, d) = (dir.path().join("c.nii.gz"), dir.path().join("d.nii"));
    fs::rename(plain, &c).unwrap();
    fs::rename(packed, &d).unwrap();
    for path in [c, d] {
        assert_eq!(read_study(&path).unwrap().hu, hu(), "{path:?}");
    }
}

#[test]
fn a_file_that_changes_after_its_header_was_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.nii");
    image(&path);
    let header = study_header(&path).unwrap();
    let wider = Geometry {
        spacing: [0.5, 0.5],
        ..geometry()
    };
    write_nifti_i16(&path, &wider, &hu(), Layout::Kaggle).unwrap();
    let error = header.read_slices(0..1).unwrap_err().to_string();
    assert!(error.contains("has changed"), "{error}");
}

/// Where bytes stand, and what they become.
type Edit<'a> = (usize, &'a [u8]);

/// What is said of a file of `hu()` with other header fields, uncompressed and little endian.
fn edited(path: &Path, edits: &[Edit]) -> String {
    image(path);
    let mut bytes = fs::read(path).unwrap();
    for (at, field) in edits {
        bytes[*at..at + field.len()].copy_from_slice(field);
    }
    fs::write(path, bytes).unwrap();
    match read_study(path) {
        Ok(_) => "read".into(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_is_no_ct_volume_is_refused_by_field() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.nii");
    let dims = |dims: [i16; 8]| dims.map(i16::to_le_bytes).concat();
    let float = |v: f32| v.to_le_bytes();
    let cases: [(&str, &[Edit]); 12] = [
        ("read", &[]),
        ("dim is a series", &[(40, &dims([4, 2, 3, 2, 2, 1, 1, 1]))]),
        (
            "dim has no voxels",
            &[(40, &dims([3, 2, -3, 4, 1, 1, 1, 1]))],
        ),
        (
            "dim is not that of a volume",
            &[(40, &dims([2, 2, 3, 4, 1, 1, 1, 1]))],
        ),
        (
            "too few",
            &[(40, &dims([3, 32767, 32767, 32767, 1, 1, 1, 1]))],
        ),
        ("colours", &[(70, &128_i16.to_le_bytes())]),
        ("complex", &[(70, &32_i16.to_le_bytes())]),
        ("magic is that of a pair", &[(344, b"ni1\0")]),
        ("magic is not", &[(344, b"\0\0\0\0")]),
        ("vox_offset is 4", &[(108, &float(4.0))]),
        ("scl_inter", &[(116, &float(f32::NAN))]),
        ("affine is flat", &[(280, &[0; 16])]),
    ];
    for (expected, edits) in cases {
        let found = edited(&path, edits);
        assert!(found.contains(expected), "{expected}: {found}");
    }
    // A claim of 32767^3 voxels is not believed in a compressed file either.
    let packed = dir.path().join("a.nii.gz");
    let bytes = {
        edited(&path, &[(40, &dims([3, 32767, 32767, 32767, 1, 1, 1, 1]))]);
        fs::read(&path).unwrap()
    };
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, &bytes).unwrap();
    fs::write(&packed, encoder.finish().unwrap()).unwrap();
    let error = read_study(&packed).unwrap_err().to_string();
    assert!(error.contains("too few"), "{error}");
}

#[test]
fn hounsfield_units_are_rounded_and_limited_and_must_be_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.nii");
    image(&path);
    let mut bytes = fs::read(&path).unwrap();
    bytes.truncate(352);
    bytes[70..72].copy_from_slice(&16_i16.to_le_bytes()); // float32
    let stored = |special: f32| {
        let mut values = [1.5_f32; 24];
        // The file begins with the last row of the lowest slice.
        values[0] = special;
        values.map(f32::to_le_bytes).concat()
    };
    for (special, hu) in [(-2.5, -3), (40_000.0, i16::MAX), (-1e30, i16::MIN)] {
        fs::write(&path, [bytes.clone(), stored(special)].concat()).unwrap();
        let volume = read_study(&path).unwrap();
        let mut expected = [2; 24];
        expected[22] = hu;
        assert_eq!(volume.hu, expected);
    }
    for special in [f32::NAN, f32::INFINITY] {
        fs::write(&path, [bytes.clone(), stored(special)].concat()).unwrap();
        let header = study_header(&path).unwrap();
        let error = header.read_slices(0..4).unwrap_err().to_string();
        assert!(error.contains("a voxel is"), "{error}");
        // Slices without it are good.
        assert_eq!(header.read_slices(0..3).unwrap(), [2; 18]);
    }
}

#[test]
fn a_study_is_exported_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let options = SynthOptions {
        out: dir.path().join("phantom"),
        studies: 2,
        slices: 80,
        size: 32,
        seed: 4,
        segmented: 1.0,
        ..SynthOptions::default()
    };
    synthesize(&options, &|_, _| ()).unwrap();
    let images = options.out.join("train_images");
    let studies = studies_below(&images).unwrap();
    assert_eq!(studies.len(), 2);
    for study in studies {
        let header = find_study(&images, &study).unwrap();
        let hu = header.read_slices(0..header.geometry.slices).unwrap();
        let path = dir.path().join(format!("{study}.nii.gz"));
        export_nifti(&header, &path).unwrap();

        let back = study_header(&path).unwrap();
        assert_eq!(back.read_slices(0..header.geometry.slices).unwrap(), hu);
        let close = |a: [f64; 3], b: [f64; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
        let (a, b) = (back.geometry, header.geometry);
        assert!(
            close(a.origin, b.origin) && close(a.step, b.step),
            "{a:?} {b:?}"
        );
        // The segmentation belongs to the one as to the other.
        let labels = options
            .out
            .join("segmentations")
            .join(format!("{study}.nii"));
        assert_eq!(
            read_labels(&labels, &a).unwrap(),
            read_labels(&labels, &b).unwrap()
        );
        // And so does a NIfTI study's own export.
        let again = dir.path().join("again.nii");
        export_nifti(&back, &again).unwrap();
        assert_eq!(read_study(&again).unwrap().hu, hu);
    }
}

#[test]
fn an_export_that_fails_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.nii");
    image(&path);
    let header = study_header(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..380]).unwrap();
    let out = dir.path().join("out.nii.gz");
    let error = export_nifti(&header, &out).unwrap_err().to_string();
    assert!(error.contains("a.nii"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// The folder of real data that some checkouts have beside them.
fn shared() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let root = std::env::var_os("SPINECTL_SHARED").map_or(beside, PathBuf::from);
    let data = root.join("data");
    data.is_dir().then_some(data)
}

/// A CT stored to the back, to the feet and to the right, with the labels of its vertebrae.
#[test]
fn a_real_nifti_ct_reads_head_first_and_its_labels_lie_on_it() {
    let Some(data) = shared() else {
        eprintln!("skipped: no real data (set SPINECTL_SHARED)");
        return;
    };
    let path = data.join("spine_nifti/ct.nii.gz");
    let volume = read_study(&path).unwrap();
    let geometry = volume.geometry;
    assert_eq!(geometry.shape(), [47, 73, 73]);
    assert_eq!(
        (geometry.row, geometry.col),
        ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    );
    assert!(geometry.step[2] < 0.0);

    let labels = read_labels(&data.join("spine_nifti/vertebrae.nii.gz"), &geometry).unwrap();
    let (NiftiGrid { shape, .. }, stored) = read_values(&path).unwrap();
    let (_, stored_labels) = read_values(&data.join("spine_nifti/vertebrae.nii.gz")).unwrap();
    assert_eq!(read_grid(&path).unwrap().shape, shape);
    // (i, j, k) of the file run to the back, to the feet, to the right: rows, slices, and columns from the other end.
    let [ni, nj, nk] = shape;
    for (i, j, k) in (0..nk).flat_map(|k| (0..nj * ni).map(move |n| (n % ni, n / ni, k))) {
        let (there, here) = (i + ni * (j + nj * k), (nk - 1 - k) + nk * (i + ni * j));
        assert_eq!(f64::from(volume.hu[here]), stored[there].round());
        assert_eq!(f64::from(labels.labels[here]), stored_labels[there]);
    }
    // Vertebrae are of bone.
    let bone = volume
        .hu
        .iter()
        .zip(&labels.labels)
        .filter(|pair| *pair.1 > 0);
    let bone: Vec<f64> = bone.map(|pair| f64::from(*pair.0)).collect();
    assert!(bone.iter().sum::<f64>() / bone.len() as f64 > 100.0);
}

#[test]
fn what_is_larger_than_any_neck_is_refused_before_memory_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("long.nii");
    let long = Geometry {
        slices: 3001,
        ..geometry()
    };
    write_nifti_i16(&path, &long, &vec![0; long.voxels()], Layout::Kaggle).unwrap();
    let error = study_header(&path).unwrap_err().to_string();
    for part in ["long.nii", "3001 slices of 3 x 2", "cut the neck out"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}
