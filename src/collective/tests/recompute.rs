//! Recomputed blocks against the same blocks run plainly. Tests that need the same random numbers twice have a process of
//! their own: libtorch's generator is the process's.

mod ranks;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use collective::autograd::recompute;
use collective::{CollectiveError, Reducer, ReducerOptions, autocast, backward, kernels};
use ranks::gloo;
use tch::{Device, Kind, Tensor};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);
const WIDTH: i64 = 8;

/// Convolution, batch normalisation, ReLU, dropout, around a shortcut.
struct Block {
    kernel: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    runs: Cell<usize>,
}

impl Block {
    fn new() -> Self {
        let trained = |tensor: Tensor| tensor.set_requires_grad(true);
        Block {
            kernel: trained(Tensor::randn([WIDTH, WIDTH, 3, 3], F32) * 0.2),
            weight: trained(Tensor::randn([WIDTH], F32)),
            bias: trained(Tensor::randn([WIDTH], F32)),
            running_mean: Tensor::zeros([WIDTH], F32),
            running_var: Tensor::ones([WIDTH], F32),
            runs: Cell::new(0),
        }
    }

    fn forward(&self, x: &Tensor, first: bool) -> Tensor {
        self.runs.set(self.runs.get() + 1);
        let normed = x
            .conv2d(&self.kernel, None::<Tensor>, 1, 1, 1, 1)
            .batch_norm(
                Some(&self.weight),
                Some(&self.bias),
                first.then_some(&self.running_mean),
                first.then_some(&self.running_var),
                true,
                0.1,
                1e-5,
                true,
            );
        normed.relu().dropout(0.3, true) + x
    }
}

/// A stem and blocks; what is recomputed is the caller's choice.
struct Model {
    stem: Tensor,
    blocks: Vec<Rc<Block>>,
}

impl Model {
    fn new(blocks: usize) -> Self {
        tch::manual_seed(7);
        Model {
            stem: (Tensor::randn([WIDTH, 3, 3, 3], F32) * 0.3).set_requires_grad(true),
            blocks: (0..blocks).map(|_| Rc::new(Block::new())).collect(),
        }
    }

    fn parameters(&self) -> Vec<Tensor> {
        let blocks = self.blocks.iter();
        let inner = blocks.flat_map(|b| [&b.kernel, &b.weight, &b.bias]);
        std::iter::once(&self.stem)
            .chain(inner)
            .map(Tensor::shallow_clone)
            .collect()
    }

    fn statistics(&self) -> Vec<Tensor> {
        let blocks = self.blocks.iter();
        blocks
            .flat_map(|b| [b.running_mean.copy(), b.running_var.copy()])
            .collect()
    }

    /// image (B,3,H,W) to a scalar.
    fn loss(&self, image: &Tensor, again: bool) -> Tensor {
        let mut x = image.conv2d(&self.stem, None::<Tensor>, 1, 1, 1, 1);
        for block in &self.blocks {
            x = if again {
                let block = Rc::clone(block);
                recompute(&x, Box::new(move |x, first| Ok(block.forward(x, first)))).unwrap()
            } else {
                block.forward(&x, true)
            };
        }
        x.square().mean(Kind::Float)
    }

    fn runs(&self) -> Vec<usize> {
        self.blocks.iter().map(|block| block.runs.get()).collect()
    }
}

fn image(seed: i64) -> Tensor {
    tch::manual_seed(seed);
    Tensor::randn([4, 3, 6, 6], F32)
}

fn assert_identical(ours: &[Tensor], theirs: &[Tensor]) {
    assert_eq!(ours.len(), theirs.len());
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!(a.equal(b), "tensor {i}");
    }
}

#[test]
fn gradients_are_those_of_a_plain_run_bit_for_bit() {
    ranks::run("gradients_are_those_of_a_plain_run_bit_for_bit", 1, |_| {
        let (plain, again) = (Model::new(5), Model::new(5));
        // Micro-batches whose gradients add up.
        for seed in 0..3 {
            let image = image(seed);
            let mut next = Vec::new();
            for (model, recomputed) in [(&plain, false), (&again, true)] {
                tch::manual_seed(100 + seed);
                let loss = model.loss(&image, recomputed);
                backward(&loss).unwrap();
                // Random numbers go on as if nothing had been run twice.
                next.push((loss.detach(), Tensor::randn([4], F32)));
            }
            assert!(next[0].0.equal(&next[1].0) && next[0].1.equal(&next[1].1));
            assert_identical(
                &kernels::grads(&again.parameters()).unwrap(),
                &kernels::grads(&plain.parameters()).unwrap(),
            );
            assert_identical(&again.statistics(), &plain.statistics());
        }
        assert_eq!(plain.runs(), [3; 5]);
        assert_eq!(again.runs(), [6; 5]);
    });
}

