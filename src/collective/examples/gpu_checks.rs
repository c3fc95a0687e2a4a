//! What only a GPU can show of this crate: NCCL's collectives and the Reducer over them, autocast, the fused kernels, batch
//! normalisation over ranks, recomputation, pinned memory. Each is compared with the same on the CPU or without the group.
//!
//!     cargo run --release --workspace --example gpu_checks
//!
//! One line a check, `ok` or `FAILED`, with the largest difference; exits with 1 after a failure. Takes GPU 0, one rank.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use collective::autograd::{recompute, sync_batch_norm};
use collective::kernels::{self, AdamW};
use collective::{
    Backend, CollectiveError, ProcessGroup, ReduceOp, Reducer, ReducerOptions, Rendezvous, Store,
    autocast, backward, cuda,
};
use tch::{Device, Kind, Tensor};

const GPU: Device = Device::Cuda(0);
/// The largest difference found, and that which is allowed.
type Outcome = Result<(f64, f64), CollectiveError>;
type Check = (&'static str, fn() -> Outcome);

fn main() -> ExitCode {
    let checks: [Check; 9] = [
        ("pinned memory reaches the GPU", pinned),
        (
            "NCCL all-reduce, broadcast, all-gather, barrier",
            collectives,
        ),
        (
            "gradients of the Reducer over NCCL, against plain ones",
            reducer,
        ),
        ("convolution in fp32 against the CPU's", || {
            convolution(None)
        }),
        ("convolution in bf16 against fp32", || {
            convolution(Some(Kind::BFloat16))
        }),
        ("convolution in fp16 against fp32", || {
            convolution(Some(Kind::Half))
        }),
        ("fused AdamW, 10 updates, against the CPU's", adamw),
        (
            "batch normalisation over ranks, against the plain one",
            batch_norm,
        ),
        (
            "gradients of a recomputed block, against plain ones",
            recomputed,
        ),
    ];
    if let Err(error) = cuda::set_device(0) {
        eprintln!("no GPU to check: {error}");
        return ExitCode::FAILURE;
    }
    let mut good = true;
    for (name, check) in checks {
        let began = Instant::now();
        let (state, detail) = match check() {
            Ok((found, limit)) if found <= limit => ("ok", format!("{found:.2e} of {limit:.0e}")),
            Ok((found, limit)) => ("FAILED", format!("{found:.2e}, over {limit:.0e}")),
            Err(error) => ("FAILED", error.to_string()),
        };
        good &= state == "ok";
        println!(
            "{state:6} {name}: {detail} ({:.2} s)",
            began.elapsed().as_secs_f64()
        );
    }
    if let Ok(bytes) = cuda::peak_memory() {
        println!(
            "at most {:.1} MB of the GPU held by tensors",
            bytes as f64 / 1e6
        );
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Largest difference over largest value.
fn difference(ours: &Tensor, theirs: &Tensor) -> f64 {
    let host = |tensor: &Tensor| tensor.detach().to_device(Device::Cpu).to_kind(Kind::Double);
    let (ours, theirs) = (host(ours), host(theirs));
    let largest = |tensor: Tensor| tensor.abs().max().double_value(&[]);
    let found = largest(&ours - &theirs) / largest(theirs);
    // A comparison with NaN is false, which would pass for good.
    if found.is_nan() { f64::INFINITY } else { found }
}

fn farthest(ours: &[Tensor], theirs: &[Tensor]) -> f64 {
    let pairs = ours.iter().zip(theirs);
    pairs
        .map(|(ours, theirs)| difference(ours, theirs))
        .fold(0.0, f64::max)
}

fn on_gpu(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(|tensor| tensor.to_device(GPU)).collect()
}

fn trained(tensors: &[Tensor]) -> Vec<Tensor> {
    let copies = tensors.iter().map(|tensor| tensor.detach().copy());
    copies
        .map(|tensor| tensor.set_requires_grad(true))
        .collect()
}

fn random(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Device::Cpu))
}

/// One rank's group, as a training makes it.
fn group(name: &str) -> Result<(Store, ProcessGroup), CollectiveError> {
    let timeout = Duration::from_secs(30);
    let store = Store::connect(&Rendezvous::alone(timeout))?;
    let group = ProcessGroup::new(&store, Backend::Nccl, name, timeout)?;
    Ok((store, group))
}

fn pinned() -> Outcome {
    let bytes: Vec<u8> = (0..1_000_003_u32).map(|i| (i % 251) as u8).collect();
    let there = cuda::pinned(&bytes)?.to_device_(GPU, Kind::Uint8, true, false);
    Ok((difference(&there, &Tensor::from_slice(&bytes)), 0.0))
}

fn collectives() -> Outcome {
    let (_store, group) = group("collectives")?;
    let mut found = 0.0_f64;
    for kind in [Kind::Float, Kind::Half, Kind::BFloat16, Kind::Int64] {
        let tensor = (random(&[1 << 20]) * 100.0).to_kind(kind).to_device(GPU);
        let before = tensor.copy();
        group.all_reduce(&tensor, ReduceOp::Sum)?;
        group.broadcast(&tensor, 0)?;
        let all = group.all_gather(&tensor)?;
        group.barrier()?;
        found = all
            .iter()
            .chain([&tensor])
            .map(|t| difference(t, &before))
            .fold(found, f64::max);
    }
    Ok((found, 0.0))
}

/// image (B,3,H,W) through a convolution and a linear layer to a scalar.
fn loss(parameters: &[Tensor], image: &Tensor) -> Tensor {
    let features = image
        .conv2d(&parameters[0], Some(&parameters[1]), 1, 1, 1, 1)
        .relu();
    let pooled = features.mean_dim([2i64, 3].as_slice(), false, Kind::Float);
    pooled
        .linear(&parameters[2], Some(&parameters[3]))
        .square()
        .mean(Kind::Float)
}

fn small_model() -> Vec<Tensor> {
    let shapes: [&[i64]; 4] = [&[32, 3, 3, 3], &[32], &[5, 32], &[5]];
    on_gpu(&shapes.map(|shape| random(shape) * 0.3))
}

fn reducer() -> Outcome {
    let (_store, group) = group("reducer")?;
    let initial = small_model();
    let (ours, plain) = (trained(&initial), trained(&initial));
    let reducer = Reducer::new(&ours, &group, ReducerOptions::default())?;
    let mut found = 0.0_f64;
    for _ in 0..3 {
        let image = random(&[16, 3, 64, 64]).to_device(GPU);
        kernels::zero_grad(&ours)?;
        kernels::zero_grad(&plain)?;
        reducer.prepare_for_forward()?;
        let loss_of_ours = loss(&ours, &image);
        reducer.prepare_for_backward(&[])?;
        reducer.backward(&loss_of_ours)?;
        reducer.check_finished()?;
        backward(&loss(&plain, &image))?;
        found = found.max(farthest(&kernels::grads(&ours)?, &kernels::grads(&plain)?));
    }
    drop(reducer);
    // cuDNN adds up a convolution's gradient in an order of its own each time.
    Ok((found, 1e-4))
}

/// With a type, against fp32 on the GPU; without, fp32 (TF32 in convolutions, libtorch's default) against the CPU.
fn convolution(kind: Option<Kind>) -> Outcome {
    let (image, kernel) = (random(&[8, 64, 56, 56]), random(&[128, 64, 3, 3]));
    let (there, kernel_there) = (image.to_device(GPU), kernel.to_device(GPU));
    let run = |image: &Tensor, kernel: &Tensor| image.conv2d(kernel, None::<Tensor>, 1, 1, 1, 1);
    let Some(kind) = kind else {
        return Ok((
            difference(&run(&there, &kernel_there), &run(&image, &kernel)),
            2e-3,
        ));
    };
    let low = autocast::run(GPU, Some(kind), || {
        Ok::<Tensor, CollectiveError>(run(&there, &kernel_there))
    })?;
    if low.kind() != kind {
        return Ok((f64::INFINITY, 0.0));
    }
    let channels_last = autocast::run(GPU, Some(kind), || {
        let image = kernels::to_channels_last(&there)?;
        let kernel = kernels::to_channels_last(&kernel_there)?;
        Ok::<Tensor, CollectiveError>(run(&image, &kernel))
    })?;
    let full = run(&there, &kernel_there);
    Ok((
        difference(&low, &full).max(difference(&channels_last, &full)),
        1e-2,
    ))
}

fn adamw() -> Outcome {
    let settings = AdamW {
        lr: 1e-2,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.1,
    };
    let shapes: [&[i64]; 3] = [&[64, 32, 3, 3], &[64], &[1]];
    let here: Vec<Tensor> = shapes.map(random).into();
    let there = on_gpu(&here);
    let state = |of: &[Tensor]| -> [Vec<Tensor>; 3] {
        let zeros = || of.iter().map(Tensor::zeros_like).collect();
        let steps = of
            .iter()
            .map(|t| Tensor::zeros([], (Kind::Float, t.device())))
            .collect();
        [zeros(), zeros(), steps]
    };
    let (of_here, of_there) = (state(&here), state(&there));
    for _ in 0..10 {
        let gradients: Vec<Tensor> = shapes.map(random).into();
        let [m, v, steps] = &of_here;
        kernels::fused_adamw(&here, &gradients, m, v, steps, &settings)?;
        let [m, v, steps] = &of_there;
        kernels::fused_adamw(&there, &on_gpu(&gradients), m, v, steps, &settings)?;
    }
    Ok((farthest(&there, &here), 1e-5))
}

fn batch_norm() -> Outcome {
    const EPS: f64 = 1e-5;
    const MOMENTUM: f64 = 0.3;
    let (_store, group) = group("batch norm")?;
    let mut found = 0.0_f64;
    for channels_last in [false, true] {
        let x = random(&[8, 16, 20, 20]).to_device(GPU);
        let x = if channels_last {
            kernels::to_channels_last(&x)?
        } else {
            x
        };
        let parameters = on_gpu(&[random(&[16]), random(&[16])]);
        let (ours, plain) = (trained(&parameters), trained(&parameters));
        let statistics = || on_gpu(&[random(&[16]) * 0.0, random(&[16]) * 0.0 + 1.0]);
        let (of_ours, of_plain) = (statistics(), statistics());
        let running = Some((&of_ours[0], &of_ours[1]));
        let over_ranks = sync_batch_norm(&group, &x, &ours[0], &ours[1], running, MOMENTUM, EPS)?;
        let alone = x.batch_norm(
            Some(&plain[0]),
            Some(&plain[1]),
            Some(&of_plain[0]),
            Some(&of_plain[1]),
            true,
            MOMENTUM,
            EPS,
            true,
        );
        let weights = random(&[8, 16, 20, 20]).to_device(GPU);
        backward(&(&over_ranks * &weights).mean(Kind::Float))?;
        backward(&(&alone * &weights).mean(Kind::Float))?;
        found = found
            .max(difference(&over_ranks, &alone))
            .max(farthest(&of_ours, &of_plain))
            .max(farthest(&kernels::grads(&ours)?, &kernels::grads(&plain)?));
    }
    Ok((found, 1e-4))
}

/// libtorch runs a GPU's backward pass on a thread of its own, while the block belongs to this one.
fn recomputed() -> Outcome {
    let initial = small_model();
    let (ours, plain) = (trained(&initial), trained(&initial));
    let image = random(&[16, 3, 64, 64]).to_device(GPU);
    // The input of a recomputed block has to want a gradient for its parameters to get theirs.
    let shift = trained(&on_gpu(&[random(&[1])]));
    let kept: Vec<Tensor> = ours.iter().map(Tensor::shallow_clone).collect();
    tch::manual_seed(5);
    let again = recompute(
        &(&image + &shift[0]),
        Box::new(move |x, _| Ok(loss(&kept, &x.dropout(0.3, true)))),
    )?;
    backward(&again)?;
    tch::manual_seed(5);
    backward(&loss(&plain, &(&image + &shift[0]).dropout(0.3, true)))?;
    Ok((
        farthest(&kernels::grads(&ours)?, &kernels::grads(&plain)?),
        1e-4,
    ))
}
