//! The multi-tensor kernels against the same formulas in plain tensor operations.

use std::sync::Mutex;

use collective::kernels::{self, AdamW, Lamb, ScaleGrowth, Sgd};
use tch::{Device, Kind, Tensor};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);
const SHAPES: [&[i64]; 4] = [&[16, 8, 3, 3], &[16], &[7, 33], &[1]];

fn random(seed: i64, scale: f64) -> Vec<Tensor> {
    // The tests of this process share libtorch's generator.
    static GENERATOR: Mutex<()> = Mutex::new(());
    let _alone = GENERATOR.lock().unwrap();
    tch::manual_seed(seed);
    SHAPES
        .iter()
        .map(|shape| Tensor::randn(*shape, F32) * scale)
        .collect()
}

fn zeros() -> Vec<Tensor> {
    SHAPES
        .iter()
        .map(|shape| Tensor::zeros(*shape, F32))
        .collect()
}

fn steps() -> Vec<Tensor> {
    SHAPES.iter().map(|_| Tensor::from(0.0f32)).collect()
}

fn copies(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(Tensor::copy).collect()
}

#[test]
fn fused_adamw_is_the_published_formula() {
    let settings = AdamW {
        lr: 3e-2,
        beta1: 0.8,
        beta2: 0.95,
        eps: 1e-6,
        weight_decay: 0.1,
    };
    let parameters = random(1, 1.0);
    let mut expected: Vec<Tensor> = parameters.iter().map(|p| p.to_kind(Kind::Double)).collect();
    let (exp_avg, exp_avg_sq, steps) = (zeros(), zeros(), steps());
    let mut moments: Vec<(Tensor, Tensor)> = expected
        .iter()
        .map(|p| (p.zeros_like(), p.zeros_like()))
        .collect();
    for t in 1..=5 {
        let gradients = random(100 + i64::from(t), 0.5);
        kernels::fused_adamw(
            &parameters,
            &gradients,
            &exp_avg,
            &exp_avg_sq,
            &steps,
            &settings,
        )
        .unwrap();
        for ((p, (m, v)), g) in expected.iter_mut().zip(&mut moments).zip(&gradients) {
            let g = g.to_kind(Kind::Double);
            *p = &*p * (1.0 - settings.lr * settings.weight_decay);
            *m = &*m * settings.beta1 + &g * (1.0 - settings.beta1);
            *v = &*v * settings.beta2 + g.square() * (1.0 - settings.beta2);
            let m_hat = &*m / (1.0 - settings.beta1.powi(t));
            let v_hat = &*v / (1.0 - settings.beta2.powi(t));
            *p = &*p - m_hat / (v_hat.sqrt() + settings.eps) * settings.lr;
        }
    }
    for (ours, theirs) in parameters.iter().zip(&expected) {
        let difference = (ours.to_kind(Kind::Double) - theirs)
            .abs()
            .max()
            .double_value(&[]);
        assert!(difference < 1e-6, "{difference}");
    }
    for step in &steps {
        assert_eq!(step.double_value(&[]), 5.0);
    }
}

#[test]
fn fused_adamw_is_the_same_in_channels_last() {
    let (plain, strided) = (random(1, 1.0), random(1, 1.0));
    kernels::channels_last(&strided).unwrap();
    assert_ne!(plain[0].stride(), strided[0].stride());
    let gradients = random(2, 1.0);
    let update = |parameters: &[Tensor], gradients: &[Tensor]| {
        let moments = || -> Vec<Tensor> { parameters.iter().map(Tensor::zeros_like).collect() };
        kernels::fused_adamw(
            parameters,
            gradients,
            &moments(),
            &moments(),
            &steps(),
            &AdamW::default(),
        )
    };
    // The gradients still lie in another order than the parameters: refused, not misread.
    let error = update(&strided, &gradients).unwrap_err().to_string();
    assert!(
        error.starts_with("fused_adamw: a gradient or moment of parameter 0 differs"),
        "{error}"
    );
    update(&plain, &gradients).unwrap();
    let strided_gradients = copies(&gradients);
    kernels::channels_last(&strided_gradients).unwrap();
    update(&strided, &strided_gradients).unwrap();
    for (a, b) in plain.iter().zip(&strided) {
        assert!((a - b).abs().max().double_value(&[]) < 1e-7);
    }
}

