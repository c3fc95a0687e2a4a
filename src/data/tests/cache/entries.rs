//! Entries are what is decoded, by content and parameters; a warm start reads no slice.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use data::StudyUid;
use data::cache::{Cache, CacheOptions, Outcome};
use data::stack::Stacks;
use data::volume::{read_study, study_header};
use safetensors::SafeTensors;

use crate::fixture::*;

fn variants() -> [CacheOptions; 4] {
    [(false, false), (false, true), (true, false), (true, true)].map(|(compress, volumes)| {
        CacheOptions {
            compress,
            volumes,
            ..OPTIONS
        }
    })
}

#[test]
fn an_entry_is_what_is_decoded() {
    for options in variants() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(dir.path(), options);
        for header in &headers(phantom())[..3] {
            for crop in [None, CROP] {
                let expected = decoded(header, crop, SIDE);
                for _ in 0..2 {
                    let stack = cache.stack(header, crop, appearance(SIDE)).unwrap();
                    assert!(pixels(&stack) == expected, "{options:?}");
                    assert_eq!(stack.slice_numbers, header.slice_numbers);
                    assert!(stack.memory_bytes() < expected.len(), "it is in memory");
                    let area = SIDE * SIDE;
                    let ends = stack.slices_between(-1, 2).unwrap();
                    assert_eq!(ends[..area], expected[..area]);
                    assert_eq!(ends[area..], expected[..2 * area]);
                }
            }
            assert!(cache.volume(header).unwrap() == read_study(&header.path).unwrap().hu);
            let built = cache.build_volume(header).unwrap();
            assert_eq!(matches!(built, Outcome::Found { .. }), options.volumes);
            assert!(cache.volume(header).unwrap() == read_study(&header.path).unwrap().hu);
            // Of another size it is made from the volume.
            let stack = cache.stack(header, CROP, appearance(24)).unwrap();
            assert!(pixels(&stack) == decoded(header, CROP, 24));
        }
        assert_eq!(cache.warnings(), Vec::<String>::new());
        let usage = cache.usage().unwrap();
        assert_eq!((usage.stacks.entries, usage.volumes.entries), (9, 3));
        let on_disk: u64 = files(dir.path())
            .iter()
            .map(|p| fs::metadata(p).unwrap().len())
            .sum();
        assert_eq!(usage.bytes(), on_disk);
        assert_tidy(dir.path());
    }
}

#[test]
fn an_entry_is_a_safetensors_file() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path(), OPTIONS);
    let header = &headers(phantom())[0];
    cache.build_stack(header, None, appearance(SIDE)).unwrap();
    let bytes = fs::read(&files(dir.path())[0]).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor("pixels").unwrap();
    assert_eq!(tensor.shape(), [header.slice_numbers.len(), SIDE, SIDE]);
    assert!(tensor.data() == decoded(header, None, SIDE));
}

#[test]
fn other_parameters_are_another_entry() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path(), OPTIONS);
    let header = &headers(phantom())[0];
    let mut other = appearance(SIDE);
    other.window.level = 100.0;
    let mut fixed = appearance(SIDE);
    fixed.window.mode = data::image::WindowMode::Fixed;
    let asked = [
        (None, appearance(SIDE)),
        (CROP, appearance(SIDE)),
        (CROP, appearance(SIDE + 1)),
        (CROP, other),
        (CROP, fixed),
    ];
    for (crop, appearance) in asked {
        let made = cache.build_stack(header, crop, appearance).unwrap();
        assert!(matches!(made, Outcome::Made { .. }));
        let found = cache.build_stack(header, crop, appearance).unwrap();
        assert!(matches!(found, Outcome::Found { .. }));
    }
    assert_eq!(files(dir.path()).len(), asked.len());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in listed(from) {
        let copied = to.join(file.file_name().unwrap());
        fs::copy(&file, &copied).unwrap();
        age(&copied);
    }
}

