//! Files that are missing, cut short, changed or hostile: told by name, passed over, never read.

use std::fs::{self, File};
use std::path::Path;

use checkpoint::{
    Dtype, Error, Fault, load_safetensors, newest_valid, read, save_safetensors, verify, write,
};

use crate::fixture::{FILES, PLAN, checkpoint, flip_bit, tensor};

/// Spoils one file of the newest of two checkpoints.
fn fall_back(file: &str, spoil: impl Fn(&Path), reason: &str) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &checkpoint(100, 100)).unwrap();
    let newest = write(folder.path(), &checkpoint(250, 100)).unwrap().path;
    spoil(&newest.join(file));

    let error = verify(&newest).unwrap_err().to_string();
    assert!(
        error.contains(reason),
        "{file}: `{error}` does not say `{reason}`"
    );
    assert!(
        read(&newest, None).is_err(),
        "{file}: a spoiled checkpoint was read"
    );

    let found = newest_valid(folder.path()).unwrap().unwrap();
    assert_eq!((found.step, found.steps_lost()), (100, 150));
    let sentence = found.to_string();
    assert!(
        sentence.contains(reason),
        "{file}: `{sentence}` does not say `{reason}`"
    );
    assert!(
        sentence.ends_with(": 150 steps must be done again"),
        "{sentence}"
    );
    assert_eq!(read(&found.path, Some(PLAN)).unwrap(), checkpoint(100, 100));
}

#[test]
fn a_missing_file_is_told_and_passed_over() {
    for file in FILES {
        fall_back(
            file,
            |path| fs::remove_file(path).unwrap(),
            &format!("{file} is missing"),
        );
    }
}

#[test]
fn a_file_cut_short_is_told_and_passed_over() {
    let cut = |path: &Path| {
        let length = fs::metadata(path).unwrap().len();
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(length - 1)
            .unwrap();
    };
    for file in &FILES[1..] {
        fall_back(file, cut, &format!("{file} has "));
    }
    fall_back("manifest.json", cut, "manifest.json cannot be read");
    fall_back(
        "manifest.json",
        |path| drop(File::create(path).unwrap()),
        "manifest.json cannot be read",
    );
}

#[test]
fn a_flipped_bit_is_told_and_passed_over() {
    for file in &FILES[1..] {
        for offset in [0, 9, 60] {
            fall_back(
                file,
                |path| flip_bit(path, offset),
                &format!("{file} has changed since"),
            );
        }
    }
    let within = |needle: &'static str| {
        move |path: &Path| {
            let text = fs::read_to_string(path).unwrap();
            flip_bit(path, (text.find(needle).unwrap() + needle.len() - 1) as u64);
        }
    };
    // Still JSON, still of the right fields.
    for needle in [
        "\"step\": 2",
        "\"world_size\": 2",
        "\"plan_hash\": \"plan-1",
    ] {
        fall_back(
            "manifest.json",
            within(needle),
            "manifest.json has changed since",
        );
    }
}

#[test]
fn every_bit_of_a_manifest_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &checkpoint(1, 4)).unwrap().path;
    let original = verify(&path).unwrap();
    let file = path.join("manifest.json");
    let length = fs::metadata(&file).unwrap().len();
    let mut refused = 0;
    for offset in 0..length {
        flip_bit(&file, offset);
        match verify(&path) {
            Ok(manifest) => assert_eq!(manifest, original, "byte {offset}"),
            Err(_) => refused += 1,
        }
        flip_bit(&file, offset);
    }
    assert!(
        refused > length / 2,
        "{refused} of {length} flips were seen"
    );
}

#[test]
fn a_manifest_of_another_format_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &checkpoint(1, 4)).unwrap().path;
    fs::write(
        path.join("manifest.json"),
        r#"{"format_version": 3, "shards": []}"#,
    )
    .unwrap();
    let Err(Error::Damaged { fault, .. }) = verify(&path) else {
        panic!("a manifest of format 3 was taken");
    };
    assert_eq!(
        fault,
        Fault::Version {
            found: 3,
            supported: 2
        }
    );
}

#[test]
fn a_folder_named_for_another_step_is_not_valid() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &checkpoint(100, 4)).unwrap().path;
    fs::rename(&path, folder.path().join("step-00000900")).unwrap();
    let error = newest_valid(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("named for step 900, its manifest is of step 100"),
        "{error}"
    );
    // Under a name of the user's own it is as good as before.
    fs::rename(
        folder.path().join("step-00000900"),
        folder.path().join("best"),
    )
    .unwrap();
    assert_eq!(read(&folder.path().join("best"), None).unwrap().step, 100);
}

#[test]
fn no_checkpoint_is_no_error_but_none_valid_is() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(newest_valid(&folder.path().join("never")).unwrap(), None);
    assert_eq!(newest_valid(folder.path()).unwrap(), None);

    for step in [100, 200] {
        let path = write(folder.path(), &checkpoint(step, 4)).unwrap().path;
        fs::remove_file(path.join("trainer.json")).unwrap();
    }
    let error = newest_valid(folder.path()).unwrap_err();
    let Error::NoneValid { skipped, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(
        skipped.iter().map(|s| s.step).collect::<Vec<_>>(),
        [200, 100]
    );
    assert!(error.to_string().contains("--resume never"), "{error}");
}

#[test]
fn a_hostile_safetensors_file_costs_an_error_and_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let file = |length: u64, header: &str, data: usize| {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; data]);
        bytes
    };
    let whole = |header: &str, data| file(header.len() as u64, header, data);
    let cases = [
        (vec![1, 2, 3], "it has 3 bytes, fewer than"),
        (
            file(u64::MAX, "{}", 0),
            "header claims 18446744073709551615 bytes",
        ),
        (
            file(90_000_000, "{}", 0),
            "header claims 90000000 bytes, the file has 10",
        ),
        (whole("[", 0), "header is wrong"),
        (
            whole(
                r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
                3,
            ),
            "header describes",
        ),
        (
            whole(
                r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
                5,
            ),
            "header describes",
        ),
        (
            whole(
                r#"{"a":{"dtype":"F32","shape":[268435456,4096],"data_offsets":[0,4398046511104]}}"#,
                4,
            ),
            "header describes",
        ),
        (
            whole(
                r#"{"a":{"dtype":"F32","shape":[18446744073709551615,2],"data_offsets":[0,8]}}"#,
                8,
            ),
            "header is wrong",
        ),
        (
            whole(
                r#"{"a":{"dtype":"U16","shape":[1],"data_offsets":[0,2]}}"#,
                2,
            ),
            "`a` is of type U16",
        ),
    ];
    for (bytes, reason) in cases {
        fs::write(&path, bytes).unwrap();
        let error = load_safetensors(&path).unwrap_err().to_string();
        assert!(error.contains(reason), "`{error}` does not say `{reason}`");
    }
    let error = load_safetensors(&folder.path().join("absent"))
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("cannot open"), "{error}");
    save_safetensors(&path, &[tensor("a", Dtype::F32, &[1], 0)]).unwrap();
    assert_eq!(
        load_safetensors(&path).unwrap().len(),
        1,
        "the base case is sound"
    );
}