#[test]
fn two_ranks_average_the_gradients_of_recomputed_blocks() {
    ranks::run(
        "two_ranks_average_the_gradients_of_recomputed_blocks",
        2,
        |rendezvous| {
            let (_store, group) = gloo(&rendezvous);
            let tiny = 500.0 / 1024.0 / 1024.0;
            for gradient_as_bucket_view in [true, false] {
                let options = ReducerOptions {
                    bucket_cap_mb: tiny,
                    first_bucket_mb: tiny,
                    gradient_as_bucket_view,
                    find_unused: false,
                };
                let (plain, again) = (Model::new(4), Model::new(4));
                let pair = [(&plain, false), (&again, true)].map(|(model, recomputed)| {
                    let parameters = model.parameters();
                    let reducer = Reducer::new(&parameters, &group, options).unwrap();
                    (model, recomputed, parameters, reducer)
                });
                for update in 0..3 {
                    for (model, recomputed, parameters, reducer) in &pair {
                        kernels::zero_grad(parameters).unwrap();
                        for micro in 0..2 {
                            let seed = 100 * update + 10 * micro + group.rank() as i64;
                            let image = image(seed);
                            if micro == 1 {
                                reducer.prepare_for_forward().unwrap();
                            }
                            let loss = model.loss(&image, *recomputed);
                            if micro == 0 {
                                backward(&loss).unwrap();
                            } else {
                                reducer.prepare_for_backward(&[]).unwrap();
                                reducer.backward(&loss).unwrap();
                                reducer.check_finished().unwrap();
                            }
                        }
                    }
                    let [plain, again] =
                        [&pair[0].2, &pair[1].2].map(|p| kernels::grads(p).unwrap());
                    assert_identical(&again, &plain);
                    for gradient in &again {
                        let all = group.all_gather(gradient).unwrap();
                        assert!(all[0].equal(&all[1]));
                    }
                    assert!(again[0].abs().max().double_value(&[]) > 1e-3);
                }
            }
        },
    );
}

#[test]
fn a_first_block_without_a_gradient_for_its_input_trains() {
    ranks::run(
        "a_first_block_without_a_gradient_for_its_input_trains",
        1,
        |_| {
            let (plain, again) = (Block::new(), Block::new());
            tch::no_grad(|| {
                for (a, b) in [
                    (&again.kernel, &plain.kernel),
                    (&again.weight, &plain.weight),
                    (&again.bias, &plain.bias),
                ] {
                    a.shallow_clone().copy_(b);
                }
            });
            let x = Tensor::randn([2, WIDTH, 4, 4], F32);
            tch::manual_seed(1);
            backward(&plain.forward(&x, true).square().sum(Kind::Float)).unwrap();
            tch::manual_seed(1);
            let kernel = again.kernel.shallow_clone();
            let y = recompute(&x, Box::new(move |x, first| Ok(again.forward(x, first)))).unwrap();
            assert!(y.requires_grad());
            backward(&y.square().sum(Kind::Float)).unwrap();
            assert!(kernel.grad().equal(&plain.kernel.grad()));
            assert!(!x.grad().defined());
        },
    );
}

#[test]
fn nothing_of_the_first_run_is_needed_later() {
    let weight = Tensor::full([4], 0.5, F32).set_requires_grad(true);
    let x = Tensor::ones([4], F32);
    // exp and tanh keep their outputs for the backward pass; a change of what was kept is an error there.
    let block = |weight: &Tensor, kept: &Rc<RefCell<Vec<Tensor>>>| {
        let (weight, kept) = (weight.shallow_clone(), Rc::clone(kept));
        move |x: &Tensor, first: bool| {
            let inner = (x * &weight).exp();
            let outer = inner.tanh();
            if first {
                kept.borrow_mut().extend([inner.detach(), outer.detach()]);
            }
            Ok(outer * 2.0)
        }
    };
    let spoil = |kept: &Rc<RefCell<Vec<Tensor>>>| {
        assert_eq!(kept.borrow().len(), 2);
        kept.borrow_mut()
            .iter_mut()
            .for_each(|t| _ = t.fill_(f64::NAN));
    };
    let kept = Rc::default();
    let plain = block(&weight, &kept)(&x, true).unwrap().sum(Kind::Float);
    spoil(&kept);
    let error = backward(&plain).unwrap_err().to_string();
    assert!(
        error.contains("modified by an inplace operation"),
        "{error}"
    );

    let kept = Rc::default();
    let y = recompute(&x, Box::new(block(&weight, &kept))).unwrap();
    spoil(&kept);
    backward(&y.sum(Kind::Float)).unwrap();
    // d/dw 2 tanh(exp(w)) = 2 (1 - tanh^2(exp(w))) exp(w) at w = 0.5
    let e = 0.5f64.exp();
    let expected = 2.0 * (1.0 - e.tanh().powi(2)) * e;
    let difference = (weight.grad() - expected).abs().max().double_value(&[]);
    assert!(difference < 1e-6, "{difference}");
}