#[test]
fn content_counts_not_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(&dir.path().join("cache"), OPTIONS);
    let folder = &folders(phantom())[0];
    let header = study_header(folder).unwrap();
    let entry = |path: &Path| {
        let header = study_header(path).unwrap();
        cache.build_stack(&header, CROP, appearance(SIDE)).unwrap()
    };
    assert!(matches!(entry(folder), Outcome::Made { .. }));
    let moved = dir.path().join(folder.file_name().unwrap());
    copy(folder, &moved);
    assert!(matches!(entry(&moved), Outcome::Found { .. }));

    // One pixel's least bit, with the old size and the old time of change.
    let slice = header.files()[3].file_name().unwrap().to_owned();
    let mut bytes = fs::read(moved.join(&slice)).unwrap();
    let last = bytes.len() - 1000;
    bytes[last] ^= 1;
    fs::write(moved.join(&slice), bytes).unwrap();
    age(&moved.join(&slice));
    assert!(matches!(entry(&moved), Outcome::Made { .. }));
    let header = study_header(&moved).unwrap();
    let stack = cache.stack(&header, CROP, appearance(SIDE)).unwrap();
    assert!(pixels(&stack) == decoded(&header, CROP, SIDE));
}

/// Bytes that this thread has read from files so far.
fn bytes_read() -> u64 {
    let counts = fs::read_to_string("/proc/thread-self/io").unwrap();
    let line = counts.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.unwrap().parse().unwrap()
}

#[test]
fn a_warm_start_reads_the_entry_alone() {
    let dir = tempfile::tempdir().unwrap();
    write_phantom(dir.path(), 5, 160);
    let header = &headers(dir.path())[0];
    let at = dir.path().join("cache");
    open(&at, OPTIONS)
        .build_stack(header, None, appearance(SIDE))
        .unwrap();

    let source: u64 = header
        .files()
        .iter()
        .map(|p| fs::metadata(p).unwrap().len())
        .sum();
    let entry = fs::metadata(&files(&at)[0]).unwrap().len();
    assert!(source > 10 * entry, "{source} and {entry}");
    let before = bytes_read();
    let stack = open(&at, OPTIONS)
        .stack(header, None, appearance(SIDE))
        .unwrap();
    let read = pixels(&stack);
    let used = bytes_read() - before;
    assert!(
        used < entry + 20_000,
        "{used} bytes were read for an entry of {entry}"
    );
    assert!(read == decoded(header, None, SIDE));
    assert!(bytes_read() - before > source, "the count does not count");
}

#[test]
fn threads_that_ask_at_once_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path(), OPTIONS);
    let header = &headers(phantom())[0];
    let images = phantom().join("train_images");
    for stacks in [
        Stacks::new(images.clone(), appearance(SIDE), BTreeMap::new(), 1 << 30),
        Stacks::new(images, appearance(SIDE), BTreeMap::new(), 1 << 30).with_cache(cache),
    ] {
        let study: &StudyUid = &header.study;
        let all: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| stacks.get(study).unwrap()))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        for stack in &all {
            assert!(Arc::ptr_eq(stack, &all[0]));
        }
        assert!(pixels(&all[0]) == decoded(header, None, SIDE));
        assert!(Arc::ptr_eq(&all[0], &stacks.get(study).unwrap()));
    }
}

#[test]
fn only_a_cache_is_emptied_and_strangers_stay() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.txt"), "years").unwrap();
    assert!(Cache::existing(dir.path()).is_err() && Cache::open(dir.path(), OPTIONS).is_err());
    assert!(Cache::existing(&dir.path().join("nothing")).is_err());
    assert_eq!(listed(dir.path()).len(), 1);

    let at = dir.path().join("cache");
    let cache = open(&at, OPTIONS);
    for header in headers(phantom()) {
        cache.build_stack(&header, None, appearance(SIDE)).unwrap();
    }
    for folder in ["", "entries", "locks", "studies"] {
        fs::write(at.join(folder).join("notes.txt"), "mine").unwrap();
    }
    let cache = Cache::existing(&at).unwrap();
    let verified = cache.verify(&|_, _| {}).unwrap();
    assert_eq!(
        (verified.good.stacks.entries, verified.bad.len()),
        (STUDIES, 0)
    );
    assert_eq!(cache.clear().unwrap().stacks.entries, STUDIES);
    assert_eq!(cache.usage().unwrap().bytes(), 0);
    for folder in ["", "entries", "locks", "studies"] {
        assert!(at.join(folder).join("notes.txt").exists(), "{folder}");
    }
    assert_eq!(listed(&at.join("studies")).len(), 1);
}
