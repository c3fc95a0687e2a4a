//! Batch normalisation over two ranks against one that sees the whole batch.

mod ranks;

use std::rc::Rc;

use collective::autograd::{recompute, sync_batch_norm};
use collective::{ProcessGroup, ReduceOp, Reducer, ReducerOptions, autocast, backward, kernels};
use ranks::gloo;
use tch::{Device, Kind, Tensor};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);
const EPS: f64 = 1e-5;
const MOMENTUM: f64 = 0.3;

struct Norm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
}

impl Norm {
    fn new(channels: i64) -> Self {
        let trained = |tensor: Tensor| tensor.set_requires_grad(true);
        Norm {
            weight: trained(Tensor::randn([channels], F32)),
            bias: trained(Tensor::randn([channels], F32)),
            running_mean: Tensor::randn([channels], F32),
            running_var: Tensor::rand([channels], F32) + 0.5,
        }
    }

    fn copy(&self) -> Self {
        let trained = |tensor: &Tensor| tensor.detach().copy().set_requires_grad(true);
        Norm {
            weight: trained(&self.weight),
            bias: trained(&self.bias),
            running_mean: self.running_mean.copy(),
            running_var: self.running_var.copy(),
        }
    }

    fn alone(&self, x: &Tensor) -> Tensor {
        x.batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            Some(&self.running_mean),
            Some(&self.running_var),
            true,
            MOMENTUM,
            EPS,
            true,
        )
    }

    fn over_ranks(&self, group: &ProcessGroup, x: &Tensor, moves: bool) -> Tensor {
        let running = moves.then_some((&self.running_mean, &self.running_var));
        sync_batch_norm(group, x, &self.weight, &self.bias, running, MOMENTUM, EPS).unwrap()
    }
}

fn farthest(ours: &Tensor, theirs: &Tensor) -> f64 {
    assert_eq!(ours.size(), theirs.size());
    (ours - theirs).abs().max().double_value(&[])
}

/// Where a rank's part of a batch of eight begins, and how long it is.
fn share(rank: usize) -> (i64, i64) {
    if rank == 0 { (0, 3) } else { (3, 5) }
}

#[test]
fn uneven_ranks_normalise_as_one_with_the_whole_batch() {
    ranks::run(
        "uneven_ranks_normalise_as_one_with_the_whole_batch",
        2,
        |rendezvous| {
            let (_store, group) = gloo(&rendezvous);
            let (start, length) = share(group.rank());
            // The last one's mean is a thousand deviations off, where a sum of squares would keep no digit of the variance.
            let cases: [(&[i64], bool, f64, f64); 5] = [
                (&[8, 6, 5, 4], false, 0.0, 1e-5),
                (&[8, 6, 5, 4], true, 0.0, 1e-5),
                (&[8, 6], false, 1.0, 1e-5),
                (&[8, 3, 7], false, -2.0, 1e-5),
                (&[8, 6, 5, 4], false, 1000.0, 2e-3),
            ];
            for (case, (shape, channels_last, offset, tolerance)) in cases.into_iter().enumerate() {
                tch::manual_seed(case as i64);
                let mut batch = Tensor::randn(shape, F32) + offset;
                let mut direction = Tensor::randn(shape, F32);
                if channels_last {
                    batch = kernels::to_channels_last(&batch).unwrap();
                    direction = kernels::to_channels_last(&direction).unwrap();
                }
                let ours = Norm::new(shape[1]);
                let theirs = ours.copy();

                let whole = batch.set_requires_grad(true);
                let expected = theirs.alone(&whole);
                backward(&(&expected * &direction).sum(Kind::Float)).unwrap();

                let part = whole
                    .detach()
                    .narrow(0, start, length)
                    .set_requires_grad(true);
                let y = ours.over_ranks(&group, &part, true);
                assert_eq!(
                    kernels::is_channels_last(&y).unwrap(),
                    channels_last && shape.len() == 4
                );
                let own = direction.narrow(0, start, length);
                backward(&(&y * &own).sum(Kind::Float)).unwrap();

                let of_batch = |t: Tensor| t.narrow(0, start, length);
                let check = |what: &str, ours: &Tensor, theirs: &Tensor| {
                    let difference = farthest(ours, theirs);
                    assert!(difference < tolerance, "case {case}, {what}: {difference}");
                };
                check("output", &y, &of_batch(expected));
                check("input gradient", &part.grad(), &of_batch(whole.grad()));
                for (what, ours, theirs) in [
                    ("weight gradient", &ours.weight, &theirs.weight),
                    ("bias gradient", &ours.bias, &theirs.bias),
                ] {
                    let summed = ours.grad();
                    group.all_reduce(&summed, ReduceOp::Sum).unwrap();
                    check(what, &summed, &theirs.grad());
                }
                check("running mean", &ours.running_mean, &theirs.running_mean);
                check("running variance", &ours.running_var, &theirs.running_var);
                let all = group.all_gather(&ours.running_var).unwrap();
                assert!(all[0].equal(&all[1]));
            }
        },
    );
}