#[test]
fn fused_adamw_refuses_lists_that_do_not_fit() {
    let (parameters, gradients) = (random(1, 1.0), random(2, 1.0));
    let short = kernels::fused_adamw(
        &parameters,
        &gradients[..3],
        &zeros(),
        &zeros(),
        &steps(),
        &AdamW::default(),
    );
    assert_eq!(
        short.unwrap_err().to_string(),
        "fused_adamw: 4 parameters but 3 gradients"
    );
    let whole: Vec<Tensor> = SHAPES.iter().map(|_| Tensor::from(0i64)).collect();
    let integers = kernels::fused_adamw(
        &parameters,
        &gradients,
        &zeros(),
        &zeros(),
        &whole,
        &AdamW::default(),
    );
    assert_eq!(
        integers.unwrap_err().to_string(),
        "fused_adamw: the step of parameter 0 must be one f32"
    );
    assert!(kernels::fused_adamw(&[], &[], &[], &[], &[], &AdamW::default()).is_err());
}

#[test]
fn fused_sgd_is_the_formula_with_and_without_momentum() {
    for (momentum, nesterov, weight_decay) in [
        (0.0, false, 0.0),
        (0.0, false, 0.1),
        (0.9, false, 0.1),
        (0.8, true, 0.05),
    ] {
        let settings = Sgd {
            lr: 0.1,
            momentum,
            nesterov,
            weight_decay,
        };
        let parameters = random(1, 1.0);
        let mut expected: Vec<Tensor> =
            parameters.iter().map(|p| p.to_kind(Kind::Double)).collect();
        // What the buffers hold before the first update does not count.
        let buffers = if momentum == 0.0 {
            Vec::new()
        } else {
            random(50, 9.0)
        };
        let mut velocity: Vec<Tensor> = expected.iter().map(Tensor::zeros_like).collect();
        for t in 0..4 {
            let gradients = random(100 + t, 0.5);
            let before = copies(&gradients);
            kernels::fused_sgd(&parameters, &gradients, &buffers, &settings, t == 0).unwrap();
            assert!(gradients.iter().zip(&before).all(|(a, b)| a.equal(b)));
            for ((p, v), g) in expected.iter_mut().zip(&mut velocity).zip(&gradients) {
                let g = g.to_kind(Kind::Double) + &*p * weight_decay;
                *v = &*v * momentum + &g;
                let step = if nesterov {
                    g + &*v * momentum
                } else {
                    v.copy()
                };
                *p = &*p - step * settings.lr;
            }
        }
        for (ours, theirs) in parameters.iter().zip(&expected) {
            let difference = (ours.to_kind(Kind::Double) - theirs)
                .abs()
                .max()
                .double_value(&[]);
            assert!(difference < 1e-6, "{settings:?}: {difference}");
        }
    }
}

#[test]
fn fused_sgd_refuses_what_does_not_fit() {
    let (parameters, gradients) = (random(1, 1.0), random(2, 1.0));
    let refused = |gradients: &[Tensor], buffers: &[Tensor], settings: Sgd| {
        kernels::fused_sgd(&parameters, gradients, buffers, &settings, false)
            .unwrap_err()
            .to_string()
    };
    let momentum = Sgd {
        momentum: 0.9,
        ..Sgd::default()
    };
    assert_eq!(
        refused(&gradients, &[], momentum),
        "fused_sgd: 4 parameters but 0 momentum_buffers"
    );
    assert_eq!(
        refused(&gradients[1..], &zeros(), momentum),
        "fused_sgd: 4 parameters but 3 gradients"
    );
    let nesterov = Sgd {
        nesterov: true,
        ..Sgd::default()
    };
    assert!(refused(&gradients, &[], nesterov).contains("give a momentum"));
    let strided = copies(&gradients);
    kernels::channels_last(&strided).unwrap();
    assert!(
        refused(&strided, &zeros(), momentum)
            .starts_with("fused_sgd: a gradient or moment of parameter 0 differs")
    );
    assert!(
        refused(&gradients, &strided, momentum)
            .starts_with("fused_sgd: a gradient or moment of parameter 0 differs")
    );
    let mut mixed = copies(&parameters);
    mixed[2] = mixed[2].to_kind(Kind::Double);
    let error = kernels::fused_sgd(&mixed, &copies(&mixed), &[], &Sgd::default(), true);
    assert!(
        error
            .unwrap_err()
            .to_string()
            .starts_with("fused_sgd: parameter 2 is Double but the first is Float")
    );
}

