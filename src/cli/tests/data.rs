//! `spinectl data check` and `data folds` on phantom data sets, sound and damaged.

mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use data::phantom::{SynthOptions, synthesize};
use serde_json::Value;

use program::{Ran, spinectl};

/// Eight small studies, named in order.
fn phantom(folder: &Path) -> (PathBuf, Vec<String>) {
    let root = folder.join("phantom");
    let options = SynthOptions {
        out: root.clone(),
        studies: 8,
        slices: 45,
        size: 40,
        seed: 5,
        segmented: 0.5,
        ..SynthOptions::default()
    };
    synthesize(&options, &|_, _| ()).unwrap();
    let entries = fs::read_dir(root.join("train_images")).unwrap();
    let mut studies: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    studies.sort();
    (root, studies)
}

fn run(words: &[&str]) -> Ran {
    spinectl(Path::new("."), words).output().unwrap().into()
}

fn check(root: &Path, more: &[&str]) -> Ran {
    let root = root.to_str().unwrap();
    run(&[&["data", "check", root], more].concat())
}

#[test]
fn a_sound_data_set_passes() {
    let folder = tempfile::tempdir().unwrap();
    let (root, studies) = phantom(folder.path());
    let output = check(&root, &["--json"]);
    assert_eq!(output.code, Some(0), "{}", output.err);
    let report: Value = serde_json::from_str(&output.out).unwrap();
    assert_eq!(
        (&report["ok"], &report["errors"]),
        (&8.into(), &0.into()),
        "{report}"
    );
    let first = &report["studies"][0];
    assert_eq!(first["study"], studies[0].as_str());
    assert_eq!(
        (&first["shape"][1], &first["severity"]),
        (&40.into(), &"ok".into())
    );
    let segmented = |study: &&Value| study["segmented"].is_array();
    let count = report["studies"]
        .as_array()
        .unwrap()
        .iter()
        .filter(segmented)
        .count();
    assert_eq!(count, 4);
}

#[test]
fn every_damage_is_found_named_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let (root, studies) = phantom(folder.path());
    let images = root.join("train_images");
    // Cut short; gone; a slice of another study; a segmentation of another; no row; a box on no slice.
    let cut = images.join(&studies[0]).join("3.dcm");
    let bytes = fs::read(&cut).unwrap();
    fs::write(&cut, &bytes[..bytes.len() - 100]).unwrap();
    fs::remove_dir_all(images.join(&studies[1])).unwrap();
    fs::copy(
        images.join(&studies[4]).join("1.dcm"),
        images.join(&studies[2]).join("999.dcm"),
    )
    .unwrap();
    let volumes = root.join("segmentations");
    let volume = fs::read_dir(&volumes)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    for study in &studies[3..6] {
        let target = volumes.join(format!("{study}.nii"));
        if target != volume {
            fs::copy(&volume, target).unwrap();
            break;
        }
    }
    let table = root.join("train.csv");
    let rows = fs::read_to_string(&table).unwrap();
    let kept: String = rows
        .lines()
        .filter(|row| !row.starts_with(&studies[6]))
        .map(|row| format!("{row}\n"))
        .collect();
    fs::write(&table, kept).unwrap();
    let boxes = root.join("train_bounding_boxes.csv");
    let row = format!("{},1,1,5,5,4711\n", studies[7]);
    fs::write(&boxes, fs::read_to_string(&boxes).unwrap() + &row).unwrap();
    for ending in ["nii", "nii.gz"] {
        let target = volumes.join(format!("{}.{ending}", studies[7]));
        if target != volume {
            fs::copy(&volume, target).unwrap();
        }
    }
    // Nobody writes into it: whoever opens it waits for ever.
    let pipe = images.join(&studies[2]).join("pipe");
    assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
    fs::write(volumes.join("<script>.nii"), "").unwrap();

    let page = folder.path().join("report.html");
    let output = check(&root, &["--html", page.to_str().unwrap(), "--jobs", "2"]);
    assert_eq!(output.code, Some(4), "{}", output.err);
    let text = &output.out;
    for part in [
        "3.dcm",
        "the file is cut short",
        "does not exist",
        "do not belong to one volume",
        "train.csv has no row of it",
        "box on slice 4711",
        "belongs to no study",
        "is there a second time",
        "it was made for another series",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("&lt;script&gt;.nii") && !page.contains("<script>"));
    for study in [&studies[0], &studies[2]] {
        let from = page.find(&format!("<h2>{study}</h2>")).unwrap();
        let article = &page[from..from + page[from..].find("</article>").unwrap()];
        assert_eq!(
            article.matches("data:image/png;base64,").count(),
            2,
            "{study}"
        );
    }

    // What is left out is not looked at; damaged pixels have sound headers.
    let report = check(
        &root,
        &["--json", "--exclude", &studies[1], "--headers-only"],
    );
    let report: Value = serde_json::from_str(&report.out).unwrap();
    let of = |study: &str| {
        let studies = report["studies"].as_array().unwrap();
        studies
            .iter()
            .find(|check| check["study"] == study)
            .cloned()
    };
    assert_eq!(of(&studies[1]), None);
    assert_eq!(of(&studies[0]).unwrap()["severity"], "ok");
}

