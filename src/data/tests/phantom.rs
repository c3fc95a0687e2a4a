//! Phantom data sets on disk: the same bytes every time, completed when interrupted, never over other people's files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use data::DataError;
use data::nifti::read_labels;
use data::phantom::{SynthOptions, SynthSummary, synthesize};
use data::tables::{StudyLabels, read_table};
use data::volume::read_study;

fn options(out: &Path) -> SynthOptions {
    SynthOptions {
        out: out.to_path_buf(),
        studies: 5,
        slices: 20,
        size: 48,
        seed: 9,
        ..SynthOptions::default()
    }
}

fn make(options: &SynthOptions) -> Result<SynthSummary, DataError> {
    synthesize(options, &|_, _| ())
}

/// Every file by its path below `folder`.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(
                    path.strip_prefix(folder).unwrap().to_path_buf(),
                    fs::read(&path).unwrap(),
                );
            }
        }
    }
    found
}

#[test]
fn the_crate_reads_what_it_made() {
    let folder = tempfile::tempdir().unwrap();
    let options = SynthOptions {
        segmented: 1.0,
        ..options(&folder.path().join("phantom"))
    };
    make(&options).unwrap();
    let rows: Vec<StudyLabels> = read_table(&options.out.join("train.csv")).unwrap();
    assert_eq!(rows.len(), options.studies);
    for row in rows {
        let name = row.study.to_string();
        let volume = read_study(&options.out.join("train_images").join(&name)).unwrap();
        let segmentation = options
            .out
            .join("segmentations")
            .join(format!("{name}.nii"));
        let labels = read_labels(&segmentation, &volume.geometry).unwrap();
        let first = |label| {
            labels
                .labels
                .iter()
                .position(|found| *found == label)
                .unwrap()
        };
        assert!(first(1) < first(7), "{name}: head first");
        let bone = volume
            .hu
            .iter()
            .zip(&labels.labels)
            .filter(|(_, label)| **label > 0);
        let bone: Vec<f64> = bone.map(|(hu, _)| f64::from(*hu)).collect();
        let mean = bone.iter().sum::<f64>() / bone.len() as f64;
        assert!(mean > 450.0, "{name}: {mean} HU in the labels");
    }
}

#[test]
fn threads_do_not_change_a_byte() {
    let folder = tempfile::tempdir().unwrap();
    let (one, four) = (folder.path().join("one"), folder.path().join("four"));
    for (out, threads) in [(&one, 1), (&four, 4)] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| make(&options(out))).unwrap();
    }
    let files = contents(&one);
    assert!(files.contains_key(Path::new("train.csv")));
    assert!(files.contains_key(Path::new("phantom.json")));
    assert_eq!(
        files
            .keys()
            .filter(|path| path.extension().is_some_and(|ext| ext == "nii"))
            .count(),
        2
    );
    assert!(files == contents(&four));

    let other = folder.path().join("other");
    make(&SynthOptions {
        seed: 10,
        ..options(&other)
    })
    .unwrap();
    assert!(files != contents(&other));
}

#[test]
fn an_interrupted_data_set_is_completed_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder.path().join("phantom"));
    let summary = make(&options).unwrap();
    let whole = contents(&options.out);

    // As if it had been killed while two studies were being written.
    let marker = options.out.join("phantom.json");
    let text = fs::read_to_string(&marker).unwrap();
    fs::write(options.out.join("phantom.partial.json"), text).unwrap();
    fs::remove_file(&marker).unwrap();
    fs::remove_file(options.out.join("train.csv")).unwrap();
    let images = options.out.join("train_images");
    let mut studies: Vec<_> = fs::read_dir(&images)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    studies.sort();
    fs::remove_dir_all(&studies[0]).unwrap();
    let name = studies[1].file_name().unwrap().to_str().unwrap();
    fs::rename(&studies[1], images.join(format!(".partial-{name}"))).unwrap();

    fs::write(options.out.join(".tmp-train.csv-1234"), "half").unwrap();

    let calls = AtomicUsize::new(0);
    let count = |_, _| {
        calls.fetch_add(1, Ordering::Relaxed);
    };
    assert_eq!(synthesize(&options, &count).unwrap(), summary);
    assert_eq!(calls.into_inner(), 5);
    assert!(contents(&options.out) == whole);
}

#[test]
fn a_complete_data_set_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let options = SynthOptions {
        segmented: 1.0 / 3.0,
        ..options(&folder.path().join("phantom"))
    };
    let summary = make(&options).unwrap();
    let whole = contents(&options.out);
    let again = synthesize(&options, &|_, _| panic!("nothing is to be made")).unwrap();
    assert_eq!(
        again,
        SynthSummary {
            already_complete: true,
            ..summary
        }
    );
    assert!(contents(&options.out) == whole);
}

#[test]
fn other_folders_are_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path();
    fs::write(out.join("thesis.txt"), "mine").unwrap();
    let error = make(&options(out)).unwrap_err();
    assert!(error.to_string().contains("not empty"), "{error}");
    assert_eq!(contents(out).len(), 1);

    let phantom = out.join("phantom");
    make(&options(&phantom)).unwrap();
    let whole = contents(&phantom);
    let error = make(&SynthOptions {
        seed: 10,
        ..options(&phantom)
    })
    .unwrap_err();
    assert!(error.to_string().contains("other options"), "{error}");
    assert!(contents(&phantom) == whole);
}

#[test]
fn a_folder_that_is_being_written_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder.path().join("phantom"));
    let second = |done, _| {
        if done == 1 {
            let error = make(&options).unwrap_err();
            assert!(error.to_string().contains("another process"), "{error}");
        }
    };
    synthesize(&options, &second).unwrap();
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let good = options(&folder.path().join("phantom"));
    for (option, bad) in [
        (
            "studies",
            SynthOptions {
                studies: 0,
                ..good.clone()
            },
        ),
        (
            "slices",
            SynthOptions {
                slices: 3,
                ..good.clone()
            },
        ),
        (
            "size",
            SynthOptions {
                size: 4096,
                ..good.clone()
            },
        ),
        (
            "segmented",
            SynthOptions {
                segmented: f64::NAN,
                ..good.clone()
            },
        ),
        (
            "fractured",
            SynthOptions {
                fractured: 1.5,
                ..good.clone()
            },
        ),
    ] {
        let error = make(&bad).unwrap_err().to_string();
        assert!(error.contains(option), "{error}");
    }
    assert!(!good.out.exists());
}