/// timm 1.0.31 with torch 2.11.0:
///
/// ```python
/// p = [(torch.arange(6.) / 5 - 0.4).reshape(2, 3), torch.zeros(3)]
/// optimizer = timm.optim.Lamb(p, lr=0.1, betas=(0.8, 0.95), eps=1e-6, weight_decay=weight_decay,
///                             max_grad_norm=None, always_adapt=always_adapt)
/// for t in range(3):
///     for i, x in enumerate(p):
///         x.grad = torch.sin(torch.arange(float(x.numel())) * 1.7 + t + i).reshape(x.shape)
///     optimizer.step()
/// print(torch.cat([x.flatten() for x in p]).tolist())
/// ```
#[test]
fn lamb_makes_timms_numbers() {
    let decayed = [
        -0.473_304,
        -0.286_587_18,
        0.125_447_02,
        0.268_131_58,
        0.266_468_82,
        0.543_920_64,
        -0.124_313_33,
        -0.086_977_98,
        0.121_677_67,
    ];
    let plain = [
        -0.567_030_37,
        -0.416_304_44,
        0.286_596_72,
        0.378_323_32,
        0.106_693_99,
        0.469_576_45,
        -0.281_295_36,
        -0.011_818_24,
        0.263_598_41,
    ];
    let adapted = [
        -0.478_626_28,
        -0.290_300_1,
        0.126_389_03,
        0.271_861_46,
        0.270_766_2,
        0.550_725_4,
        -0.124_426_45,
        -0.087_330_98,
        0.121_806_59,
    ];
    for (weight_decay, always_adapt, expected) in [
        (0.1, false, decayed),
        (0.0, false, plain),
        (0.0, true, adapted),
    ] {
        let settings = Lamb {
            lr: 0.1,
            beta1: 0.8,
            beta2: 0.95,
            eps: 1e-6,
            weight_decay,
            always_adapt,
        };
        let parameters = [
            (Tensor::arange(6, F32) / 5.0 - 0.4).reshape([2, 3]),
            Tensor::zeros([3], F32),
        ];
        let like = || -> Vec<Tensor> { parameters.iter().map(Tensor::zeros_like).collect() };
        let (exp_avg, exp_avg_sq) = (like(), like());
        let steps = [Tensor::from(0.0f32), Tensor::from(0.0f32)];
        for t in 0..3 {
            let gradients: Vec<Tensor> = parameters
                .iter()
                .zip(0..)
                .map(|(p, i)| {
                    let angle = Tensor::arange(p.numel() as i64, F32) * 1.7 + f64::from(t + i);
                    angle.sin().reshape(p.size())
                })
                .collect();
            kernels::lamb(
                &parameters,
                &gradients,
                &exp_avg,
                &exp_avg_sq,
                &steps,
                &settings,
            )
            .unwrap();
        }
        let ours = Tensor::cat(&parameters.map(|p| p.flatten(0, -1)), 0);
        let theirs = Tensor::from_slice(&expected);
        let difference = (&ours - theirs).abs().max().double_value(&[]);
        assert!(difference < 1e-6, "{settings:?}: {difference}, {ours}");
        assert!(steps.iter().all(|step| step.double_value(&[]) == 3.0));
    }
}

#[test]
fn lamb_counts_the_steps_of_each_parameter() {
    // One that is new and one that was updated 99 times before, in one call and in several.
    let gradients = random(2, 0.5);
    let update = |at_once: usize| {
        let (parameters, exp_avg, exp_avg_sq) = (random(1, 1.0), random(3, 0.1), random(4, 0.1));
        let exp_avg_sq: Vec<Tensor> = exp_avg_sq.iter().map(Tensor::square).collect();
        let steps = [0.0f32, 99.0, 0.0, 99.0].map(Tensor::from);
        for start in (0..parameters.len()).step_by(at_once) {
            let range = start..start + at_once;
            kernels::lamb(
                &parameters[range.clone()],
                &gradients[range.clone()],
                &exp_avg[range.clone()],
                &exp_avg_sq[range.clone()],
                &steps[range],
                &Lamb::default(),
            )
            .unwrap();
        }
        parameters
    };
    let (together, apart) = (update(4), update(1));
    assert!(together.iter().zip(&apart).all(|(a, b)| a.equal(b)));
    assert!(
        together
            .iter()
            .zip(random(1, 1.0))
            .all(|(a, b)| !a.equal(&b))
    );
}

