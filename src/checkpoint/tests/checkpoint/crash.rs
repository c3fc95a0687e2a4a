//! Writers that are killed half-way and disks that are full: the older checkpoint stays and is found.
//!
//! A writer that shall die is this test program once more, told by its environment what to do.

use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use checkpoint::{Error, Retention, newest_valid, read, retain, write};

use crate::fixture::{PLAN, checkpoint, names};

const ROLE: &str = "CHECKPOINT_TEST_ROLE";
const ROOT: &str = "CHECKPOINT_TEST_ROOT";
/// 12 MB of model and as much of optimizer: long enough in writing to be caught at it.
const LARGE: usize = 3_000_000;

/// What the children run. Without a role it is a plain test of the loop's body.
#[test]
fn child() {
    let role = std::env::var(ROLE).unwrap_or_default();
    let own = tempfile::tempdir().unwrap();
    let root = std::env::var_os(ROOT).map_or_else(|| own.path().to_owned(), Into::into);
    match role.as_str() {
        "write on and on" => {
            let keep_two = Retention {
                keep_last: 2,
                ..Retention::default()
            };
            let first = newest_valid(&root).unwrap().map_or(0, |found| found.step);
            for step in first + 1.. {
                write(&root, &checkpoint(step, LARGE)).unwrap();
                retain(&root, PLAN, &keep_two).unwrap();
            }
        }
        "die of a file's size" => {
            limit_file_size(1_000_000);
            write(&root, &checkpoint(200, LARGE)).unwrap();
        }
        "hit a file's size" => {
            // SAFETY: no handler is installed, the signal is only ignored.
            unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
            limit_file_size(1_000_000);
            expect_no_room(&root, libc::EFBIG, "ulimit -f");
        }
        _ => {
            let path = write(&root, &checkpoint(1, 10)).unwrap().path;
            assert_eq!(read(&path, None).unwrap(), checkpoint(1, 10));
        }
    }
}

fn spawn(role: &str, root: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--nocapture"])
        .env(ROLE, role)
        .env(ROOT, root)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn limit_file_size(bytes: u64) {
    let limit = |bytes| libc::rlimit {
        rlim_cur: bytes,
        rlim_max: bytes,
    };
    // SAFETY: both structures live through the calls, which only read them.
    let status = unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &limit(0))
            | libc::setrlimit(libc::RLIMIT_FSIZE, &limit(bytes))
    };
    assert_eq!(status, 0, "{}", io::Error::last_os_error());
}

/// With the checkpoint of step 100 in `root`: that of step 200 fails as `code` and leaves all as it
/// was.
fn expect_no_room(root: &Path, code: i32, remedy: &str) {
    let before = names(root);
    let error = write(root, &checkpoint(200, LARGE)).unwrap_err();
    let text = error.to_string();
    let Error::Write {
        step,
        needed,
        free,
        source,
        path,
        ..
    } = error
    else {
        panic!("{text}")
    };
    assert_eq!((step, source.raw_os_error()), (200, Some(code)), "{text}");
    assert!(needed > 24_000_000 && needed < 24_100_000, "{text}");
    assert!(free.is_some() && text.contains("24.0 MB"), "{text}");
    assert!(path.starts_with(root) && text.contains(remedy), "{text}");
    assert_eq!(names(root), before, "nothing of it may stay");
    expect_older(root);
}

fn expect_older(root: &Path) {
    let found = newest_valid(root).unwrap().unwrap();
    assert_eq!((found.step, found.skipped.len()), (100, 0));
    assert_eq!(
        read(&found.path, Some(PLAN)).unwrap(),
        checkpoint(100, 1000)
    );
}

#[test]
fn a_writer_that_dies_at_a_known_byte_leaves_the_older_one_valid() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &checkpoint(100, 1000)).unwrap();
    let status = spawn("die of a file's size", folder.path()).wait().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGXFSZ));

    let left = names(folder.path());
    assert!(
        left.iter()
            .any(|name| name.starts_with(".tmp-step-00000200-")),
        "{left:?}"
    );
    expect_older(folder.path());

    write(folder.path(), &checkpoint(200, 1000)).unwrap();
    assert_eq!(names(folder.path()), ["step-00000100", "step-00000200"]);
}

#[test]
fn a_limit_on_the_size_of_files_is_told() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &checkpoint(100, 1000)).unwrap();
    assert!(
        spawn("hit a file's size", folder.path())
            .wait()
            .unwrap()
            .success()
    );
}

#[test]
fn kill_9_at_any_moment_leaves_only_whole_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let mut caught = 0;
    for round in 0..12 {
        let mut child = spawn("write on and on", folder.path());
        wait_for_a_half_written_file(folder.path());
        std::thread::sleep(Duration::from_millis(round * 3));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));

        caught += names(folder.path())
            .iter()
            .filter(|name| name.starts_with(".tmp-"))
            .count();
        if let Some(found) = newest_valid(folder.path()).unwrap() {
            assert_eq!(found.skipped, [], "a broken checkpoint was visible");
            assert_eq!(
                read(&found.path, Some(PLAN)).unwrap(),
                checkpoint(found.step, LARGE)
            );
        }
    }
    assert!(caught > 0, "no writer was killed while it wrote");
}

fn wait_for_a_half_written_file(root: &Path) {
    let patience = Instant::now() + Duration::from_secs(60);
    let half_written = || {
        names(root)
            .iter()
            .filter(|name| name.starts_with(".tmp-step-"))
            .any(|name| {
                fs::metadata(root.join(name).join("model.safetensors"))
                    .is_ok_and(|file| file.len() > 0)
            })
    };
    while !half_written() {
        assert!(
            Instant::now() < patience,
            "the writer does not get to write"
        );
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Runs `test` on a disk of `options` that is mounted for this thread alone; false where mounting
/// is refused.
fn on_a_small_disk(options: &str, test: impl FnOnce(&Path)) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let target = std::ffi::CString::new(folder.path().to_str().unwrap()).unwrap();
    let options = std::ffi::CString::new(options).unwrap();
    let null = std::ptr::null();
    // SAFETY: all strings end in zero and outlive the calls. The namespace is this thread's and ends
    // with it.
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
                options.as_ptr().cast(),
            ) == 0
    };
    if mounted {
        test(folder.path());
        // SAFETY: as above.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
    mounted
}

/// Where mounting is refused, the limit on the size of files stands in for the full disk.
fn without_a_disk_of_its_own() {
    a_limit_on_the_size_of_files_is_told();
}

#[test]
fn a_disk_too_small_is_told_before_it_is_filled() {
    let tested = on_a_small_disk("size=4m", |root| {
        write(root, &checkpoint(100, 1000)).unwrap();
        expect_no_room(root, libc::ENOSPC, "Free space");
    });
    if !tested {
        without_a_disk_of_its_own();
    }
}

#[test]
fn a_disk_that_fills_up_in_the_middle_is_told_and_cleaned() {
    // Room for the bytes, but not for the files: the last is refused after the others were written.
    let tested = on_a_small_disk("size=64m,nr_inodes=10", |root| {
        write(root, &checkpoint(100, 1000)).unwrap();
        expect_no_room(root, libc::ENOSPC, "df -i");
    });
    if !tested {
        without_a_disk_of_its_own();
    }
}