#[test]
fn a_closure_is_dropped_once_with_its_graph() {
    let witness = Rc::new(());
    let weight = Tensor::ones([3], F32).set_requires_grad(true);
    let segment = |fails_at: usize| {
        let (held, weight) = (Rc::clone(&witness), weight.shallow_clone());
        let run = Cell::new(0);
        Box::new(move |x: &Tensor, _: bool| {
            let _held = &held;
            run.set(run.get() + 1);
            if run.get() == fails_at {
                return Err("enough".to_owned());
            }
            Ok(x * &weight)
        })
    };
    let x = Tensor::ones([3], F32);
    let used = |count: usize| assert_eq!(Rc::strong_count(&witness), 1 + count);

    let y = recompute(&x, segment(9)).unwrap();
    used(1);
    let loss = y.sum(Kind::Float);
    drop(y);
    backward(&loss).unwrap();
    used(1);
    drop(loss);
    used(0);
    // A graph that nobody walks.
    drop(recompute(&x, segment(9)).unwrap());
    used(0);
    // Errors of the first run and of the second.
    let error = recompute(&x, segment(1)).unwrap_err();
    assert_eq!(error.to_string(), "recompute: enough");
    used(0);
    let loss = recompute(&x, segment(2)).unwrap().sum(Kind::Float);
    assert_eq!(backward(&loss).unwrap_err().to_string(), "backward: enough");
    used(1);
    drop(loss);
    used(0);
    // Without a graph it is a plain call.
    let y = tch::no_grad(|| recompute(&x, segment(9))).unwrap();
    assert!(!y.requires_grad());
    used(0);
}

#[test]
fn panics_and_wrong_blocks_are_errors() {
    let x = Tensor::ones([3], F32).set_requires_grad(true);
    let text = |outcome: Result<(), CollectiveError>| outcome.unwrap_err().to_string();
    let first = recompute(&x, Box::new(|_, _| panic!("no way"))).map(drop);
    assert_eq!(
        text(first),
        "recompute: a recomputed block panicked: no way"
    );
    let second = Box::new(|x: &Tensor, first: bool| {
        assert!(first, "not again");
        Ok(x.exp())
    });
    let loss = recompute(&x, second).unwrap().sum(Kind::Float);
    assert!(text(backward(&loss)).contains("a recomputed block panicked: not again"));

    let memory = |_: &Tensor, _: bool| Err("CUDA out of memory. Tried to allocate".to_owned());
    assert!(matches!(
        recompute(&x, Box::new(memory)),
        Err(CollectiveError::OutOfMemory { .. })
    ));
    let nothing = recompute(&x, Box::new(|_, _| Ok(Tensor::new()))).map(drop);
    assert!(text(nothing).contains("made no tensor"));
    let in_place = |x: &Tensor, _: bool| Ok(x.shallow_clone().relu_());
    let leaf = Tensor::ones([3], F32);
    assert!(
        text(recompute(&leaf, Box::new(in_place)).map(drop)).contains("changes its input in place")
    );
    // A block that does nothing, and one without parameters whose input needs no gradient.
    let y = recompute(&x, Box::new(|x, _| Ok(x.shallow_clone()))).unwrap();
    backward(&(y * 3.0).sum(Kind::Float)).unwrap();
    assert_eq!(x.grad(), Tensor::from_slice(&[3.0f32; 3]));
    let still = recompute(&leaf, Box::new(|x, _| Ok(x.exp()))).unwrap();
    backward(&still.sum(Kind::Float)).unwrap();
    assert!(!leaf.grad().defined());
    // The gradient of chosen inputs would miss the parameters inside, or touch them unasked.
    let loss = recompute(&x, Box::new(|x, _| Ok(x.exp())))
        .unwrap()
        .sum(Kind::Float);
    let chosen = Tensor::f_run_backward(&[loss], &[&x], false, false);
    assert!(
        chosen
            .unwrap_err()
            .to_string()
            .contains("whole backward pass")
    );
}

