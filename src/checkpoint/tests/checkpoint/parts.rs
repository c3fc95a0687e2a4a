//! Checkpoints that several processes write together.

use std::fs;
use std::path::Path;
use std::time::Duration;

use checkpoint::{
    Error, Fault, Mark, Share, newest_valid_of, read, read_model, read_trainer, verify, write,
    write_part,
};

use crate::fixture::{
    FILES, PLAN, checkpoint, files, flip_bit, names, part_of, share, steps, write_in_parts,
};

#[test]
fn in_any_number_of_parts_it_reads_the_same() {
    let folder = tempfile::tempdir().unwrap();
    // More parts than tensors: some are empty.
    for parts in [1, 2, 3, 12] {
        let step = parts as u64;
        let whole = checkpoint(step, 500);
        let written = write_in_parts(folder.path(), &whole, parts, 7);
        assert_eq!(names(&written.path), files(parts));
        let on_disk: u64 = names(&written.path)
            .iter()
            .map(|name| fs::metadata(written.path.join(name)).unwrap().len())
            .sum();
        assert_eq!(written.bytes, on_disk);
        let manifest = verify(&written.path).unwrap();
        assert_eq!(manifest.shards, parts);
        assert_eq!(manifest.format_version, if parts == 1 { 1 } else { 2 });
        assert_eq!(read(&written.path, Some(PLAN)).unwrap(), whole);
        assert_eq!(read_model(&written.path).unwrap().1, whole.model);
        assert_eq!(read_trainer(&written.path).unwrap(), whole.trainer);
    }
    assert_eq!(names(folder.path()).len(), 4, "nothing else stays");
}

#[test]
fn without_shards_the_bytes_are_those_of_ever() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &checkpoint(1, 50)).unwrap().path;
    assert_eq!(names(&path), FILES);
    let manifest = fs::read_to_string(path.join("manifest.json")).unwrap();
    assert!(!manifest.contains("shards"), "{manifest}");
}

#[test]
fn a_damaged_or_missing_part_is_named_and_an_older_one_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for step in [100, 200] {
        write_in_parts(root, &checkpoint(step, 500), 3, step);
    }
    let newest = root.join("step-00000200");
    let part = "optimizer-00002-of-00003.safetensors";
    flip_bit(&newest.join(part), 60);
    let error = read(&newest, None).unwrap_err();
    assert!(
        matches!(&error, Error::Damaged { fault: Fault::Hash { file, .. }, .. } if file == part),
        "{error}"
    );
    let found = newest_valid_of(root, PLAN).unwrap().unwrap();
    assert_eq!((found.step, found.skipped.len()), (100, 1));

    fs::remove_file(newest.join(part)).unwrap();
    let found = newest_valid_of(root, PLAN).unwrap().unwrap();
    let missing = Fault::Missing { file: part.into() };
    assert_eq!(found.skipped[0].reason, missing);
    assert!(found.to_string().contains(part), "{found}");
}

/// Part 1's own, of step 5.
fn part_one(root: &Path, token: u64) {
    let own = part_of(checkpoint(5, 500), 1, 2);
    assert_eq!(write_part(root, &own, &share(1, 2, token)).unwrap(), None);
}

fn part_zero(root: &Path, patience: Duration) -> Result<(), Error> {
    let own = part_of(checkpoint(5, 500), 0, 2);
    let share = Share {
        patience,
        ..share(0, 2, 7)
    };
    write_part(root, &own, &share).map(drop)
}

#[test]
fn without_a_part_there_is_no_checkpoint_and_the_ranks_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(root, &checkpoint(4, 500)).unwrap();
    // A part of an earlier attempt at the same step is not one of this.
    part_one(root, 6);
    let error = part_zero(root, Duration::from_millis(50)).unwrap_err();
    assert!(
        matches!(&error, Error::PartsMissing { step: 5, missing, .. } if *missing == [1]),
        "{error}"
    );
    let text = error.to_string();
    assert!(
        text.contains("the part of rank 1 is not") && text.contains("checkpoint.shards: off"),
        "{text}"
    );
    assert_eq!(steps(root), [4]);
    assert_eq!(names(root), ["step-00000004"], "its rests are gone");
}

#[test]
fn the_first_part_may_come_last() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    part_one(root, 7);
    // And the other is at its next checkpoint already.
    let ahead = part_of(checkpoint(6, 500), 1, 2);
    write_part(root, &ahead, &share(1, 2, 7)).unwrap();
    part_zero(root, Duration::ZERO).unwrap();
    let read = read(&root.join("step-00000005"), Some(PLAN)).unwrap();
    assert_eq!(read, checkpoint(5, 500));
    let left = names(root);
    assert!(
        left[0].starts_with(".tmp-step-00000006-shared-"),
        "{left:?}"
    );
    assert_eq!(left[1..], ["step-00000005"]);

    let own = part_of(checkpoint(6, 500), 0, 2);
    write_part(root, &own, &share(0, 2, 7)).unwrap();
    assert_eq!(names(root), ["step-00000005", "step-00000006"]);
}

#[test]
fn what_is_there_already_is_waited_for_by_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(root, &checkpoint(5, 500)).unwrap();
    part_zero(root, Duration::ZERO).unwrap();
    part_one(root, 7);
    assert_eq!(names(root), ["step-00000005"]);
}

#[test]
fn a_mark_is_seen_by_its_number_while_it_is_held() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("checkpoints");
    let mark = Mark::leave(&root, 3).unwrap();
    assert!(Mark::is_seen(&root, 3) && !Mark::is_seen(&root, 4));
    drop(mark);
    assert!(!Mark::is_seen(&root, 3));
    assert!(names(&root).is_empty());
}
