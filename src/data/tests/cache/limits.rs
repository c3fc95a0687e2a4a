//! The limit on the cache's size: the least recently used entries go, and it is never passed.

use std::fs;
use std::time::Duration;

use data::cache::{CacheOptions, Outcome};

use crate::fixture::*;

/// Room for about five of the phantom's stacks.
pub fn small() -> CacheOptions {
    CacheOptions {
        limit: 200_000,
        ..OPTIONS
    }
}

#[test]
fn what_was_not_used_for_longest_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let headers = headers(phantom());
    let build = |n: usize, options: CacheOptions| {
        std::thread::sleep(Duration::from_millis(20));
        open(dir.path(), options)
            .build_stack(&headers[n], CROP, appearance(SIDE))
            .unwrap()
    };
    let mut bytes = 0;
    for n in 0..3 {
        let Outcome::Made { bytes: more } = build(n, OPTIONS) else {
            panic!("study {n} was there")
        };
        bytes += more;
    }
    build(0, OPTIONS); // used again
    let limit = bytes + 1000;
    assert!(matches!(
        build(3, CacheOptions { limit, ..OPTIONS }),
        Outcome::Made { .. }
    ));
    assert!(open(dir.path(), OPTIONS).usage().unwrap().bytes() <= limit);
    assert!(matches!(build(0, OPTIONS), Outcome::Found { .. }));
    assert!(matches!(build(3, OPTIONS), Outcome::Found { .. }));
    assert!(matches!(build(1, OPTIONS), Outcome::Made { .. }));
}

#[test]
fn what_is_larger_than_the_limit_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(
        dir.path(),
        CacheOptions {
            limit: 5_000,
            ..OPTIONS
        },
    );
    for header in headers(phantom()) {
        let stack = cache.stack(&header, None, appearance(SIDE)).unwrap();
        assert!(pixels(&stack) == decoded(&header, None, SIDE));
    }
    let said = cache.warnings();
    assert!(
        said.len() == 1 && said[0].contains("data.cache.limit_gb"),
        "{said:?}"
    );
    assert_eq!(files(dir.path()).len(), 0);
}

#[test]
fn several_writers_together_stay_within_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("cache");
    open(&at, small());
    let lock = fs::File::options()
        .create(true)
        .append(true)
        .open(at.join("lock"))
        .unwrap();
    let mut children: Vec<_> = (0..3)
        .map(|_| spawn("within a limit", &at, phantom(), dir.path()))
        .collect();
    let mut most = 0;
    while children
        .iter_mut()
        .any(|child| child.try_wait().unwrap().is_none())
    {
        // Names do not change while this is held.
        lock.lock().unwrap();
        let sizes = files(&at)
            .into_iter()
            .filter_map(|path| Some(fs::metadata(path).ok()?.len()));
        most = most.max(sizes.sum::<u64>());
        lock.unlock().unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert!(most > 100_000 && most <= small().limit, "{most} bytes");
    assert_tidy(&at);
}
