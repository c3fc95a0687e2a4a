//! The gradients that a Reducer makes, between real processes.

mod ranks;

use collective::{CollectiveError, ProcessGroup, ReduceOp, Reducer, ReducerOptions, kernels};
use ranks::gloo;
use tch::{Device, Kind, Tensor};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Convolution, ReLU, mean pool, linear: small, without BatchNorm, the same on every rank.
struct Model {
    parameters: Vec<Tensor>,
}

impl Model {
    fn new() -> Self {
        tch::manual_seed(1);
        let shapes: [&[i64]; 4] = [&[8, 3, 3, 3], &[8], &[5, 8], &[5]];
        let parameters: Vec<Tensor> = shapes
            .iter()
            .map(|shape| (Tensor::randn(*shape, F32) * 0.3).set_requires_grad(true))
            .collect();
        Self { parameters }
    }

    /// image (B,3,H,W) and target (B,5) to the mean squared error.
    fn loss(&self, image: &Tensor, target: &Tensor) -> Tensor {
        let [kernel, kernel_bias, weight, bias] = self.parameters.as_slice() else {
            unreachable!()
        };
        let features = image.conv2d(kernel, Some(kernel_bias), 1, 1, 1, 1).relu();
        let pooled = features.mean_dim([2i64, 3].as_slice(), false, Kind::Float);
        pooled
            .linear(weight, Some(bias))
            .mse_loss(target, tch::Reduction::Mean)
    }

    fn gradients(&self) -> Vec<Tensor> {
        kernels::grads(&self.parameters).unwrap()
    }
}

/// Eight images and targets; the same numbers wherever they are drawn.
fn batch(seed: i64) -> (Tensor, Tensor) {
    tch::manual_seed(seed);
    (Tensor::randn([8, 3, 6, 6], F32), Tensor::randn([8, 5], F32))
}

/// A rank's half of a batch.
fn share(batch: &(Tensor, Tensor), rank: usize) -> (Tensor, Tensor) {
    let start = 4 * rank as i64;
    (batch.0.narrow(0, start, 4), batch.1.narrow(0, start, 4))
}

fn synchronised_step(model: &Model, reducer: &Reducer, (image, target): &(Tensor, Tensor)) {
    reducer.prepare_for_forward().unwrap();
    let loss = model.loss(image, target);
    reducer
        .prepare_for_backward(std::slice::from_ref(&loss))
        .unwrap();
    reducer.backward(&loss).unwrap();
    reducer.check_finished().unwrap();
}

fn farthest(ours: &[Tensor], theirs: &[Tensor]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter()
        .zip(theirs)
        .map(|(a, b)| (a - b).abs().max().double_value(&[]))
        .fold(0.0, f64::max)
}

fn assert_same_on_every_rank(group: &ProcessGroup, tensors: &[Tensor]) {
    for tensor in tensors {
        let all = group.all_gather(&tensor.detach()).unwrap();
        assert!(all.iter().all(|other| other.equal(&all[0])));
    }
}

#[test]
fn two_ranks_make_the_gradient_of_one_rank_with_the_whole_batch() {
    ranks::run(
        "two_ranks_make_the_gradient_of_one_rank_with_the_whole_batch",
        2,
        |rendezvous| {
            let (_store, group) = gloo(&rendezvous);
            for gradient_as_bucket_view in [true, false] {
                let (model, alone) = (Model::new(), Model::new());
                // Buckets of 200 bytes, so that there are several.
                let tiny = 200.0 / 1024.0 / 1024.0;
                let options = ReducerOptions {
                    bucket_cap_mb: tiny,
                    first_bucket_mb: tiny,
                    gradient_as_bucket_view,
                    find_unused: false,
                };
                let reducer = Reducer::new(&model.parameters, &group, options).unwrap();
                for step in 0..3 {
                    let whole = batch(100 + step);
                    kernels::zero_grad(&model.parameters).unwrap();
                    kernels::zero_grad(&alone.parameters).unwrap();
                    synchronised_step(&model, &reducer, &share(&whole, group.rank()));
                    collective::backward(&alone.loss(&whole.0, &whole.1)).unwrap();
                    let difference = farthest(&model.gradients(), &alone.gradients());
                    assert!(difference < 1e-5, "step {step}: {difference}");
                    assert!(farthest(&alone.gradients(), &[0.0; 4].map(Tensor::from)) > 1e-2);
                    assert_same_on_every_rank(&group, &model.gradients());
                }
            }
        },
    );
}