/// Convolution, normalisation, ReLU, three times; whose normalisation is the caller's choice.
struct Model {
    layers: Vec<(Tensor, Norm)>,
}

const WIDTHS: [i64; 4] = [3, 8, 8, 4];

impl Model {
    fn new() -> Self {
        tch::manual_seed(5);
        let layer = |w: &[i64]| {
            let kernel = Tensor::randn([w[1], w[0], 3, 3], F32) * 0.3;
            (kernel.set_requires_grad(true), Norm::new(w[1]))
        };
        Model {
            layers: WIDTHS.windows(2).map(layer).collect(),
        }
    }

    fn parameters(&self) -> Vec<Tensor> {
        let layers = self.layers.iter();
        layers
            .flat_map(|(kernel, norm)| [kernel, &norm.weight, &norm.bias])
            .map(Tensor::shallow_clone)
            .collect()
    }

    fn statistics(&self) -> Vec<&Tensor> {
        let layers = self.layers.iter();
        layers
            .flat_map(|(_, norm)| [&norm.running_mean, &norm.running_var])
            .collect()
    }
}

fn conv(x: &Tensor, kernel: &Tensor) -> Tensor {
    x.conv2d(kernel, None::<Tensor>, 1, 1, 1, 1)
}

#[test]
fn a_network_over_two_ranks_trains_as_on_one() {
    ranks::run(
        "a_network_over_two_ranks_trains_as_on_one",
        2,
        |rendezvous| {
            let (_store, group) = gloo(&rendezvous);
            let group = Rc::new(group);
            // As it is, and with every layer recomputed in the backward pass.
            for recomputed in [false, true] {
                let (alone, ours) = (Model::new(), Rc::new(Model::new()));
                let parameters = ours.parameters();
                let tiny = 500.0 / 1024.0 / 1024.0;
                let options = ReducerOptions {
                    bucket_cap_mb: tiny,
                    first_bucket_mb: tiny,
                    ..Default::default()
                };
                let reducer = Reducer::new(&parameters, &group, options).unwrap();
                for step in 0..3 {
                    tch::manual_seed(50 + step);
                    let batch = Tensor::randn([8, 3, 6, 6], F32);
                    let target = Tensor::randn([8, 4], F32);
                    kernels::zero_grad(&alone.parameters()).unwrap();
                    kernels::zero_grad(&parameters).unwrap();

                    let loss = |maps: Tensor, target: &Tensor| {
                        maps.mean_dim([2i64, 3].as_slice(), false, Kind::Float)
                            .mse_loss(target, tch::Reduction::Mean)
                    };
                    let mut x = batch.shallow_clone();
                    for (kernel, norm) in &alone.layers {
                        x = norm.alone(&conv(&x, kernel)).relu();
                    }
                    backward(&loss(x, &target)).unwrap();

                    let half = 4 * group.rank() as i64;
                    let mut x = batch.narrow(0, half, 4);
                    reducer.prepare_for_forward().unwrap();
                    for layer in 0..ours.layers.len() {
                        let (model, group) = (Rc::clone(&ours), Rc::clone(&group));
                        let run = move |x: &Tensor, first: bool| {
                            let (kernel, norm) = &model.layers[layer];
                            Ok(norm.over_ranks(&group, &conv(x, kernel), first).relu())
                        };
                        x = if recomputed {
                            recompute(&x, Box::new(run)).unwrap()
                        } else {
                            run(&x, true).unwrap_or_else(|error: String| panic!("{error}"))
                        };
                    }
                    let loss = loss(x, &target.narrow(0, half, 4));
                    reducer.prepare_for_backward(&[]).unwrap();
                    reducer.backward(&loss).unwrap();
                    reducer.check_finished().unwrap();

                    let pairs = parameters.iter().map(Tensor::grad).zip(alone.parameters());
                    for (i, (ours, alone)) in pairs.enumerate() {
                        let difference = farthest(&ours, &alone.grad());
                        assert!(
                            difference < 1e-5,
                            "step {step}, parameter {i}: {difference}"
                        );
                        assert!(alone.grad().abs().max().double_value(&[]) > 1e-3);
                    }
                    for (ours, alone) in ours.statistics().into_iter().zip(alone.statistics()) {
                        assert!(farthest(ours, alone) < 1e-5);
                    }
                }
            }
        },
    );
}