#[test]
fn a_folder_that_is_none_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = check(&folder.path().join("nowhere"), &[]);
    assert_eq!(output.code, Some(4));
    assert!(output.err.contains("train_images"), "{}", output.err);
}

#[test]
fn a_split_is_written_once() {
    let folder = tempfile::tempdir().unwrap();
    let (root, studies) = phantom(folder.path());
    let out = folder.path().join("folds.csv");
    let split = |more: &[&str]| {
        let fixed = [
            "data",
            "folds",
            root.to_str().unwrap(),
            "--folds",
            "2",
            "--out",
            out.to_str().unwrap(),
        ];
        run(&[&fixed, more].concat())
    };
    let output = split(&["--json"]);
    assert_eq!(output.code, Some(0), "{}", output.err);
    let shares: Value = serde_json::from_str(&output.out).unwrap();
    for share in shares.as_array().unwrap() {
        assert_eq!(
            (&share["studies"], &share["segmented"]),
            (&4.into(), &2.into()),
            "{shares}"
        );
    }
    let first = fs::read(&out).unwrap();

    let again = split(&[]);
    assert_eq!(again.code, Some(0));
    assert!(again.out.contains("is there already") && again.out.contains("patient_overall"));
    let other = split(&["--exclude", &studies[0]]);
    assert_eq!(other.code, Some(2));
    assert!(other.err.contains("holds another split"), "{}", other.err);
    assert_eq!(fs::read(&out).unwrap(), first);
}

#[test]
fn a_study_is_exported_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let (root, studies) = phantom(folder.path());
    let study = root.join("train_images").join(&studies[0]);
    let out = folder.path().join("ct.nii.gz");
    let export = |out: &Path| {
        run(&[
            "data",
            "export",
            study.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
        ])
    };
    let ran = export(&out);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let (from, to) = (
        data::volume::read_study(&study).unwrap(),
        data::volume::read_study(&out).unwrap(),
    );
    assert!(from.hu == to.hu, "the same HU in the same order");
    let corner =
        |volume: &data::volume::Volume| volume.geometry.voxel_to_lps().apply([3.0, 5.0, 7.0]);
    let (from, to) = (corner(&from), corner(&to));
    let apart = from.iter().zip(to).map(|(a, b)| (a - b).abs());
    assert!(apart.fold(0.0, f64::max) < 1e-3);
    assert_eq!(export(Path::new("volume.dcm")).code, Some(2));
    // Neither into the study nor over it.
    assert_eq!(export(&study.join("ct.nii.gz")).code, Some(2));
    let bytes = fs::read(&out).unwrap();
    let over = run(&[
        "data",
        "export",
        out.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
    ]);
    assert_eq!(over.code, Some(2), "{}", over.err);
    assert_eq!(fs::read(&out).unwrap(), bytes);
}

