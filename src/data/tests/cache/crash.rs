//! Many processes at once, processes that are killed, and disks that are full.

use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data::cache::{Cache, Outcome};

use crate::fixture::*;

/// What the children run. Without a role it is a plain test of the loop's body.
#[test]
fn child() {
    let role = std::env::var(ROLE).unwrap_or_default();
    let own = tempfile::tempdir().unwrap();
    let from =
        |name: &str, or: &Path| std::env::var_os(name).map_or_else(|| or.to_owned(), PathBuf::from);
    let dir = from(CACHE, own.path());
    let out = from(OUT, &own.path().join("../cache-test-out"));
    let phantom = std::env::var_os(DATA).map_or_else(|| phantom().to_owned(), PathBuf::from);
    match role.as_str() {
        "build on and on" => {
            let cache = open(&dir, OPTIONS);
            let headers = headers(&phantom);
            loop {
                for header in &headers {
                    cache.build_stack(header, CROP, appearance(SIDE)).unwrap();
                }
                cache.clear().unwrap();
            }
        }
        "within a limit" => {
            let cache = open(&dir, crate::limits::small());
            for (round, header) in headers(&phantom).iter().cycle().take(60).enumerate() {
                let side = SIDE + round % 5;
                let stack = cache.stack(header, CROP, appearance(side)).unwrap();
                assert!(pixels(&stack) == decoded(header, CROP, side));
            }
        }
        "hit a file's size" => {
            let limit = libc::rlimit {
                rlim_cur: 10_000,
                rlim_max: 10_000,
            };
            // SAFETY: no handler is installed, the signal is only ignored; the structure lives through the call.
            let status = unsafe {
                libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
                libc::setrlimit(libc::RLIMIT_FSIZE, &limit)
            };
            assert_eq!(status, 0, "{}", io::Error::last_os_error());
            without_room(&dir, &phantom);
        }
        _ => {
            let cache = open(&dir, OPTIONS);
            let mut made = 0;
            for header in headers(&phantom) {
                let outcome = cache.build_stack(&header, CROP, appearance(SIDE)).unwrap();
                made += usize::from(matches!(outcome, Outcome::Made { .. }));
                let stack = cache.stack(&header, CROP, appearance(SIDE)).unwrap();
                assert!(pixels(&stack) == decoded(&header, CROP, SIDE));
            }
            assert_eq!(cache.warnings(), Vec::<String>::new());
            if !role.is_empty() {
                fs::write(&out, made.to_string()).unwrap();
            }
        }
    }
}

#[test]
fn processes_that_ask_at_once_make_each_entry_once() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let out = |n: usize| dir.path().join(n.to_string());
    let children: Vec<_> = (0..4)
        .map(|n| spawn("build", &cache, phantom(), &out(n)))
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let made = (0..4).map(|n| {
        fs::read_to_string(out(n))
            .unwrap()
            .parse::<usize>()
            .unwrap()
    });
    assert_eq!(made.sum::<usize>(), STUDIES);
    assert_eq!(files(&cache).len(), STUDIES);
    assert_tidy(&cache);
}

#[test]
fn a_builder_killed_at_any_moment_leaves_nothing_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("cache");
    let mut numbers = Numbers(29);
    let mut half_way = 0;
    for _ in 0..30 {
        let mut child = spawn("build on and on", &at, phantom(), dir.path());
        while !at.join("entries").is_dir() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(10_000 + numbers.below(90_000)));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));

        half_way += listed(&at.join("locks")).len();
        // Whoever comes next finds or makes; nothing that is there under its name is bad.
        let verified = Cache::existing(&at).unwrap().verify(&|_, _| {}).unwrap();
        assert_eq!(verified.bad, []);
        assert_tidy(&at);
        let cache = open(&at, OPTIONS);
        for header in &headers(phantom())[..2] {
            let stack = cache.stack(header, CROP, appearance(SIDE)).unwrap();
            assert!(pixels(&stack) == decoded(header, CROP, SIDE));
        }
        assert_eq!(cache.warnings(), Vec::<String>::new());
    }
    assert!(half_way > 0, "no builder was killed while it built");
    let cache = open(&at, OPTIONS);
    for header in headers(phantom()) {
        cache.build_stack(&header, CROP, appearance(SIDE)).unwrap();
    }
    assert_eq!(files(&at).len(), STUDIES);
    assert_tidy(&at);
}

/// Everything is returned, and one warning says that nothing could be kept.
fn without_room(dir: &Path, phantom: &Path) {
    let cache = open(dir, OPTIONS);
    let headers = headers(phantom);
    for header in &headers {
        let stack = cache.stack(header, CROP, appearance(SIDE)).unwrap();
        assert!(pixels(&stack) == decoded(header, CROP, SIDE));
        assert!(stack.memory_bytes() >= pixels(&stack).len());
    }
    let warnings = cache.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("cannot write to the cache"),
        "{warnings:?}"
    );
    assert_eq!(files(dir), Vec::<PathBuf>::new());
    assert_tidy(dir);
}

#[test]
fn a_disk_without_room_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = spawn(
        "hit a file's size",
        &dir.path().join("cache"),
        phantom(),
        dir.path(),
    );
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_disk_that_fills_up_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let target = std::ffi::CString::new(folder.path().to_str().unwrap()).unwrap();
    let phantom = phantom().to_owned();
    let null = std::ptr::null();
    // SAFETY: all strings end in zero and outlive the calls. The namespace is this thread's and ends with it.
    let mounted = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(
                null,
                c"/".as_ptr(),
                null,
                libc::MS_REC | libc::MS_PRIVATE,
                null.cast(),
            ) == 0
            && libc::mount(
                c"none".as_ptr(),
                target.as_ptr(),
                c"tmpfs".as_ptr(),
                0,
                c"size=24k".as_ptr().cast(),
            ) == 0
    };
    if mounted {
        without_room(folder.path(), &phantom);
        // SAFETY: as above.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    } else {
        // Where mounting is refused, the limit on the size of files stands in for the full disk.
        a_disk_without_room_is_told_once();
    }
}
