//! How long a training stands still for its checkpoints when they are written beside it, and when it waits for them.
//! `make bench-ckpt` runs it, with torch.save's time below where the peer's script can run.
//!
//! `checkpoint_stall DIR` trains two real models of the pipeline in f32 with AdamW on this machine's CPUs: the CNN alone
//! (about 300 MB of state) and stage 2's whole model (about 1.1 GB). The gradients are made up and half a second of every
//! update is a sleep, as if another device computed: what is measured is the copy, the write, and who waits for whom.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use data::loader::Dataset;
use event::{EventKind, Phase};
use nn::{Backbone, BackboneConfig, SliceHeads, SliceModel};
use recipe::{Checkpointing, Source, Training};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};
use train::{
    Backend, CheckpointPlace, Execution, ExecutionConfig, Losses, ProcessGroup, Rendezvous, Report,
    Resume, Setup, StopFlag, Store, Task,
};

const EVERY: u64 = 8;
const CHECKPOINTS: u64 = 6;
/// Each way is measured so often, in turn: what others do on the machine meets both.
const ROUNDS: usize = 3;
const ELSEWHERE: Duration = Duration::from_millis(500);

fn main() -> Result<(), Box<dyn Error>> {
    let Some(folder) = std::env::args().nth(1) else {
        return Err(
            "usage: checkpoint_stall DIR, a folder on the disk that checkpoints go to".into(),
        );
    };
    println!(
        "state                MB   waits s   beside s   memcpy s   first stall s     later stalls s   share"
    );
    for (name, whole) in [("resnest50d", false), ("stage 2's model", true)] {
        let store = VarStore::new(Device::Cpu);
        let config = BackboneConfig::of("resnest50d");
        match whole {
            false => drop(Backbone::new(&store.root(), &config)?),
            true => drop(SliceModel::new(
                &store.root(),
                &config,
                None,
                SliceHeads::Fracture,
            )?),
        }
        let (mut waits, mut first, mut later) = (Vec::new(), Vec::new(), Vec::new());
        let mut copies = Vec::new();
        for _ in 0..ROUNDS {
            let waiting = run(&store, Path::new(&folder), false)?;
            waits.extend(waiting.into_iter().map(|write| write.stalled));
            copies.push(memcpy(&store));
            let mut beside = run(&store, Path::new(&folder), true)?;
            // The last one of a training is waited for in both ways.
            beside.pop();
            let mut beside = beside.into_iter();
            first.extend(beside.next());
            later.extend(beside);
        }
        let bytes = first.first().ok_or("no checkpoint")?.bytes;
        let stalls: Vec<f64> = later.iter().map(|write| write.stalled).collect();
        let least = stalls.iter().copied().fold(f64::INFINITY, f64::min);
        let most = stalls.iter().copied().fold(0.0, f64::max);
        let waits = median(waits);
        let stall = median(stalls);
        println!(
            "{name:<16} {:>6.0} {waits:>9.2} {:>10.2} {:>10.3} {:>15.3}   {stall:.3} ({least:.3} to {most:.3})   {:.1} %",
            bytes as f64 / 1e6,
            median(later.iter().map(|write| write.seconds).collect()),
            median(copies),
            median(first.iter().map(|write| write.stalled).collect()),
            100.0 * stall / waits,
        );
    }
    println!(
        "waits: a write that the training waits for; beside: from the copy until it is durable, when it does not; memcpy: a \
         plain copy of as many bytes as parameters and moments by one thread, into pages that were written to before; stall: \
         how long the training stands still (the first copy goes into memory that was made ready beside the first updates); \
         share: of `waits`. All are medians over {ROUNDS} rounds in turn"
    );
    Ok(())
}

/// Seconds of a plain copy of as many bytes as the parameters and their two moments have, tensor by tensor.
fn memcpy(store: &VarStore) -> f64 {
    let tensors = store.trainable_variables();
    let of = |byte: u8| {
        let bytes = tensors.iter().map(|tensor| 3 * 4 * tensor.numel());
        bytes.map(|bytes| vec![byte; bytes]).collect::<Vec<_>>()
    };
    let (sources, mut targets) = (of(1), of(2));
    let began = Instant::now();
    for (source, target) in sources.iter().zip(&mut targets) {
        target.copy_from_slice(std::hint::black_box(source));
    }
    let seconds = began.elapsed().as_secs_f64();
    std::hint::black_box(targets);
    seconds
}

