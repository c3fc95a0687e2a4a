//! Bad input: each with its exit code and a message that names the place and the remedy, and nothing lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use spinectl_tests::{launch_arguments, phantom, program, spinectl};

/// Launches over a phantom that `spoil` has spoilt; returns the exit code and what was printed.
fn launch_spoilt(spoil: impl FnOnce(&Path)) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let data = phantom(folder.path());
    spoil(&data);
    let ended = spinectl(launch_arguments(&data, &folder.path().join("run"), 1, &[]));
    (
        ended.status.code(),
        String::from_utf8_lossy(&ended.stderr).into_owned(),
    )
}

fn studies(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join("train_images")).unwrap();
    let mut all: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

fn segmentations(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join("segmentations")).unwrap();
    let mut all: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

/// The study of a segmentation.
fn study_of(data: &Path, segmentation: &Path) -> PathBuf {
    data.join("train_images")
        .join(segmentation.file_stem().unwrap())
}

fn slices(study: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(study)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    all.sort();
    all
}

#[track_caller]
fn assert_said(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn a_missing_study_folder() {
    let mut name = String::new();
    let (code, text) = launch_spoilt(|data| {
        let study = &studies(data)[4];
        name = study.file_name().unwrap().to_str().unwrap().to_owned();
        fs::remove_dir_all(study).unwrap();
    });
    assert_eq!(code, Some(4), "{text}");
    assert_said(&text, &[&name, "does not exist", "complete the download"]);
}

#[test]
fn a_study_with_one_slice() {
    let mut name = String::new();
    let (code, text) = launch_spoilt(|data| {
        let study = &studies(data)[2];
        name = study.file_name().unwrap().to_str().unwrap().to_owned();
        slices(study)
            .iter()
            .skip(1)
            .for_each(|slice| fs::remove_file(slice).unwrap());
    });
    assert_eq!(code, Some(4), "{text}");
    assert_said(&text, &[&name, "one slice", "complete the series"]);
}

#[test]
fn a_truncated_dicom_file() {
    let mut name = String::new();
    let (code, text) = launch_spoilt(|data| {
        // Of a study that stage 1a reads.
        let slice = &slices(&study_of(data, &segmentations(data)[0]))[5];
        name = slice.file_name().unwrap().to_str().unwrap().to_owned();
        let bytes = fs::read(slice).unwrap();
        fs::write(slice, &bytes[..bytes.len() - 1000]).unwrap();
    });
    assert_eq!(code, Some(4), "{text}");
    assert_said(&text, &[&name, "PixelData"]);
}

fn name_of(study: &Path) -> String {
    study.file_name().unwrap().to_str().unwrap().to_owned()
}

/// Cuts a slice of one study short and takes all but one from another; their names.
fn two_bad_studies(data: &Path) -> [String; 2] {
    let all = studies(data);
    let slice = &slices(&all[3])[5];
    let bytes = fs::read(slice).unwrap();
    fs::write(slice, &bytes[..bytes.len() - 1000]).unwrap();
    for slice in slices(&all[7]).iter().skip(1) {
        fs::remove_file(slice).unwrap();
    }
    [name_of(&all[3]), name_of(&all[7])]
}

#[test]
fn bad_studies_are_named_together() {
    let mut names = Default::default();
    let (code, text) = launch_spoilt(|data| names = two_bad_studies(data));
    assert_eq!(code, Some(4), "{text}");
    let [cut, short] = &names;
    let parts = [
        cut,
        short,
        "2 of the 12 studies",
        "PixelData",
        "one slice",
        "leave_out",
    ];
    assert_said(&text, &parts);
}

#[test]
fn bad_studies_are_left_out_of_every_job_where_the_recipe_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let data = phantom(folder.path());
    let names = two_bad_studies(&data);
    let run = folder.path().join("run");
    let more = ["--stages=1a", "--set=data.bad_study=leave_out"];
    let ended = spinectl(launch_arguments(&data, &run, 2, &more));
    let text = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(0), "{text}");
    let table = |name: &str| fs::read_to_string(run.join("tables").join(name)).unwrap();
    for name in &names {
        let said = format!("study {name} is left out");
        assert_eq!(text.matches(&said).count(), 1, "{text}");
        assert!(table("left_out.csv").contains(name.as_str()));
        for used in ["folds.csv", "study_boxes.csv", "slice_targets.csv"] {
            assert!(!table(used).contains(name.as_str()), "{name} is in {used}");
        }
    }
    assert_eq!(table("study_boxes.csv").lines().count(), 1 + 10);
}

