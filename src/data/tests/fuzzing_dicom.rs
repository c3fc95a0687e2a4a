//! Damaged DICOM files of every kind: no panic, no hang, no allocation over a gigabyte.
//!
//! The files are those of the fixtures and what tests/python/dump_dicom.py makes; the damage is drawn anew each time, and a
//! failure prints the seed that brings it back (SPINECTL_FUZZ_SEED).

mod allocation;
mod interpreter;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use data::DataError;
use data::dicom::{read_frames, read_headers, read_stored};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use allocation::{largest_request, most_held};
use interpreter::{python, workspace};

const GIGABYTE: usize = 1 << 30;
/// Of each transfer syntax.
const DAMAGED_FILES: usize = 2000;
const LONGEST: Duration = Duration::from_secs(5);

/// The transfer syntax of a file, by the first UID of the kind in it.
fn transfer_syntax(bytes: &[u8]) -> String {
    let element = [0x02, 0x00, 0x10, 0x00, b'U', b'I'];
    let at = bytes
        .windows(6)
        .position(|window| window == element)
        .unwrap();
    let length = usize::from(u16::from_le_bytes([bytes[at + 6], bytes[at + 7]]));
    String::from_utf8_lossy(&bytes[at + 8..at + 8 + length])
        .trim_end_matches('\0')
        .to_owned()
}

/// The files to damage, by transfer syntax: each syntax has its share, however many files it has.
fn kinds(folder: &Path) -> Vec<Vec<(String, Vec<u8>)>> {
    let result = Command::new(python())
        .arg(workspace().join("tests/python/dump_dicom.py"))
        .arg("--made-only")
        .arg(folder)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&result.stderr);
    assert!(result.status.success(), "{stderr}\nrun `make setup-tests`");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut paths: Vec<PathBuf> = [folder.join("made"), fixtures]
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "dcm"))
        .collect();
    paths.sort();
    let mut kinds = std::collections::BTreeMap::<String, Vec<(String, Vec<u8>)>>::new();
    for path in paths {
        let bytes = fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        kinds
            .entry(transfer_syntax(&bytes))
            .or_default()
            .push((name, bytes));
    }
    assert!(kinds.len() >= 17, "{:?}", kinds.keys());
    kinds.into_values().collect()
}

/// Cuts the file, or changes some of its bytes: anywhere, or in its last part, where the codestream's own header is.
fn damage(bytes: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut damaged = bytes.to_vec();
    if random.random_range(0..4) == 0 {
        damaged.truncate(random.random_range(0..bytes.len()));
        return damaged;
    }
    let pixels = bytes
        .windows(4)
        .position(|window| window == [0xE0, 0x7F, 0x10, 0x00])
        .unwrap_or(0);
    let from = match random.random_range(0..3) {
        0 => 0,
        1 => 128,
        _ => pixels,
    };
    let to = match random.random_range(0..2) {
        0 => bytes.len(),
        _ => bytes.len().min(from + 256),
    };
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(from..to);
        damaged[at] = match random.random_range(0..3) {
            0 => damaged[at] ^ 1 << random.random_range(0..8),
            1 => [0x00, 0x01, 0x7F, 0x80, 0xFF][random.random_range(0..5)],
            _ => random.random(),
        };
    }
    damaged
}

fn most_resident_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kilobytes: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes << 10
}

fn seed_of_the_moment() -> u64 {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_nanos() as u64
}

/// `bytes` with the value of a short element (VR of two bytes) replaced.
fn with_number(bytes: &[u8], tag: [u8; 4], value: u16) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    let header = [&tag[..], b"US\x02\0"].concat();
    let at = bytes
        .windows(8)
        .position(|window| window == header)
        .unwrap();
    changed[at + 8..at + 10].copy_from_slice(&value.to_le_bytes());
    changed
}

