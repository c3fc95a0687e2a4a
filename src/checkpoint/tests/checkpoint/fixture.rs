//! A small checkpoint that uses every element type, and hands to look at and to spoil a folder.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use checkpoint::{Checkpoint, Dtype, Meta, Share, TensorData, Written, divide, list, write_part};

/// The files of a checkpoint that one process wrote.
pub const FILES: [&str; 4] = [
    "manifest.json",
    "model.safetensors",
    "optimizer.safetensors",
    "trainer.json",
];

pub const PLAN: &str = "plan-1f0c";
pub const JOB: &str = "stage2-resnest14d-fold0-seed0";

/// A tensor whose bytes follow from its name and `seed`.
pub fn tensor(name: &str, dtype: Dtype, shape: &[usize], seed: u64) -> TensorData {
    let length = shape.iter().product::<usize>() * dtype.size();
    let salt = name.bytes().map(u64::from).sum::<u64>() + seed;
    let bytes = (0..length as u64).map(|i| match dtype {
        Dtype::Bool => ((i + salt) % 2) as u8,
        _ => ((i * 31 + salt) % 253) as u8,
    });
    TensorData {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
        bytes: bytes.collect(),
    }
}

/// The checkpoint of `step`; `floats` sets the size of its largest tensors. Tensors stand in the
/// order of their names, as they are read back.
pub fn checkpoint(step: u64, floats: usize) -> Checkpoint {
    Checkpoint {
        step,
        model: vec![
            tensor("backbone.bn.num_batches_tracked", Dtype::I64, &[], step),
            tensor("backbone.conv1.weight", Dtype::F32, &[floats], step),
            tensor("half.weight", Dtype::F16, &[3, 5], step),
            tensor("head.weight", Dtype::Bf16, &[7, 4], step),
            tensor("moment", Dtype::F64, &[2, 2], step),
        ],
        optimizer: vec![
            tensor("empty", Dtype::F32, &[0, 4], step),
            tensor("exp_avg.backbone.conv1.weight", Dtype::F32, &[floats], step),
            tensor("frozen", Dtype::Bool, &[3], step),
            tensor("rng", Dtype::U8, &[16], step),
            tensor("step", Dtype::I32, &[2], step),
        ],
        trainer: serde_json::json!({
            // 2^53 + 1, and a double that a fast, inexact parser of JSON reads one bit off.
            "sampler": {"epoch": 1, "position": 9_007_199_254_740_993_u64},
            "best": [0.1 + 0.2, 1.0715660391465018e-75, f64::MIN_POSITIVE],
        }),
        meta: Meta {
            plan_hash: PLAN.to_owned(),
            job: JOB.to_owned(),
            world_size: 2,
        },
    }
}

/// The files of a checkpoint in so many parts, sorted.
pub fn files(parts: usize) -> Vec<String> {
    if parts == 1 {
        return FILES.map(str::to_owned).to_vec();
    }
    let of = |tensors: &'static str| {
        (1..=parts).map(move |part| format!("{tensors}-{part:05}-of-{parts:05}.safetensors"))
    };
    let mut files = vec!["manifest.json".to_owned(), "trainer.json".to_owned()];
    files.extend(of("model").chain(of("optimizer")));
    files.sort();
    files
}

/// Which part a process writes; patient enough for a loaded machine.
pub fn share(part: usize, parts: usize, token: u64) -> Share {
    Share {
        part,
        parts,
        token,
        patience: Duration::from_secs(60),
    }
}

/// What one part of it has to write.
pub fn part_of(mut checkpoint: Checkpoint, part: usize, parts: usize) -> Checkpoint {
    let all = [&checkpoint.model, &checkpoint.optimizer];
    let bytes: Vec<usize> = all.into_iter().flatten().map(|t| t.bytes.len()).collect();
    let mut of = divide(&bytes, parts).into_iter();
    checkpoint.model.retain(|_| of.next() == Some(part));
    checkpoint.optimizer.retain(|_| of.next() == Some(part));
    checkpoint
}

/// Writes it in so many parts, each by a thread.
pub fn write_in_parts(root: &Path, checkpoint: &Checkpoint, parts: usize, token: u64) -> Written {
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..parts)
            .map(|part| {
                let own = part_of(checkpoint.clone(), part, parts);
                scope.spawn(move || write_part(root, &own, &share(part, parts, token)).unwrap())
            })
            .collect();
        let written = writers
            .into_iter()
            .filter_map(|writer| writer.join().unwrap());
        let written: Vec<Written> = written.collect();
        let [written]: [Written; 1] = written.try_into().expect("one of them completes it");
        written
    })
}

/// Names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The steps that `list` finds.
pub fn steps(root: &Path) -> Vec<u64> {
    list(root).unwrap().iter().map(|entry| entry.step).collect()
}

/// Changes one bit of the byte at `offset`.
pub fn flip_bit(path: &Path, offset: u64) {
    let mut file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(&[byte[0] ^ 0x04]).unwrap();
}