#[test]
fn replicas_stay_bit_identical_through_updates() {
    ranks::run(
        "replicas_stay_bit_identical_through_updates",
        2,
        |rendezvous| {
            let (_store, group) = gloo(&rendezvous);
            let model = Model::new();
            kernels::channels_last(&model.parameters).unwrap();
            if group.rank() == 1 {
                tch::no_grad(|| {
                    model
                        .parameters
                        .iter()
                        .for_each(|p| _ = p.shallow_clone().zero_())
                });
            }
            group.broadcast_all(&model.parameters, 0).unwrap();
            let zeros = || -> Vec<Tensor> {
                model
                    .parameters
                    .iter()
                    .map(|p| p.detach().zeros_like())
                    .collect()
            };
            let steps: Vec<Tensor> = model
                .parameters
                .iter()
                .map(|_| Tensor::from(0.0f32))
                .collect();
            let (exp_avg, exp_avg_sq) = (zeros(), zeros());
            let reducer =
                Reducer::new(&model.parameters, &group, ReducerOptions::default()).unwrap();
            let first = model.parameters[0].detach().copy();
            for step in 0..4 {
                kernels::zero_grad(&model.parameters).unwrap();
                synchronised_step(&model, &reducer, &share(&batch(step), group.rank()));
                let gradients = model.gradients();
                assert_eq!(gradients[0].stride(), model.parameters[0].stride());
                kernels::clip_grad_norm(&gradients, 0.1).unwrap();
                let settings = kernels::AdamW {
                    lr: 0.01,
                    ..Default::default()
                };
                kernels::fused_adamw(
                    &model.parameters,
                    &gradients,
                    &exp_avg,
                    &exp_avg_sq,
                    &steps,
                    &settings,
                )
                .unwrap();
            }
            assert!((&model.parameters[0] - first).abs().max().double_value(&[]) > 0.01);
            assert_same_on_every_rank(&group, &model.parameters);
        },
    );
}

#[test]
fn only_the_last_micro_batch_communicates() {
    ranks::run("only_the_last_micro_batch_communicates", 2, |rendezvous| {
        let (_store, group) = gloo(&rendezvous);
        let (model, alone) = (Model::new(), Model::new());
        let reducer = Reducer::new(&model.parameters, &group, ReducerOptions::default()).unwrap();
        for update in 0..3 {
            kernels::zero_grad(&model.parameters).unwrap();
            kernels::zero_grad(&alone.parameters).unwrap();
            for micro in 0..3 {
                let whole = batch(10 * update + micro);
                let own = share(&whole, group.rank());
                let before = group.sequence();
                if micro < 2 {
                    collective::backward(&model.loss(&own.0, &own.1)).unwrap();
                    assert_eq!(group.sequence(), before);
                } else {
                    synchronised_step(&model, &reducer, &own);
                    assert!(group.sequence() > before);
                }
                collective::backward(&alone.loss(&whole.0, &whole.1)).unwrap();
            }
            let difference = farthest(&model.gradients(), &alone.gradients());
            assert!(difference < 1e-5, "update {update}: {difference}");
        }
    });
}

