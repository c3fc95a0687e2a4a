//! A small phantom, caches, and this test program as a child process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use data::cache::{Cache, CacheOptions};
use data::image::Window;
use data::phantom::{SynthOptions, synthesize};
use data::stack::{Appearance, Stack, read_stack};
use data::volume::{StudyHeader, study_header};
use tempfile::TempDir;

pub const SIDE: usize = 40;
pub const CROP: Option<[f64; 4]> = Some([0.2, 0.25, 0.8, 0.75]);
pub const STUDIES: usize = 6;

pub const OPTIONS: CacheOptions = CacheOptions {
    limit: 1 << 30,
    compress: false,
    volumes: false,
};

pub fn appearance(side: usize) -> Appearance {
    Appearance {
        side,
        window: Window::default(),
    }
}

/// Writes a phantom's studies below `root` as files that were last changed an hour ago.
pub fn write_phantom(root: &Path, seed: u64, size: usize) {
    let options = SynthOptions {
        out: root.to_owned(),
        studies: STUDIES,
        slices: 16,
        size,
        seed,
        ..SynthOptions::default()
    };
    synthesize(&options, &|_, _| {}).unwrap();
    for folder in folders(root) {
        for file in fs::read_dir(folder).unwrap() {
            age(&file.unwrap().path());
        }
    }
}

pub fn age(path: &Path) {
    let then = SystemTime::now() - Duration::from_secs(3600);
    File::options()
        .append(true)
        .open(path)
        .unwrap()
        .set_modified(then)
        .unwrap();
}

pub fn folders(root: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(root.join("train_images")).unwrap();
    let mut folders: Vec<_> = folders.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

pub fn headers(root: &Path) -> Vec<StudyHeader> {
    folders(root)
        .iter()
        .map(|folder| study_header(folder).unwrap())
        .collect()
}

static PHANTOM: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    write_phantom(folder.path(), 1, 48);
    folder
});

pub fn phantom() -> &'static Path {
    PHANTOM.path()
}

pub fn open(dir: &Path, options: CacheOptions) -> Arc<Cache> {
    Arc::new(Cache::open(dir, options).unwrap())
}

pub fn pixels(stack: &Stack) -> Vec<u8> {
    stack.slices_between(0, stack.slices() as isize).unwrap()
}

pub fn decoded(header: &StudyHeader, crop: Option<[f64; 4]>, side: usize) -> Vec<u8> {
    pixels(&read_stack(header, crop, appearance(side)).unwrap())
}

/// Files of the cache's entries, unfinished ones too.
pub fn files(cache: &Path) -> Vec<PathBuf> {
    listed(&cache.join("entries"))
}

pub fn listed(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// No process of the past has left anything.
pub fn assert_tidy(cache: &Path) {
    for path in files(cache) {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(!name.starts_with('.'), "{name} was left");
    }
    assert_eq!(listed(&cache.join("locks")), Vec::<PathBuf>::new());
}

pub const ROLE: &str = "CACHE_TEST_ROLE";
pub const CACHE: &str = "CACHE_TEST_CACHE";
pub const DATA: &str = "CACHE_TEST_DATA";
pub const OUT: &str = "CACHE_TEST_OUT";

/// This test program once more, in `role`: it writes what it has found to `out`.
pub fn spawn(role: &str, cache: &Path, data: &Path, out: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--nocapture"])
        .env(ROLE, role)
        .env(CACHE, cache)
        .env(DATA, data)
        .env(OUT, out)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// A fixed sequence of numbers that look random.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end.max(1)
    }
}
