//! Entries that were damaged: never a wrong pixel, and the entry is made again.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use data::cache::{Cache, CacheOptions};
use data::stack::Stack;

use crate::fixture::*;

/// One of six kinds of damage, somewhere.
fn damage(file: &Path, other: &Path, round: u64, numbers: &mut Numbers) {
    let mut bytes = fs::read(file).unwrap();
    // Every third time among the tables, which are small.
    let end = if round.is_multiple_of(3) {
        4600
    } else {
        bytes.len() as u64
    };
    let at = numbers.below(end) as usize;
    match round % 6 {
        0 | 1 => bytes[at] ^= 1 << numbers.below(8),
        2 => bytes.truncate(at),
        3 => bytes[at..].fill(0),
        4 => return fs::remove_file(file).unwrap(),
        _ if round.is_multiple_of(4) => bytes = b"not of this cache".to_vec(),
        _ => bytes = fs::read(other).unwrap(),
    }
    fs::write(file, bytes).unwrap();
}

fn check(options: CacheOptions, seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path(), options);
    let headers = headers(phantom());
    let (header, other) = (&headers[0], &headers[1]);
    let get =
        |cache: &Arc<Cache>| -> Stack { cache.stack(header, CROP, appearance(SIDE)).unwrap() };
    let expected = decoded(header, CROP, SIDE);
    let mut held = get(&cache);
    let file = files(dir.path())[0].clone();
    cache.build_stack(other, CROP, appearance(SIDE)).unwrap();
    let others = files(dir.path());
    let other = others.iter().find(|path| **path != file).unwrap();

    let (mut numbers, mut told) = (Numbers(seed), 0);
    for round in 0..100 {
        damage(&file, other, round, &mut numbers);
        // By who has it already, who does not read its head again, or by who comes new.
        if numbers.below(2) == 0 {
            assert!(pixels(&held) == expected, "round {round}");
        }
        held = get(&cache);
        assert!(pixels(&held) == expected, "round {round}");
        let verified = cache.verify(&|_, _| {}).unwrap();
        assert_eq!(
            (verified.good.stacks.entries, verified.bad),
            (2, vec![]),
            "round {round}"
        );
        assert!(
            held.memory_bytes() < expected.len(),
            "it is not in the cache again"
        );
        let warnings = cache.warnings();
        assert!(warnings.len() <= 1, "{warnings:?}");
        told += warnings.len();
    }
    assert!(told > 50, "{told} of 100 were seen");
    assert_tidy(dir.path());
}

#[test]
fn damage_anywhere_is_seen_and_repaired() {
    check(OPTIONS, 11);
    check(
        CacheOptions {
            compress: true,
            ..OPTIONS
        },
        12,
    );
}

#[test]
fn a_damaged_volume_is_not_what_a_stack_is_made_of() {
    for compress in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let options = CacheOptions {
            compress,
            volumes: true,
            ..OPTIONS
        };
        let cache = open(dir.path(), options);
        let header = &headers(phantom())[0];
        cache.build_volume(header).unwrap();
        let file = files(dir.path())[0].clone();
        let mut numbers = Numbers(3);
        for side in 20..40 {
            let mut bytes = fs::read(&file).unwrap();
            let at = 4500 + numbers.below(bytes.len() as u64 - 4500) as usize;
            bytes[at] ^= 4;
            fs::write(&file, bytes).unwrap();
            let stack = cache.stack(header, None, appearance(side)).unwrap();
            assert!(pixels(&stack) == decoded(header, None, side));
            assert_eq!(cache.warnings().len(), 1);
            cache.build_volume(header).unwrap();
        }
    }
}

#[test]
fn verify_finds_and_removes_every_damaged_entry() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path(), OPTIONS);
    for header in headers(phantom()) {
        cache.build_stack(&header, None, appearance(SIDE)).unwrap();
    }
    let all = files(dir.path());
    for file in &all[1..3] {
        let mut bytes = fs::read(file).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(file, bytes).unwrap();
    }
    let verified = Cache::existing(dir.path())
        .unwrap()
        .verify(&|_, _| {})
        .unwrap();
    assert_eq!(verified.good.stacks.entries, STUDIES - 2);
    let bad: Vec<_> = verified
        .bad
        .iter()
        .map(|bad| dir.path().join("entries").join(&bad.name))
        .collect();
    assert_eq!(bad, all[1..3]);
    assert!(
        verified
            .bad
            .iter()
            .all(|bad| bad.removed && !bad.problem.is_empty())
    );
    assert_eq!(files(dir.path()).len(), STUDIES - 2);
}

#[test]
fn notes_of_contents_that_are_damaged_are_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path(), OPTIONS);
    let header = &headers(phantom())[0];
    cache.build_stack(header, None, appearance(SIDE)).unwrap();
    let note = listed(&dir.path().join("studies"))[0].clone();
    let sound = fs::read(&note).unwrap();
    for at in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        fs::write(&note, &bytes[..]).unwrap();
        cache.build_stack(header, None, appearance(SIDE)).unwrap();
        assert_eq!(fs::read(&note).unwrap(), sound);
    }
    assert_eq!(files(dir.path()).len(), 1);
}
