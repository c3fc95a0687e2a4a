//! Checkpoints spoilt at random: none is ever read as something else than what was written, the newest that is whole is
//! found, and the words say what was passed over, why, and what it costs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use checkpoint::{Checkpoint, newest_valid_of, read};
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;

use crate::chance::{seeded, tries};
use crate::fixture::{PLAN, checkpoint, files, write_in_parts};

const STEPS: [u64; 4] = [100, 200, 300, 450];

fn of_step(step: u64) -> Checkpoint {
    checkpoint(step, 300)
}

fn folder_of(root: &Path, step: u64) -> PathBuf {
    root.join(format!("step-{step:08}"))
}

/// The contents of all files of a checkpoint, by name.
type Contents = BTreeMap<String, Option<Vec<u8>>>;

fn contents(folder: &Path, files: &[String]) -> Contents {
    files
        .iter()
        .map(|name| (name.clone(), fs::read(folder.join(name)).ok()))
        .collect()
}

fn copy(from: &Path, to: &Path, files: &[String]) {
    for step in STEPS {
        let into = folder_of(to, step);
        fs::create_dir(&into).unwrap();
        for name in files {
            fs::copy(folder_of(from, step).join(name), into.join(name)).unwrap();
        }
    }
}

/// Spoils one file of `step`; says how.
fn spoil(root: &Path, step: u64, files: &[String], random: &mut ChaCha8Rng) -> String {
    let name = &files[random.random_range(0..files.len())];
    let path = folder_of(root, step).join(name);
    // A second blow may meet a file that is gone.
    let mut bytes = fs::read(&path).unwrap_or_default();
    let length = bytes.len().max(1);
    let at = random.random_range(0..length);
    let how = match random.random_range(0..9) {
        0 | 1 => {
            let flips = random.random_range(1..=8);
            for _ in 0..flips {
                let at = random.random_range(0..length);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.random_range(0..8);
                }
            }
            format!("{flips} bits flipped")
        }
        2 => {
            bytes.truncate(at);
            format!("cut to {at} bytes")
        }
        3 => {
            // The file may be gone already.
            let _ = fs::remove_file(&path);
            return format!("{step}/{name}: deleted");
        }
        4 => {
            let end = (at + random.random_range(1..=4096)).min(bytes.len());
            if let Some(range) = bytes.get_mut(at..end) {
                range.fill(0);
            }
            format!("{at}..{end} filled with zeros")
        }
        5 => {
            let mut more = vec![0; random.random_range(1..=64)];
            random.fill_bytes(&mut more);
            bytes.extend(&more);
            format!("{} bytes longer", more.len())
        }
        6 => {
            let other = STEPS[random.random_range(0..STEPS.len() - 1)];
            let other = if other == step { STEPS[3] } else { other };
            // Only the newer of the two is to be spoilt: the older one keeps its own.
            bytes = fs::read(folder_of(root, other).join(name)).unwrap_or_default();
            format!("replaced by that of step {other}")
        }
        7 => {
            let other = &files[random.random_range(0..files.len())];
            bytes = fs::read(folder_of(root, step).join(other)).unwrap_or_default();
            format!("replaced by {other}")
        }
        _ => return edit_manifest(&folder_of(root, step), random),
    };
    fs::write(&path, bytes).unwrap();
    format!("{step}/{name}: {how}")
}

/// What somebody might do with an editor: the manifest stays JSON of the right fields.
fn edit_manifest(folder: &Path, random: &mut ChaCha8Rng) -> String {
    let path = folder.join("manifest.json");
    let text = fs::read(&path).unwrap_or_default();
    let Ok(mut manifest) = serde_json::from_slice::<serde_json::Value>(&text) else {
        return "nothing: there is no manifest left".into();
    };
    let (key, value) = match random.random_range(0..5) {
        0 => ("step", serde_json::json!(STEPS[random.random_range(0..4)])),
        1 => ("plan_hash", serde_json::json!("plan-beef")),
        2 => ("world_size", serde_json::json!(random.random_range(0..9))),
        3 => ("files", serde_json::json!({})),
        _ => ("manifest_sha256", serde_json::json!("0".repeat(64))),
    };
    manifest[key] = value;
    fs::write(path, serde_json::to_vec_pretty(&manifest).unwrap()).unwrap();
    format!("{}: {key} edited", folder.display())
}