#[test]
fn lamb_refuses_what_does_not_fit() {
    let (parameters, gradients) = (random(1, 1.0), random(2, 1.0));
    let refused = |gradients: &[Tensor], steps: &[Tensor]| {
        kernels::lamb(
            &parameters,
            gradients,
            &zeros(),
            &zeros(),
            steps,
            &Lamb::default(),
        )
        .unwrap_err()
        .to_string()
    };
    assert_eq!(
        refused(&gradients, &steps()[1..]),
        "lamb: 4 parameters but 3 steps"
    );
    let whole: Vec<Tensor> = SHAPES.iter().map(|_| Tensor::from(0i64)).collect();
    assert_eq!(
        refused(&gradients, &whole),
        "lamb: the step of parameter 0 must be one f32"
    );
    let reshaped: Vec<Tensor> = gradients.iter().map(|g| g.flatten(0, -1)).collect();
    assert!(
        refused(&reshaped, &steps())
            .starts_with("lamb: a gradient or moment of parameter 0 differs")
    );
}

fn norm(tensors: &[Tensor]) -> f64 {
    let squares = tensors.iter().map(|t| {
        t.to_kind(Kind::Double)
            .square()
            .sum(Kind::Double)
            .double_value(&[])
    });
    squares.sum::<f64>().sqrt()
}

#[test]
fn clipping_scales_to_the_norm_and_returns_the_old_one() {
    let gradients = random(3, 2.0);
    let before = copies(&gradients);
    let expected = norm(&gradients);
    assert!(
        (kernels::grad_norm(&gradients).unwrap().double_value(&[]) / expected - 1.0).abs() < 1e-6
    );
    let total = kernels::clip_grad_norm(&gradients, 1.5).unwrap();
    assert!((total / expected - 1.0).abs() < 1e-6);
    assert!((norm(&gradients) - 1.5).abs() < 1e-5);
    for (after, before) in gradients.iter().zip(&before) {
        assert!(
            (after - before * (1.5 / (expected + 1e-6)))
                .abs()
                .max()
                .double_value(&[])
                < 1e-6
        );
    }
}

#[test]
fn clipping_leaves_small_gradients_alone() {
    let gradients = random(3, 1e-3);
    let before = copies(&gradients);
    kernels::clip_grad_norm(&gradients, 10.0).unwrap();
    assert!(gradients.iter().zip(&before).all(|(a, b)| a.equal(b)));
}

#[test]
fn clipping_reports_a_norm_that_is_not_finite() {
    let gradients = random(3, 1.0);
    _ = gradients[2].shallow_clone().fill_(f64::INFINITY);
    assert!(
        kernels::clip_grad_norm(&gradients, 1.0)
            .unwrap()
            .is_infinite()
    );
    for wrong in [0.0, -1.0, f64::NAN] {
        assert!(
            kernels::clip_grad_norm(&gradients, wrong)
                .unwrap_err()
                .to_string()
                .contains("give a positive number")
        );
    }
    assert!(kernels::clip_grad_norm(&[], 1.0).is_err() && kernels::grad_norm(&[]).is_err());
}

#[test]
fn foreach_mul_scales_in_place() {
    let tensors = random(4, 1.0);
    let before = copies(&tensors);
    kernels::foreach_mul_(&tensors, 0.25).unwrap();
    assert!(
        tensors
            .iter()
            .zip(&before)
            .all(|(a, b)| a.equal(&(b * 0.25)))
    );
    kernels::foreach_mul_(&[], 0.25).unwrap();
}