/// One checkpoint as it was reported: bytes, and seconds.
struct Write {
    bytes: u64,
    seconds: f64,
    stalled: f64,
}

fn run(store: &VarStore, folder: &Path, asynchronous: bool) -> Result<Vec<Write>, Box<dyn Error>> {
    let folder = folder.join(format!("checkpoint-stall-{}", std::process::id()));
    // The ledger goes there, too, before any checkpoint does.
    std::fs::create_dir_all(&folder)?;
    let (_rendezvous, group) = alone()?;
    let checkpoints = CheckpointPlace {
        root: folder.clone(),
        job: "bench".into(),
        hash: "bench".into(),
        patience: Duration::from_secs(60),
        settings: Checkpointing {
            every: EVERY,
            asynchronous,
            ..Checkpointing::default()
        },
    };
    let writes = Writes::default();
    let task = MadeUp {
        parameters: store.trainable_variables(),
        data: Arc::new(Empty),
    };
    let trained = train::train(
        &task,
        &Setup {
            store,
            group: &group,
            training: &training()?,
            execution: &Execution::new(ExecutionConfig::plain(Device::Cpu)),
            micro_batch: 1,
            accumulation: 1,
            seed: 1,
            workers: 1,
            prefetch: 1 << 20,
            checkpoints: &checkpoints,
            ledger: &folder.join("ledger.jsonl"),
            replica_check: 0,
            histograms: false,
            resume: &Resume::Never,
            report: &writes,
            stop: &StopFlag::new(),
        },
    );
    let removed = std::fs::remove_dir_all(&folder);
    trained?;
    removed?;
    Ok(writes
        .0
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner))
}

fn training() -> Result<Training, Box<dyn Error>> {
    let epochs = EVERY * CHECKPOINTS;
    let source = Source {
        name: "bench".into(),
        text: format!(
            "data: {{root: none, folds: 2}}\nstage2: {{training: {{epochs: {epochs}, evaluate_every: {epochs}}}}}"
        ),
    };
    let recipe = recipe::parse(&source, &[])?;
    Ok(recipe.stage2.ok_or("no stage 2")?.training)
}

fn alone() -> Result<(Store, ProcessGroup), Box<dyn Error>> {
    let timeout = Duration::from_secs(60);
    let store = Store::connect(&Rendezvous::alone(timeout))?;
    let group = ProcessGroup::new(&store, Backend::Gloo, "bench", timeout)?;
    Ok((store, group))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle.wrapping_sub(1)), values.get(middle)) {
        (Some(below), Some(above)) if values.len().is_multiple_of(2) => (below + above) / 2.0,
        (_, Some(middle)) => *middle,
        _ => f64::NAN,
    }
}

#[derive(Default)]
struct Writes(Mutex<Vec<Write>>);

impl Report for Writes {
    fn report(&self, kind: EventKind) {
        if let EventKind::CheckpointWritten {
            bytes,
            seconds,
            stalled_seconds,
            ..
        } = kind
        {
            let mut writes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            writes.push(Write {
                bytes,
                seconds,
                stalled: stalled_seconds,
            });
        }
    }

    fn at(&self, _: Phase, _: u64, _: u64) {}
}

/// One sample that takes no loading.
struct Empty;

impl Dataset for Empty {
    type Sample = ();

    fn len(&self) -> usize {
        1
    }

    fn bytes(&self, _: usize) -> usize {
        1
    }

    fn id(&self, _: usize) -> String {
        "nothing".into()
    }

    fn load(&self, _: usize, _: u64) -> data::Result<()> {
        Ok(())
    }
}

/// A gradient for every parameter.
struct MadeUp {
    parameters: Vec<Tensor>,
    data: Arc<Empty>,
}

impl Task for MadeUp {
    type Data = Empty;

    fn data(&self) -> &Arc<Empty> {
        &self.data
    }

    fn loss(&self, _: Vec<()>) -> train::Result<Losses> {
        std::thread::sleep(ELSEWHERE);
        let mut total = Tensor::f_zeros([1], (Kind::Float, Device::Cpu))?;
        for parameter in &self.parameters {
            total = total.f_add(&parameter.f_mean(Kind::Float)?)?;
        }
        Ok(Losses {
            total: total.f_sum(Kind::Float)?,
            parts: Vec::new(),
            images: 1,
        })
    }

    fn evaluate(&self, _: u64) -> train::Result<BTreeMap<String, f64>> {
        Ok(BTreeMap::new())
    }
}
