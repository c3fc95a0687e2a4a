//! Modules recorded from Rust.

use collective::{CollectiveError, tracing};
use tch::{CModule, Device, IValue, Kind, Tensor};

fn numbers(seed: i64) -> Tensor {
    tch::manual_seed(seed);
    Tensor::randn([2, 3], (Kind::Float, Device::Cpu))
}

#[test]
fn several_outputs_are_a_tuple_and_stay_one_in_a_file() {
    let weight = numbers(1);
    let inputs = [("left", numbers(2)), ("right", numbers(3))];
    let module =
        tracing::trace::<CollectiveError>(&inputs, |x| Ok(vec![&x[0] * &weight, &x[0] - &x[1]]))
            .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.pt");
    module.save(&path).unwrap();

    let loaded = CModule::load(&path).unwrap();
    let (left, right) = (numbers(4), numbers(5));
    let given = [left.shallow_clone(), right.shallow_clone()].map(IValue::Tensor);
    let IValue::Tuple(outputs) = loaded.forward_is(&given).unwrap() else {
        panic!("no tuple");
    };
    let expected = [&left * &weight, &left - &right].map(IValue::Tensor);
    assert_eq!(outputs, expected);
}

#[test]
fn one_output_is_a_tensor() {
    let inputs = [("x", numbers(1))];
    let module = tracing::trace::<CollectiveError>(&inputs, |x| Ok(vec![x[0].relu()])).unwrap();
    let other = numbers(2);
    assert_eq!(module.forward_ts(&[&other]).unwrap(), other.relu());
}

#[test]
fn what_goes_wrong_is_told_and_the_next_trace_works() {
    let inputs = [("x", numbers(1))];
    let failing = |_: &[Tensor]| {
        Err(CollectiveError::Invalid {
            operation: "body".into(),
            reason: "no".into(),
        })
    };
    let told = tracing::trace(&inputs, failing).unwrap_err().to_string();
    assert_eq!(told, "body: no");
    let none = tracing::trace::<CollectiveError>(&inputs, |_| Ok(Vec::new()));
    assert!(none.unwrap_err().to_string().contains("returns nothing"));
    let name = [("no name", numbers(1))];
    let wrong = tracing::trace::<CollectiveError>(&name, |x| Ok(vec![x[0].relu()]));
    assert!(wrong.unwrap_err().to_string().contains("`no name`"));
    assert!(tracing::trace::<CollectiveError>(&inputs, |x| Ok(vec![x[0].relu()])).is_ok());
}