#[test]
fn gradients_are_found_and_zeroed() {
    let used = Tensor::ones([3], F32).set_requires_grad(true);
    let unused = Tensor::ones([3], F32).set_requires_grad(true);
    let parameters = [used.shallow_clone(), unused];
    assert!(
        kernels::grads(&parameters)
            .unwrap_err()
            .to_string()
            .contains("parameter 0 has no gradient")
    );
    collective::backward(&(&used * 3.0).sum(Kind::Float)).unwrap();
    assert!(
        kernels::grads(&parameters)
            .unwrap_err()
            .to_string()
            .contains("parameter 1 has no gradient")
    );
    let gradient = kernels::grads(&parameters[..1]).unwrap().remove(0);
    assert_eq!(gradient, Tensor::from_slice(&[3.0f32; 3]));
    kernels::zero_grad(&parameters).unwrap();
    // The same memory as the parameter's own gradient.
    assert_eq!(gradient, Tensor::zeros([3], F32));
    assert_eq!(used.grad(), gradient);
}

#[test]
fn gradients_are_taken_off() {
    let parameter = Tensor::ones([3], F32).set_requires_grad(true);
    let parameters = [parameter.shallow_clone(), Tensor::ones([2], F32)];
    for _ in 0..2 {
        collective::backward(&(&parameter * 3.0).sum(Kind::Float)).unwrap();
        assert_eq!(parameter.grad(), Tensor::from_slice(&[3.0f32; 3]));
        kernels::free_grad(&parameters).unwrap();
        assert!(!parameter.grad().defined());
    }
}

#[test]
fn maps_move_to_channels_last_and_gradients_flow_back() {
    let map = random(5, 1.0).remove(0).set_requires_grad(true);
    assert!(!kernels::is_channels_last(&map).unwrap());
    let moved = kernels::to_channels_last(&map).unwrap();
    assert!(kernels::is_channels_last(&moved).unwrap() && moved.equal(&map));
    assert_eq!(moved.stride(), [72, 1, 24, 8]);
    collective::backward(&(&moved * 2.0).sum(Kind::Float)).unwrap();
    assert_eq!(map.grad(), Tensor::full([16, 8, 3, 3], 2.0, F32));
    // Nothing to move: the same memory.
    for still in [&moved, &random(5, 1.0)[2]] {
        assert_eq!(
            kernels::to_channels_last(still).unwrap().data_ptr(),
            still.data_ptr()
        );
    }
    assert!(!kernels::is_channels_last(&Tensor::ones([7, 33], F32)).unwrap());
}

#[test]
fn channels_last_keeps_the_parameter_and_its_values() {
    let kernel = random(5, 1.0).remove(0).set_requires_grad(true);
    let (values, linear) = (kernel.detach().copy(), Tensor::ones([7, 33], F32));
    kernels::channels_last(&[kernel.shallow_clone(), linear.shallow_clone()]).unwrap();
    assert_eq!(kernel.stride(), [72, 1, 24, 8]);
    assert!(kernel.equal(&values) && kernel.requires_grad() && kernel.is_leaf());
    assert_eq!(linear.stride(), [33, 1]);
}

#[test]
fn the_loss_scale_backs_off_and_grows() {
    let growth = ScaleGrowth {
        interval: 2,
        ..Default::default()
    };
    let scale = Tensor::from_slice(&[1024.0f32]);
    let tracker = Tensor::from_slice(&[0i32]);
    let mut seen = Vec::new();
    for overflow in [false, true, false, false, false] {
        let gradients = random(6, 1.0);
        let before = copies(&gradients);
        kernels::foreach_mul_(&gradients, scale.double_value(&[0])).unwrap();
        if overflow {
            _ = gradients[1].shallow_clone().fill_(f64::NAN);
        }
        let found_inf = Tensor::zeros([1], F32);
        kernels::amp_unscale(&gradients, &found_inf, &scale.reciprocal()).unwrap();
        assert_eq!(found_inf.double_value(&[0]) != 0.0, overflow);
        // The scales are powers of two, so unscaling is exact.
        assert!(gradients[0].equal(&before[0]));
        kernels::amp_update_scale(&scale, &tracker, &found_inf, &growth).unwrap();
        seen.push(scale.double_value(&[0]));
    }
    assert_eq!(seen, [1024.0, 512.0, 512.0, 1024.0, 1024.0]);
}