#[test]
fn find_unused_lets_a_parameter_rest() {
    ranks::run("find_unused_lets_a_parameter_rest", 2, |rendezvous| {
        let (_store, group) = gloo(&rendezvous);
        let parameters: Vec<Tensor> = (0..2)
            .map(|_| Tensor::ones([3], F32).set_requires_grad(true))
            .collect();
        let options = ReducerOptions {
            find_unused: true,
            ..Default::default()
        };
        let reducer = Reducer::new(&parameters, &group, options).unwrap();
        for _ in 0..2 {
            reducer.prepare_for_forward().unwrap();
            // Rank 0 uses both parameters, rank 1 the first alone.
            let mut loss = (&parameters[0] * 2.0).sum(Kind::Float);
            if group.rank() == 0 {
                loss += parameters[1].sum(Kind::Float);
            }
            reducer
                .prepare_for_backward(std::slice::from_ref(&loss))
                .unwrap();
            kernels::zero_grad(&parameters).unwrap();
            reducer.backward(&loss).unwrap();
            reducer.check_finished().unwrap();
            let gradients = kernels::grads(&parameters).unwrap();
            assert_eq!(gradients[0], Tensor::from_slice(&[2.0f32; 3]));
            assert_eq!(gradients[1], Tensor::from_slice(&[0.5f32; 3]));
        }
    });
}

#[test]
fn ranks_with_different_models_are_refused() {
    ranks::run("ranks_with_different_models_are_refused", 2, |rendezvous| {
        let (_store, group) = gloo(&rendezvous);
        let width = if group.rank() == 0 { 3 } else { 4 };
        let parameter = Tensor::ones([width], F32).set_requires_grad(true);
        let outcome = Reducer::new(&[parameter], &group, ReducerOptions::default());
        // c10d compares with rank 0's shapes, so rank 0 itself sees no fault.
        assert_eq!(outcome.is_err(), group.rank() == 1);
        if let Err(error) = outcome {
            assert!(
                error.to_string().starts_with("rank 1: reducer: "),
                "{error}"
            );
        }
        group.barrier().unwrap();
    });
}

#[test]
fn a_reducer_refuses_what_it_cannot_reduce() {
    ranks::run("a_reducer_refuses_what_it_cannot_reduce", 1, |rendezvous| {
        let (_store, group) = gloo(&rendezvous);
        let parameter = Tensor::ones([3], F32).set_requires_grad(true);
        let refuse = |list: &[Tensor], options| Reducer::new(list, &group, options).unwrap_err();
        assert!(matches!(
            refuse(&[], ReducerOptions::default()),
            CollectiveError::Invalid { .. }
        ));
        let none = ReducerOptions {
            bucket_cap_mb: f64::NAN,
            ..Default::default()
        };
        assert!(
            refuse(&[parameter.shallow_clone()], none)
                .to_string()
                .contains("bucket_cap_mb is NaN")
        );
        let frozen = refuse(
            &[parameter.shallow_clone(), parameter.detach()],
            ReducerOptions::default(),
        );
        assert!(
            frozen
                .to_string()
                .contains("parameter 1 is not a leaf tensor that requires a gradient"),
            "{frozen}"
        );
        assert!(
            refuse(&[Tensor::new()], ReducerOptions::default())
                .to_string()
                .contains("parameter 0")
        );

        // A world of one rank works, and a reducer may be dropped in the middle of a step.
        let reducer = Reducer::new(
            &[parameter.shallow_clone()],
            &group,
            ReducerOptions::default(),
        )
        .unwrap();
        reducer.prepare_for_forward().unwrap();
        let loss = parameter.sum(Kind::Float);
        reducer.prepare_for_backward(&[]).unwrap();
        drop(reducer);
        collective::backward(&loss).unwrap();
        group.all_reduce(&parameter.grad(), ReduceOp::Sum).unwrap();
        assert_eq!(parameter.grad(), Tensor::from_slice(&[1.0f32; 3]));
        assert!(
            collective::backward(&loss.detach())
                .unwrap_err()
                .to_string()
                .starts_with("backward: ")
        );
    });
}
