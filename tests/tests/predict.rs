//! Studies from anywhere: each ends with rows or with a reason, and a bad one does not stop the others.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;
use spinectl_tests::{Launch, launch_arguments, phantom, root, spinectl};

const LABELS: usize = 8;

/// A file's name that is somebody's.
const PERSON: &str = "Doe_Jane";

fn predict(run: &Path, images: &Path, out: &Path, more: &[&str]) -> Output {
    let mut arguments = vec!["predict".to_owned(), run.display().to_string()];
    for (flag, path) in [("--images", images), ("--out", out)] {
        arguments.extend([flag.to_owned(), path.display().to_string()]);
    }
    arguments.push("--device=cpu".to_owned());
    arguments.extend(more.iter().map(|text| (*text).to_owned()));
    spinectl(arguments)
}

/// Where the details of a submission go.
fn details_of(out: &Path) -> String {
    format!("--details={}", out.with_extension("details").display())
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
    // Names that are no UIDs, one of them a person's; one that can name no study; no slices; a file that says it is DICOM
    // and is not.
    let mut good = vec!["neck_1".to_owned(), PERSON.to_owned()];
    copy_folder(&first, &images.join("neck_1"));
    copy_folder(&first, &images.join(PERSON));
    fs::write(
        images.join(PERSON).join(format!("{PERSON}.txt")),
        "a letter",
    )
    .unwrap();
    copy_folder(&first, &images.join("some body"));
    fs::create_dir_all(images.join("empty")).unwrap();
    fs::create_dir_all(images.join("broken")).unwrap();
    let mut broken = vec![0; 128];
    broken.extend(b"DICM and then nothing of use");
    fs::write(images.join(format!("broken/{PERSON}.dcm")), broken).unwrap();
    // Real scans, which only a checkout with data beside it has.
    let shared = root().parent().unwrap().join("shared/data");
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
    let predicted = predict(&run, &images, &out, &[&details_of(&out)]);
    let said = String::from_utf8_lossy(&predicted.stderr).into_owned();
    assert_eq!(predicted.status.code(), Some(4), "{said}");
    let reasons = reasons(&out);
    assert_eq!(reasons.len(), good.len() + real.len() + 3, "{reasons:?}");
    let readable = |study: &&String| reasons[*study].is_none();
    good.extend(real.iter().filter(readable).cloned());
    for (study, reason) in &reasons {
        eprintln!("{study}: {}", reason.as_deref().unwrap_or("rows"));
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

    let details = out.with_extension("details");
    assert_eq!(fs::read_dir(&details).unwrap().count(), good.len());
    let neck = json(&details.join("neck_1.json"));
    let same = neck["probabilities"]["C1"].as_f64().unwrap() - plain["neck_1_C1"];
    assert!(same.abs() < 1e-12, "{neck}");
    assert_eq!(neck["slices"].as_array().unwrap().len(), 24);
    for vertebra in ["C1", "C7"] {
        for scores in ["ratio", "fracture"] {
            let curve = neck["curves"][vertebra][scores].as_array().unwrap();
            assert_eq!(curve.len(), 24, "{vertebra} {scores}");
        }
    }
    // Two folds of each stage; and only studies' own names tell the two copies apart.
    assert_eq!(neck["models"].as_array().unwrap().len(), 8);
    assert_eq!(plain["neck_1_C1"], plain[&format!("{PERSON}_C1")]);
    assert_documented(&neck, "");

    // The curves' models take no part in the rows; and what is told while it goes on names nobody.
    let out = folder.path().join("again.csv");
    let predicted = predict(&run, &images, &out, &["--json"]);
    assert_eq!(predicted.status.code(), Some(4));
    assert_eq!(rows(&out), plain);
    let events = String::from_utf8(predicted.stdout).unwrap();
    assert!(
        events.contains("are passed over") && events.contains("left out"),
        "{events}"
    );
    let log = fs::read_to_string(run.join("predict.log")).unwrap_or_default();
    let person = fs::read_to_string(details.join(format!("{PERSON}.json"))).unwrap();
    assert!(person.contains("are passed over"), "{person}");
    let person = person.replace(&format!("\"study\": \"{PERSON}\""), "");
    for (what, text) in [("events", events), ("log", log), ("details", person)] {
        for name in ["some body", PERSON] {
            assert!(!text.contains(name), "{what}: {text}");
        }
    }

    // The mean with the mirror image: other numbers, the same studies.
    let out = folder.path().join("flipped.csv");
    let predicted = predict(
        &run,
        &images,
        &out,
        &["--flip", "--quiet", &details_of(&out)],
    );
    assert_eq!(predicted.status.code(), Some(4));
    let flipped = rows(&out);
    assert!(flipped.keys().eq(plain.keys()));
    assert_ne!(flipped, plain);
    assert_eq!(
        json(&out.with_extension("details").join("neck_1.json"))["flip"],
        true
    );

    // Not one that can be read: no rows, and the reason as well.
    let images = folder.path().join("bad");
    fs::create_dir_all(images.join("1.2.3")).unwrap();
    let out = folder.path().join("none.csv");
    let predicted = predict(&run, &images, &out, &[]);
    assert_eq!(predicted.status.code(), Some(4));
    assert_eq!(rows(&out).len(), 0);
    let said = String::from_utf8_lossy(&predicted.stderr).into_owned();
    assert!(said.contains("none.csv.report.json"), "{said}");
    let reason = self::reasons(&out).remove("1.2.3").flatten();
    assert!(reason.unwrap().contains("holds no file"), "{said}");
}

/// Every field of a study's file stands in the page that describes the format; `within`: the field that holds these.
fn assert_documented(value: &Value, within: &str) {
    let page = fs::read_to_string(root().join("docs/predictions.md")).unwrap();
    for (name, value) in value.as_object().into_iter().flatten() {
        // Keys that are labels are told with the field that holds them.
        let is_label = name == "patient_overall" || name.starts_with('C');
        let within = match is_label {
            true => within.to_owned(),
            false => {
                let name = format!("{within}{name}");
                assert!(
                    page.contains(&format!("`{name}`")),
                    "`{name}` is not described"
                );
                format!("{name}.")
            }
        };
        assert_documented(value.get(0).unwrap_or(value), &within);
    }
}
