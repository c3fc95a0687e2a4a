//! Damaged NIfTI files: truncated and with bytes changed, 2,000 times for each kind of file. Nothing panics, hangs or
//! allocates by a lie, and no change inside a compressed file is read as good data.
//!
//! The seed is another one in each run and stands in every message; SPINECTL_FUZZ_SEED repeats a run.

mod allocation;

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::time::{Duration, Instant};

use data::Geometry;
use data::nifti::write::{Layout, write_nifti_i16};
use data::nifti::{LabelVolume, read_labels, read_values};
use data::volume::{Volume, read_study};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use allocation::largest_request;

const ROUNDS: usize = 2_000;
const LONGEST: Duration = Duration::from_secs(5);
const MOST_BYTES: usize = 1 << 30;

/// 5 slices of 4 x 3.
fn geometry() -> Geometry {
    Geometry {
        origin: [-10.0, -20.0, 300.0],
        row: [1.0, 0.0, 0.0],
        col: [0.0, 1.0, 0.0],
        spacing: [0.5, 0.5],
        step: [0.0, 0.0, -1.0],
        rows: 4,
        cols: 3,
        slices: 5,
    }
}

/// The DT_ codes of nifti1.h, and the bytes of a voxel.
const TYPES: [(i16, usize); 10] = [
    (2, 1),
    (256, 1),
    (512, 2),
    (4, 2),
    (768, 4),
    (8, 4),
    (1280, 8),
    (1024, 8),
    (16, 4),
    (64, 8),
];

/// The little-endian bytes of a voxel.
fn voxel(datatype: i16, value: u8) -> Vec<u8> {
    match datatype {
        16 => f32::from(value).to_le_bytes().to_vec(),
        64 => f64::from(value).to_le_bytes().to_vec(),
        _ => {
            let size = TYPES.iter().find(|kind| kind.0 == datatype).unwrap().1;
            u64::from(value).to_le_bytes()[..size].to_vec()
        }
    }
}

/// A file of the labels 0..60 in one of the types.
fn file(path: &Path, datatype: i16, big_endian: bool, compressed: bool) -> Vec<u8> {
    let plain = path.with_file_name("made.nii");
    write_nifti_i16(&plain, &geometry(), &[0; 60], Layout::AsStored).unwrap();
    let mut bytes = fs::read(&plain).unwrap()[..352].to_vec();
    bytes[70..72].copy_from_slice(&datatype.to_le_bytes());
    if big_endian {
        let fields = [
            (0..4, 4),
            (40..56, 2),
            (70..74, 2),
            (76..120, 4),
            (252..256, 2),
            (256..328, 4),
        ];
        for (range, size) in fields {
            bytes[range]
                .chunks_exact_mut(size)
                .for_each(<[u8]>::reverse);
        }
    }
    for value in 0..60 {
        let mut voxel = voxel(datatype, value);
        if big_endian {
            voxel.reverse();
        }
        bytes.extend(voxel);
    }
    if !compressed {
        return bytes;
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, &bytes).unwrap();
    encoder.finish().unwrap()
}

/// Cuts the file, or changes up to three bytes of it, in the header as often as anywhere.
fn damage(bytes: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut damaged = bytes.to_vec();
    if random.random_bool(0.25) {
        damaged.truncate(random.random_range(0..bytes.len()));
        return damaged;
    }
    for _ in 0..random.random_range(1..=3) {
        let end = match random.random_bool(0.5) {
            true => bytes.len().min(352),
            false => bytes.len(),
        };
        let at = random.random_range(0..end);
        damaged[at] = match random.random_bool(0.5) {
            true => damaged[at] ^ 1 << random.random_range(0..8),
            false => random.random(),
        };
    }
    damaged
}

/// What every reader makes of the file; `None` where it refuses.
fn read(path: &Path) -> (Option<Vec<f64>>, Option<LabelVolume>, Option<Volume>) {
    (
        read_values(path).ok().map(|(_, values)| values),
        read_labels(path, &geometry()).ok(),
        read_study(path).ok(),
    )
}

#[test]
fn damaged_files_are_refused_or_read_and_nothing_worse() {
    let seed = std::env::var("SPINECTL_FUZZ_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| RandomState::new().build_hasher().finish());
    eprintln!("SPINECTL_FUZZ_SEED={seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    for compressed in [false, true] {
        let path = dir
            .path()
            .join(if compressed { "s.nii.gz" } else { "s.nii" });
        for big_endian in [false, true] {
            let kinds: Vec<_> = TYPES
                .map(|(datatype, _)| file(&path, datatype, big_endian, compressed))
                .into();
            let whole: Vec<_> = kinds
                .iter()
                .map(|bytes| {
                    fs::write(&path, bytes).unwrap();
                    read(&path)
                })
                .collect();
            for (values, labels, study) in &whole {
                let expected: Vec<u8> = (0..60).collect();
                assert_eq!(labels.as_ref().unwrap().labels, expected);
                assert!(values.is_some() && study.is_some());
            }
            for round in 0..ROUNDS {
                let kind = round % kinds.len();
                let bytes = damage(&kinds[kind], &mut random);
                fs::write(&path, &bytes).unwrap();
                let what = format!(
                    "SPINECTL_FUZZ_SEED={seed}, {path:?}, type {:?}, big endian {big_endian}, round {round}",
                    TYPES[kind]
                );
                let began = Instant::now();
                let found = std::panic::catch_unwind(|| read(&path));
                let took = began.elapsed();
                let largest = largest_request();
                let Ok((values, labels, study)) = found else {
                    panic!("{what}: a panic");
                };
                assert!(took < LONGEST, "{what}: {took:?}");
                assert!(largest < MOST_BYTES, "{what}: {largest} bytes at once");
                if compressed {
                    let (good_values, good_labels, good_study) = &whole[kind];
                    assert!(values.is_none() || values == *good_values, "{what}: values");
                    assert!(labels.is_none() || labels == *good_labels, "{what}: labels");
                    assert!(study.is_none() || study == *good_study, "{what}: study");
                }
            }
        }
    }
}