#[test]
fn a_world_of_one_is_batch_norm() {
    ranks::run("a_world_of_one_is_batch_norm", 1, |rendezvous| {
        let (_store, group) = gloo(&rendezvous);
        tch::manual_seed(3);
        let ours = Norm::new(6);
        let theirs = ours.copy();
        let x = Tensor::randn([4, 6, 5, 3], F32);
        let direction = Tensor::randn([4, 6, 5, 3], F32);
        for (kind, tolerance) in [(Kind::Float, 1e-6), (Kind::BFloat16, 0.04)] {
            kernels::free_grad(&[&ours, &theirs].map(|norm| norm.weight.shallow_clone())).unwrap();
            let leaf = || x.to_kind(kind).copy().set_requires_grad(true);
            let (a, b) = (leaf(), leaf());
            // A batch that does not lie in one piece.
            let y = ours
                .over_ranks(&group, &a.transpose(2, 3), true)
                .transpose(2, 3);
            let expected = theirs.alone(&b);
            assert_eq!(y.kind(), kind);
            for output in [&y, &expected] {
                backward(&(output * direction.to_kind(kind)).sum(Kind::Float)).unwrap();
            }
            assert_eq!(a.grad().kind(), kind);
            assert!(farthest(&y, &expected) < tolerance);
            assert!(farthest(&a.grad(), &b.grad()) < tolerance);
            assert!(farthest(&ours.running_mean, &theirs.running_mean) < 1e-6);
            assert!(farthest(&ours.running_var, &theirs.running_var) < 1e-6);
            let (ours, theirs) = (ours.weight.grad(), theirs.weight.grad());
            assert_eq!(ours.kind(), Kind::Float);
            assert!(farthest(&ours, &theirs) < 5.0 * tolerance);
        }

        // Autocast changes nothing inside; running statistics stay where there are none; an input without a gradient.
        let before = ours.running_mean.copy();
        let y = autocast::run(Device::Cpu, Some(Kind::BFloat16), || {
            Ok::<_, collective::CollectiveError>(ours.over_ranks(&group, &x, false))
        })
        .unwrap();
        assert_eq!(y.kind(), Kind::Float);
        assert!(farthest(&y, &theirs.alone(&x)) < 1e-6);
        assert!(ours.running_mean.equal(&before));
        backward(&y.sum(Kind::Float)).unwrap();

        let refused = |x: &Tensor| {
            sync_batch_norm(&group, x, &ours.weight, &ours.bias, None, MOMENTUM, EPS)
                .unwrap_err()
                .to_string()
        };
        for (shape, reason) in [
            (
                &[4, 5, 3][..],
                "weight has the shape [6], but x has 5 channels",
            ),
            (&[6], "it must be (batch, channels, ...)"),
            (&[0, 6], "x is empty"),
            (&[1, 6, 1, 1], "one value per channel"),
        ] {
            let error = refused(&Tensor::ones(shape, F32));
            assert!(error.contains(reason), "{error}");
        }
        assert!(refused(&Tensor::new()).contains("x is an undefined tensor"));
    });
}
