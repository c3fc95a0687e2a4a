//! Studies from anywhere: each ends with rows or with a reason, and a bad one does not stop the others.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;
use spinectl_tests::{Launch, launch_arguments, phantom, root, spinectl};

const LABELS: usize = 8;

/// `spinectl predict`, with details.
fn predict(run: &Path, images: &Path, out: &Path, more: &[&str]) -> Output {
    let mut arguments = vec!["predict".to_owned()];
    arguments.push(run.display().to_string());
    for (flag, path) in [("--images", images), ("--out", out)] {
        arguments.extend([flag.to_owned(), path.display().to_string()]);
    }
    let details = format!("--details={}", out.with_extension("details").display());
    arguments.extend([details, "--device=cpu".to_owned()]);
    arguments.extend(more.iter().map(|text| (*text).to_owned()));
    spinectl(arguments)
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Why a study has no rows, by name; none where it has.
fn reasons(out: &Path) -> BTreeMap<String, Option<String>> {
    let report = json(Path::new(&format!("{}.report.json", out.display())));
    let studies = report["studies"].as_array().unwrap();
    let reason = |study: &Value| study["failure"].as_str().map(str::to_owned);
    studies
        .iter()
        .map(|study| (study["study"].as_str().unwrap().to_owned(), reason(study)))
        .collect()
}

/// Probabilities by row.
fn rows(out: &Path) -> BTreeMap<String, f64> {
    let text = fs::read_to_string(out).unwrap();
    let row = |line: &str| {
        let (id, probability) = line.split_once(',').unwrap();
        (id.to_owned(), probability.parse::<f64>().unwrap())
    };
    text.lines().skip(1).map(row).collect()
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Copies pydicom's CT series into `images` and returns their names; none where pydicom is not installed.
fn pydicom_series(images: &Path) -> Vec<String> {
    let Ok(versions) = fs::read_dir(root().join(".venv/lib")) else {
        return Vec::new();
    };
    let files = versions
        .map(|version| {
            let packages = version.unwrap().path().join("site-packages");
            packages.join("pydicom/data/test_files")
        })
        .find(|files| files.is_dir());
    let Some(files) = files else {
        return Vec::new();
    };
    let series = ["77654033/CT2", "98892001/CT2N", "98892001/CT5N"];
    let mut names = Vec::new();
    for place in series {
        let name = format!("pydicom-{}", place.replace('/', "-"));
        copy_folder(
            &files.join("dicomdirtests").join(place),
            &images.join(&name),
        );
        names.push(name);
    }
    let single = "pydicom-CT_small";
    fs::create_dir_all(images.join(single)).unwrap();
    fs::copy(
        files.join("CT_small.dcm"),
        images.join(single).join("1.dcm"),
    )
    .unwrap();
    names.push(single.to_owned());
    names
}

#[test]
fn every_study_ends_with_rows_or_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let data = phantom(folder.path());
    let run = folder.path().join("run");
    let mut launch = Launch::start(&launch_arguments(&data, &run, 1, &[]), &run);
    assert_eq!(launch.finish(), Some(0), "{}", launch.log());

    let first = fs::read_dir(data.join("train_images"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .min()
        .unwrap();
    let images = folder.path().join("images");
    // A name that is no UID; one that can name no study; no slices; a file that says it is DICOM and is not.
    copy_folder(&first, &images.join("neck_1"));
    copy_folder(&first, &images.join("some body"));
    fs::create_dir_all(images.join("empty")).unwrap();
    fs::create_dir_all(images.join("broken")).unwrap();
    let mut broken = vec![0; 128];
    broken.extend(b"DICM and then nothing of use");
    fs::write(images.join("broken/1.dcm"), broken).unwrap();
    // Real scans, which only a checkout with data beside it has.
    let shared = root().parent().unwrap().join("shared/data");
    let mut good = vec!["neck_1".to_owned()];
    let neck = shared.join("neck/train_images");
    match neck.is_dir() {
        true => {
            let uid = "1.2.826.0.1.3680043.9.7777.1";
            copy_folder(&neck.join(uid), &images.join(uid));
            good.push(uid.to_owned());
        }
        false => eprintln!("not tested: {} is not there", neck.display()),
    }
    let nifti = shared.join("spine_nifti/ct.nii.gz");
    match nifti.is_file() {
        true => {
            fs::copy(&nifti, images.join("lumbar.nii.gz")).unwrap();
            good.push("lumbar".to_owned());
        }
        false => eprintln!("not tested: {} is not there", nifti.display()),
    }

    // pydicom's real series: single slices and a few, so that a reason is as good as rows.
    let real = pydicom_series(&images);
    if real.is_empty() {
        eprintln!("not tested: pydicom is not in .venv (`make setup-tests`)");
    }

    let out = folder.path().join("plain.csv");
    let predicted = predict(&run, &images, &out, &[]);
    let said = String::from_utf8_lossy(&predicted.stderr).into_owned();
    assert_eq!(predicted.status.code(), Some(4), "{said}");
    let reasons = reasons(&out);
    assert_eq!(reasons.len(), good.len() + real.len() + 3, "{reasons:?}");
    let readable = |study: &&String| reasons[*study].is_none();
    good.extend(real.iter().filter(readable).cloned());
    for (study, reason) in &reasons {
        match good.contains(study) {
            true => assert_eq!(*reason, None, "{study}"),
            false => {
                let reason = reason.as_deref().expect(study);
                assert!(!reason.is_empty() && said.contains(study), "{said}");
            }
        }
    }
    let plain = rows(&out);
    assert_eq!(plain.len(), good.len() * LABELS);
    assert!(plain.values().all(|p| (0.0..=1.0).contains(p)), "{plain:?}");
    // A name may be a person's.
    let log = fs::read_to_string(run.join("predict.log")).unwrap_or_default();
    assert!(!log.contains("some body"), "{log}");

    let details = out.with_extension("details");
    assert_eq!(fs::read_dir(&details).unwrap().count(), good.len());
    let neck = json(&details.join("neck_1.json"));
    assert_eq!(neck["boxes"].as_array().unwrap().len(), 24);
    assert_eq!(neck["probabilities"]["C1"], plain["neck_1_C1"]);
    assert!(neck["models"].as_array().unwrap().len() > 1);

    // The mean with the mirror image: other numbers, the same studies.
    let out = folder.path().join("flipped.csv");
    let predicted = predict(&run, &images, &out, &["--flip", "--quiet"]);
    assert_eq!(predicted.status.code(), Some(4));
    let flipped = rows(&out);
    assert!(flipped.keys().eq(plain.keys()));
    assert_ne!(flipped, plain);
    assert_eq!(
        json(&out.with_extension("details").join("neck_1.json"))["flip"],
        true
    );
}