/// Small files of which every header agrees that the image is as large as any that is read.
fn giants(kinds: &[Vec<(String, Vec<u8>)>]) -> Vec<(String, Vec<u8>)> {
    const SIDE: u16 = 4096;
    let mut giants = Vec::new();
    for (name, bytes) in kinds.iter().flatten() {
        if !name.starts_with("compressed") {
            continue;
        }
        let mut giant = with_number(bytes, [0x28, 0, 0x10, 0], SIDE);
        giant = with_number(&giant, [0x28, 0, 0x11, 0], SIDE);
        let find = |wanted: &[u8]| giant.windows(wanted.len()).position(|w| w == wanted);
        let side = SIDE.to_be_bytes();
        if let Some(at) = find(&[0xFF, 0x4F, 0xFF, 0x51]) {
            for word in [8, 12, 24, 28] {
                giant[at + word + 2..at + word + 4].copy_from_slice(&side);
            }
        } else if let Some(at) = [0xC0, 0xC1, 0xC3, 0xF7]
            .iter()
            .find_map(|&marker| find(&[0xFF, marker, 0, 11]))
        {
            giant[at + 5..at + 7].copy_from_slice(&side);
            giant[at + 7..at + 9].copy_from_slice(&side);
        }
        giants.push((name.clone(), giant));
    }
    // A few hundred kilobytes that inflate to 300 MiB.
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/deflated.dcm");
    let deflated = fs::read(fixture).unwrap();
    let uid = b"1.2.840.10008.1.2.1.99";
    let at = deflated.windows(uid.len()).position(|w| w == uid).unwrap();
    let mut bomb = deflated[..at + uid.len()].to_vec();
    let mut encoder = flate2::write::DeflateEncoder::new(&mut bomb, flate2::Compression::fast());
    for _ in 0..300 {
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
    }
    encoder.finish().unwrap();
    giants.push(("bomb".into(), bomb));
    giants
}

#[test]
fn damaged_files_neither_panic_nor_hang_nor_take_the_memory() {
    let seed = std::env::var("SPINECTL_FUZZ_SEED")
        .ok()
        .map_or_else(seed_of_the_moment, |seed| seed.parse().unwrap());
    println!("SPINECTL_FUZZ_SEED={seed}");
    let folder = tempfile::tempdir().unwrap();
    let kinds = kinds(folder.path());
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let path = folder.path().join("1.dcm");
    // Panics inside dicom-rs's decoders are caught; their messages would bury a failure of this test.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));

    let (mut read, mut refused) = (0, 0);
    let mut slowest = (Duration::ZERO, String::new());
    let mut fault = None;
    let giants = giants(&kinds);
    assert!(giants.len() > 30);
    for round in 0..DAMAGED_FILES * kinds.len() + giants.len() {
        let (name, damaged) = match giants.get(round) {
            Some((name, giant)) => (name, giant.clone()),
            None => {
                let files = &kinds[round % kinds.len()];
                let (name, bytes) = &files[random.random_range(0..files.len())];
                (name, damage(bytes, &mut random))
            }
        };
        fs::write(&path, &damaged).unwrap();
        let started = Instant::now();
        let outcome = std::panic::catch_unwind(|| {
            let stored = read_stored(&path).map(|_| ());
            let slices = read_headers(&path).and_then(|headers| {
                let frames: Vec<usize> = headers.iter().map(|header| header.frame).collect();
                read_frames(&path, &frames).map(|_| ())
            });
            [stored, slices]
        });
        let took = started.elapsed();
        if took > slowest.0 {
            slowest = (took, name.clone());
        }
        match outcome {
            Err(_) => fault = Some(format!("{name}, round {round}: a panic")),
            Ok(results) => {
                for result in results {
                    match result {
                        Ok(()) => read += 1,
                        Err(error @ DataError::Dicom { .. }) => {
                            refused += 1;
                            assert!(error.to_string().contains("1.dcm"), "{error}");
                        }
                        Err(other) => fault = Some(format!("{name}, round {round}: {other}")),
                    }
                }
            }
        }
        if took > LONGEST {
            fault = Some(format!("{name}, round {round}: took {took:?}"));
        }
        for (what, bytes) in [
            ("a request", largest_request()),
            ("at once", most_held()),
            ("resident, C code included", most_resident_bytes()),
        ] {
            if bytes > GIGABYTE {
                fault = Some(format!("{name}, round {round}: {bytes} bytes {what}"));
            }
        }
        if fault.is_some() {
            break;
        }
    }
    std::panic::set_hook(hook);
    println!(
        "{read} read, {refused} refused; the slowest {:?} ({}); largest request {} MiB, most held {} MiB, resident {} MiB",
        slowest.0,
        slowest.1,
        largest_request() >> 20,
        most_held() >> 20,
        most_resident_bytes() >> 20,
    );
    assert!(
        fault.is_none(),
        "SPINECTL_FUZZ_SEED={seed}: {}",
        fault.unwrap_or_default()
    );
    // Damage to names and pixels leaves a readable file, damage to lengths does not.
    assert!(
        read > 400 && refused > 400,
        "{read} read, {refused} refused"
    );
}