/// Two checkpoints exchange a file.
fn exchange(root: &Path, files: &[String], random: &mut ChaCha8Rng) -> String {
    let name = &files[random.random_range(0..files.len())];
    let [one, other] = [STEPS[2], STEPS[3]].map(|step| folder_of(root, step).join(name));
    let aside = root.join("aside");
    fs::rename(&one, &aside).unwrap();
    fs::rename(&other, &one).unwrap();
    fs::rename(&aside, &other).unwrap();
    format!("the newest two exchange {name}")
}

#[test]
fn whatever_is_spoilt_no_bad_data_is_read_and_the_newest_whole_one_is_found() {
    spoil_checkpoints(1);
}

#[test]
fn whatever_is_spoilt_of_one_in_parts_it_is_the_same() {
    spoil_checkpoints(3);
}

fn spoil_checkpoints(parts: usize) {
    let files = files(parts);
    let (mut random, seed) = seeded("checkpoints are spoilt");
    let pristine = tempfile::tempdir().unwrap();
    let mut originals = BTreeMap::new();
    for step in STEPS {
        let path = write_in_parts(pristine.path(), &of_step(step), parts, 1).path;
        originals.insert(step, contents(&path, &files));
    }
    let mut passed_over = 0;
    for round in 0..tries(500) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        copy(pristine.path(), root, &files);
        let blows = match random.random_range(0..4) {
            0 => vec![exchange(root, &files, &mut random)],
            1 => vec![
                spoil(root, 450, &files, &mut random),
                spoil(root, 300, &files, &mut random),
            ],
            2 => vec![
                spoil(root, 450, &files, &mut random),
                spoil(root, 450, &files, &mut random),
            ],
            _ => vec![spoil(root, 450, &files, &mut random)],
        };
        let place = format!(
            "SPINECTL_SOAK_SEED={seed}, round {round}: {}",
            blows.join(", ")
        );
        passed_over += check(root, &originals, &files, &place);
    }
    println!(
        "{passed_over} checkpoints were passed over in {} rounds",
        tries(500)
    );
    assert!(
        passed_over > 0,
        "SPINECTL_SOAK_SEED={seed}: nothing was spoilt"
    );
}

/// Looks for the newest whole checkpoint below `root`; returns how many newer ones were passed over.
fn check(root: &Path, originals: &BTreeMap<u64, Contents>, files: &[String], place: &str) -> usize {
    let found = newest_valid_of(root, PLAN).unwrap().expect(place);
    let loaded = read(&found.path, Some(PLAN)).expect(place);
    assert!(loaded == of_step(found.step), "{place}: other data is read");

    let text = found.to_string();
    let mut skipped = found.skipped.iter();
    for step in STEPS.into_iter().rev() {
        let path = folder_of(root, step);
        let now = contents(&path, files);
        let original = &originals[&step];
        let changed: Vec<&String> = files.iter().filter(|f| now[*f] != original[*f]).collect();
        // A manifest that reads the same is the same, however it is written.
        let only_manifest = changed == ["manifest.json"];
        if let Ok(loaded) = read(&path, None) {
            assert!(
                changed.is_empty() || only_manifest,
                "{place}: {step} is read"
            );
            assert!(
                loaded == of_step(step),
                "{place}: {step} is read as another"
            );
        }
        if step <= found.step {
            continue;
        }
        assert!(!changed.is_empty(), "{place}: {step} is whole; {text}");
        let passed = skipped.next().expect(place);
        assert_eq!(passed.step, step, "{place}");
        let reason = passed.reason.to_string();
        assert!(
            changed
                .iter()
                .any(|file| reason.contains(file.trim_end_matches(".json"))),
            "{place}: `{reason}` names none of {changed:?}"
        );
        assert!(
            text.contains(&format!("skipped step {step} ({reason})")),
            "{place}: {text}"
        );
    }
    assert!(skipped.next().is_none(), "{place}: {text}");
    if let Some(newest) = found.skipped.first() {
        let lost = newest.step - found.step;
        assert!(
            text.ends_with(&format!(": {lost} steps must be done again")),
            "{place}: {text}"
        );
    }
    found.skipped.len()
}
