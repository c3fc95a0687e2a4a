//! Autocast regions on the CPU.

use std::panic::{AssertUnwindSafe, catch_unwind};

use collective::{CollectiveError, autocast};
use tch::{Device, Kind, Tensor};

const CPU: Device = Device::Cpu;

/// The type in which this thread multiplies matrices now.
fn product() -> Kind {
    let ones = Tensor::ones([2, 2], (Kind::Float, CPU));
    ones.matmul(&ones).kind()
}

fn inside<T>(kind: Option<Kind>, body: impl FnOnce() -> T) -> T {
    autocast::run(CPU, kind, || Ok::<T, CollectiveError>(body())).unwrap()
}

#[test]
fn regions_nest_and_are_left_as_they_were() {
    assert_eq!(product(), Kind::Float);
    inside(Some(Kind::BFloat16), || {
        assert_eq!(product(), Kind::BFloat16);
        inside(Some(Kind::Half), || {
            assert_eq!(product(), Kind::Half);
            inside(None, || assert_eq!(product(), Kind::Float));
            assert_eq!(product(), Kind::Half);
        });
        assert_eq!(product(), Kind::BFloat16);
        // What needs range stays in f32.
        let logits = Tensor::ones([3], (Kind::BFloat16, CPU));
        let loss = logits.binary_cross_entropy_with_logits::<Tensor>(
            &logits,
            None,
            None,
            tch::Reduction::Mean,
        );
        assert_eq!(loss.kind(), Kind::Float);
        // Another kind of device and another thread have their own.
        autocast::run(Device::Cuda(0), Some(Kind::Half), || {
            assert_eq!(product(), Kind::BFloat16);
            Ok::<(), CollectiveError>(())
        })
        .unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(product(), Kind::Float));
        });
    });
    assert_eq!(product(), Kind::Float);
}

#[test]
fn errors_and_panics_leave_the_region() {
    let failed = autocast::run(CPU, Some(Kind::BFloat16), || {
        assert_eq!(product(), Kind::BFloat16);
        Err::<(), _>(CollectiveError::Torch {
            operation: "forward".to_owned(),
            detail: "too large".to_owned(),
        })
    });
    assert_eq!(failed.unwrap_err().to_string(), "forward: too large");
    assert_eq!(product(), Kind::Float);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        inside(Some(Kind::BFloat16), || {
            inside(Some(Kind::Half), || panic!("in the middle"))
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(product(), Kind::Float);
}

#[test]
fn a_parameter_that_changed_is_cast_anew_in_the_next_region() {
    let weight = Tensor::ones([1, 1], (Kind::Float, CPU)).set_requires_grad(true);
    let one = Tensor::ones([1, 1], (Kind::Float, CPU));
    for value in [1.0, 2.0, 3.0] {
        tch::no_grad(|| _ = weight.shallow_clone().fill_(value));
        inside(Some(Kind::BFloat16), || {
            inside(Some(Kind::BFloat16), || {
                assert_eq!(one.matmul(&weight).double_value(&[0, 0]), value)
            })
        });
    }
}

#[test]
fn gradients_of_a_region_are_in_full_precision() {
    let weight = Tensor::ones([4, 4], (Kind::Float, CPU)).set_requires_grad(true);
    let x = Tensor::randn([3, 4], (Kind::Float, CPU));
    let loss = inside(Some(Kind::BFloat16), || {
        let y = x.matmul(&weight);
        assert_eq!(y.kind(), Kind::BFloat16);
        y.sum(Kind::Float)
    });
    collective::backward(&loss).unwrap();
    assert_eq!(weight.grad().kind(), Kind::Float);
    let expected = x.sum_dim_intlist([0i64].as_slice(), false, Kind::Float);
    let difference = (weight.grad().select(1, 0) - expected).abs().max();
    assert!(difference.double_value(&[]) < 0.05);
}

#[test]
fn other_kinds_and_devices_are_refused() {
    let refused = |device, kind| {
        let error = autocast::run(device, kind, || -> Result<(), CollectiveError> {
            panic!("the body does not run")
        });
        error.unwrap_err().to_string()
    };
    for kind in [Kind::Float, Kind::Double, Kind::Int64] {
        assert_eq!(
            refused(CPU, Some(kind)),
            format!("autocast: there is no autocast to {kind:?}; use BFloat16, Half or none")
        );
    }
    assert!(refused(Device::Mps, Some(Kind::Half)).contains("use CPU or CUDA"));
}