#[test]
fn a_cache_is_filled_checked_measured_and_emptied() {
    let folder = tempfile::tempdir().unwrap();
    let (root, studies) = phantom(folder.path());
    let dir = folder.path().join("cache");
    let recipe = folder.path().join("r.yaml");
    let text = format!(
        "device: cpu\ndata: {{root: {}, folds: 2, cache: {{dir: {}, limit_gb: 1}}}}\nstage1a: {{training: {{image_size: 32}}}}\n\
         stage2: {{training: {{image_size: 48}}}}\n",
        root.display(),
        dir.display()
    );
    fs::write(&recipe, text).unwrap();
    let recipe = recipe.to_str().unwrap();
    let numbers = |ran: &Ran| -> Value { serde_json::from_str(&ran.out).unwrap() };
    let build =
        |more: &[&str]| run(&[&["data", "cache", "build", recipe, "--json"], more].concat());
    let of = |command: &str| run(&["data", "cache", command, dir.to_str().unwrap(), "--json"]);

    assert_eq!(of("size").code, Some(4), "no cache is there yet");
    let first = numbers(&build(&[]));
    assert_eq!((&first["made"], &first["found"]), (&8.into(), &0.into()));
    let cropped_only = build(&["--stages", "2"]);
    assert_eq!(cropped_only.code, Some(2), "{}", cropped_only.err);
    assert!(
        cropped_only.err.contains("--run-dir"),
        "{}",
        cropped_only.err
    );
    // The cropped slices of stage 2, for the studies whose boxes a run has.
    let tables = folder.path().join("run/tables");
    fs::create_dir_all(&tables).unwrap();
    let boxes = format!(
        "StudyInstanceUID,x0,y0,x1,y1,slice_from,slice_to,slice_max,fold\n{},0.2,0.2,0.8,0.8,3,20,30,0\n",
        studies[2]
    );
    fs::write(tables.join("study_boxes.csv"), boxes).unwrap();
    fs::write(tables.join("left_out.csv"), "StudyInstanceUID,reason\n").unwrap();
    let run_dir = folder.path().join("run");
    let second = numbers(&build(&["--run-dir", run_dir.to_str().unwrap()]));
    assert_eq!((&second["made"], &second["found"]), (&1.into(), &8.into()));
    assert_eq!(numbers(&of("size"))["stacks"]["entries"], 9);

    let entries = dir.join("entries");
    let times = || -> Vec<_> {
        let entries = fs::read_dir(&entries).unwrap();
        let mut times: Vec<_> = entries
            .map(|entry| entry.unwrap())
            .map(|entry| {
                (
                    entry.file_name(),
                    entry.metadata().unwrap().modified().unwrap(),
                )
            })
            .collect();
        times.sort();
        times
    };
    // Long ago, so that a touch shows.
    for (name, _) in times() {
        let file = fs::File::options()
            .append(true)
            .open(entries.join(name))
            .unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000))
            .unwrap();
    }
    let before = times();
    assert_eq!(of("verify").code, Some(0));
    assert_eq!(times(), before, "a check is no use");

    let entry = fs::read_dir(&entries)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut bytes = fs::read(&entry).unwrap();
    let last = bytes.len() - 10;
    bytes[last] ^= 0x40;
    fs::write(&entry, bytes).unwrap();
    let verified = of("verify");
    assert_eq!(verified.code, Some(1), "{}", verified.err);
    assert_eq!(numbers(&verified)["entries"], 8);
    assert_eq!(of("verify").code, Some(0), "the damaged one is gone");

    assert_eq!(of("drop").code, Some(0));
    assert_eq!(numbers(&of("size"))["stacks"]["entries"], 0);
    let none = run(&["data", "cache", "drop", root.to_str().unwrap()]);
    assert_eq!(none.code, Some(4), "{}", none.err);
    assert!(root.join("train.csv").exists());
}