#[test]
fn a_split_may_come_from_a_file_and_must_hold_every_study() {
    let folder = tempfile::tempdir().unwrap();
    let data = phantom(folder.path());
    let split = folder.path().join("folds.csv");
    let (root, out) = (data.to_str().unwrap(), split.to_str().unwrap());
    let made = spinectl(["data", "folds", root, "--folds=2", "--seed=9", "--out", out]);
    assert_eq!(made.status.code(), Some(0));
    let launch = |run: &str| {
        let set = format!("--set=data.split={out}");
        let more = ["--stages=1a", set.as_str()];
        spinectl(launch_arguments(&data, &folder.path().join(run), 1, &more))
    };
    let rows = fs::read_to_string(&split).unwrap();
    assert_eq!(launch("sound").status.code(), Some(0));
    let used = fs::read_to_string(folder.path().join("sound/tables/folds.csv")).unwrap();
    assert_eq!(used, rows);

    let (kept, lost) = rows.trim_end().rsplit_once('\n').unwrap();
    fs::write(&split, kept).unwrap();
    let ended = launch("lacking");
    let text = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(4), "{text}");
    let lost = lost.split(',').next().unwrap();
    assert_said(
        &text,
        &["data.split", "has no fold for study", lost, "data folds"],
    );
}

#[test]
fn a_segmentation_of_another_shape() {
    let mut name = String::new();
    let (code, text) = launch_spoilt(|data| {
        // One slice less, in the NIfTI-1 header (dim[1..=3] from byte 42) and in the voxels.
        let all = segmentations(data);
        let mut bytes = fs::read(&all[0]).unwrap();
        let dim =
            |bytes: &[u8], at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        let (area, slices) = (dim(&bytes, 42) * dim(&bytes, 44), dim(&bytes, 46));
        bytes[46..48].copy_from_slice(&u16::try_from(slices - 1).unwrap().to_le_bytes());
        bytes.truncate(bytes.len() - area);
        fs::write(&all[0], bytes).unwrap();
        name = all[0].file_name().unwrap().to_str().unwrap().to_owned();
    });
    assert_eq!(code, Some(4), "{text}");
    assert_said(&text, &[&name, "slices, rows, columns", "export it again"]);
}

#[test]
fn a_table_without_a_column() {
    let (code, text) = launch_spoilt(|data| {
        let path = data.join("train.csv");
        let table = fs::read_to_string(&path).unwrap();
        fs::write(&path, table.replacen("C3", "C3x", 1)).unwrap();
    });
    assert_eq!(code, Some(4), "{text}");
    assert_said(&text, &["train.csv", "no column C3", "add the column"]);
}

#[test]
fn an_unknown_recipe_key_and_another_fault_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = folder.path().join("r.yaml");
    fs::write(
        &recipe,
        "data:\n  root: d\nstage1a:\n  training:\n    epoch: 3\n    batch: many\n",
    )
    .unwrap();
    let ended = spinectl([
        "launch".as_ref(),
        recipe.as_os_str(),
        "--device=cpu".as_ref(),
    ]);
    let text = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(2), "{text}");
    assert_said(
        &text,
        &[
            "2 faults",
            "r.yaml:5:5",
            "did you mean `epochs`?",
            "r.yaml:6:12",
            "whole number",
        ],
    );
}

/// While a job starts, somebody else takes so much of the disk that there is room for one checkpoint: the second cannot be written.
#[test]
fn a_disk_that_fills_while_a_checkpoint_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let data = phantom(folder.path());
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let run = disk.join("run");
    let launch = launch_arguments(&data, &run, 1, &["--stages=1a"]);
    // In a mount namespace of its own: nothing is left mounted, and root outside is not needed.
    let script = "mount -t tmpfs -o size=400m spinectl-full \"$1\" || exit 99; disk=$1; verify=$2; run=$3; shift 3
        (until ls \"$run\"/jobs/stage1a-*/attempt-1; do sleep 0.02; done 2>/dev/null >&2; head -c 250m /dev/zero > \"$disk/others\") &
        \"$@\"; echo \"launch ended with $?\"; \"$1\" checkpoint \"$verify\" \"$run\"; echo \"verify ended with $?\"";
    let mut command = Command::new("unshare");
    command.args([
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        script,
        "sh",
    ]);
    command
        .arg(&disk)
        .arg("verify")
        .arg(&run)
        .arg(program("spinectl"))
        .args(launch);
    let ended = command.output().expect("unshare (util-linux) is there");
    let text = [ended.stdout, ended.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    assert_ne!(
        ended.status.code(),
        Some(99),
        "no tmpfs could be mounted:\n{text}"
    );
    assert_said(
        &text,
        &[
            "launch ended with 3",
            "cannot write the checkpoint of step 6",
            "verify ended with 0",
            "step-00000003",
        ],
    );
}