#[test]
fn the_second_run_has_the_autocast_of_the_first() {
    let x = Tensor::randn([3, 4], F32);
    let start = [0.3, -0.7].map(|value| Tensor::randn([4, 4], F32) * 0.1 + value);
    let kinds = Rc::new(RefCell::new(Vec::new()));
    // The gradients of two updates.
    let train = |again: bool| {
        let weights = [0, 1].map(|i| start[i].copy().set_requires_grad(true));
        let mut gradients = Vec::new();
        for _ in 0..2 {
            let loss = autocast::run(Device::Cpu, Some(Kind::BFloat16), || {
                let (weight, kinds) = (weights[0].shallow_clone(), Rc::clone(&kinds));
                let block = move |x: &Tensor, _: bool| {
                    let y = x.matmul(&weight);
                    kinds.borrow_mut().push(y.kind());
                    Ok(y.tanh())
                };
                let inner = if again {
                    recompute(&x, Box::new(block))?
                } else {
                    block(&x, true).unwrap()
                };
                // The same parameter outside of the block, in the same region.
                let shared = inner.matmul(&weights[1]).matmul(&weights[0]);
                Ok::<_, CollectiveError>(shared.sum(Kind::Float))
            })
            .unwrap();
            backward(&loss).unwrap();
            gradients.extend(weights.iter().map(|w| w.grad().copy()));
            kernels::free_grad(&weights).unwrap();
            // An update that a cast of the old values would miss.
            tch::no_grad(|| weights.iter().for_each(|w| _ = w.shallow_clone().neg_()));
        }
        gradients
    };
    let (plain, again) = (train(false), train(true));
    // Once for each plain update, twice for each recomputed one.
    assert_eq!(kinds.borrow().as_slice(), [Kind::BFloat16; 6]);
    for (i, (ours, theirs)) in again.iter().zip(&plain).enumerate() {
        assert_eq!(ours.kind(), Kind::Float);
        // Two casts of one parameter add their gradients in f32, one cast adds them in bf16.
        let difference = (ours - theirs).abs().max().double_value(&[]);
        let scale = theirs.abs().max().double_value(&[]);
        assert!(
            difference <= 0.01 * scale && scale > 0.1,
            "gradient {i}: {difference} of {scale}"
        );
    }
}

/// x w^length, each product a block of its own.
fn chain(
    x: &Tensor,
    weight: &Tensor,
    length: usize,
    runs: &Rc<Cell<usize>>,
) -> Result<Tensor, String> {
    let mut x = x.shallow_clone();
    for _ in 0..length {
        let (weight, runs) = (weight.shallow_clone(), Rc::clone(runs));
        let block = move |x: &Tensor, _: bool| {
            runs.set(runs.get() + 1);
            Ok(x * &weight)
        };
        x = recompute(&x, Box::new(block)).map_err(|error| error.to_string())?;
    }
    Ok(x)
}

#[test]
fn a_long_chain_and_blocks_within_blocks_work() {
    let (x, weight) = (
        Tensor::ones([2], F32),
        Tensor::full([2], 0.99, F32).set_requires_grad(true),
    );
    // d/dw w^200
    let expected = 200.0 * 0.99f64.powi(199);
    let runs = Rc::new(Cell::new(0));
    backward(&chain(&x, &weight, 200, &runs).unwrap().sum(Kind::Float)).unwrap();
    assert_eq!(runs.get(), 400);
    assert!((weight.grad() - expected).abs().max().double_value(&[]) < 1e-3);

    kernels::free_grad(&[weight.shallow_clone()]).unwrap();
    runs.set(0);
    let mut y = x;
    for _ in 0..4 {
        let (weight, runs) = (weight.shallow_clone(), Rc::clone(&runs));
        let outer = move |x: &Tensor, _: bool| chain(x, &weight, 50, &runs);
        y = recompute(&y, Box::new(outer)).unwrap();
    }
    backward(&y.sum(Kind::Float)).unwrap();
    // Once in the first run of the outer block, and twice under its second.
    assert_eq!(runs.get(), 600);
    assert!((weight.grad() - expected).abs().max().double_value(&[]) < 1e-3);
}
