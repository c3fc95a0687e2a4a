//! Collectives between real processes.

mod ranks;

use std::time::Duration;

use collective::{Backend, CollectiveError, ProcessGroup, ReduceOp, Rendezvous, Store};
use ranks::gloo;
use tch::{Device, Kind, Tensor};

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).contiguous().view(-1)).unwrap()
}

#[test]
fn all_reduce_makes_sum_mean_minimum_and_maximum() {
    ranks::run(
        "all_reduce_makes_sum_mean_minimum_and_maximum",
        2,
        |rendezvous| {
            let (_store, group) = gloo(&rendezvous);
            let own = if group.rank() == 0 {
                [1.0f32, -2.0]
            } else {
                [3.0, 6.0]
            };
            for (op, expected) in [
                (ReduceOp::Sum, [4.0, 4.0]),
                (ReduceOp::Mean, [2.0, 2.0]),
                (ReduceOp::Min, [1.0, -2.0]),
                (ReduceOp::Max, [3.0, 6.0]),
            ] {
                let tensor = Tensor::from_slice(&own);
                group.all_reduce(&tensor, op).unwrap();
                assert_eq!(values(&tensor), expected, "{op:?}");
            }
            assert_eq!(group.sequence(), 4);
        },
    );
}

#[test]
fn strides_may_differ_between_ranks() {
    ranks::run("strides_may_differ_between_ranks", 2, |rendezvous| {
        let (_store, group) = gloo(&rendezvous);
        let rows = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([3, 2]);
        let tensor = if group.rank() == 0 {
            rows
        } else {
            let columns = rows.tr().contiguous().tr();
            assert!(!columns.is_contiguous());
            columns
        };
        group.all_reduce(&tensor, ReduceOp::Sum).unwrap();
        assert_eq!(values(&tensor), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
    });
}

#[test]
fn broadcast_gives_every_rank_the_roots_tensors() {
    ranks::run(
        "broadcast_gives_every_rank_the_roots_tensors",
        2,
        |rendezvous| {
            let (_store, group) = gloo(&rendezvous);
            let rank = group.rank() as i64;
            let parameter =
                (Tensor::ones([2, 2], (Kind::Float, Device::Cpu)) * rank).set_requires_grad(true);
            let steps = Tensor::from_slice(&[rank + 10]);
            group.broadcast(&parameter, 1).unwrap();
            assert_eq!(values(&parameter), [1.0; 4]);
            assert!(parameter.requires_grad() && parameter.is_leaf());
            group.broadcast_all(&[&parameter, &steps], 0).unwrap();
            assert_eq!(values(&steps), [10.0]);
            let outside = group.broadcast(&steps, 2).unwrap_err();
            assert_eq!(
                outside.to_string(),
                format!("rank {rank}: broadcast: root 2 is outside a world of 2 ranks")
            );
        },
    );
}

#[test]
fn gathering_keeps_the_order_of_ranks() {
    ranks::run("gathering_keeps_the_order_of_ranks", 3, |rendezvous| {
        let (_store, group) = gloo(&rendezvous);
        let own = Tensor::from_slice(&[group.rank() as i64, 7]);
        let everywhere: Vec<_> = group.all_gather(&own).unwrap().iter().map(values).collect();
        assert_eq!(everywhere, [[0.0, 7.0], [1.0, 7.0], [2.0, 7.0]]);
        let at_root = group.gather(&own, 1).unwrap();
        assert_eq!(at_root.is_some(), group.rank() == 1);
        if let Some(list) = at_root {
            assert_eq!(list.iter().map(values).collect::<Vec<_>>(), everywhere);
        }
        group.barrier().unwrap();
    });
}

#[test]
fn a_group_can_be_built_anew_over_the_same_store() {
    ranks::run(
        "a_group_can_be_built_anew_over_the_same_store",
        2,
        |rendezvous| {
            let store = Store::connect(&rendezvous).unwrap();
            for round in 1..=3 {
                let group =
                    ProcessGroup::new(&store, Backend::Gloo, "test", rendezvous.timeout).unwrap();
                let tensor = Tensor::from_slice(&[round as f32]);
                group.all_reduce(&tensor, ReduceOp::Sum).unwrap();
                assert_eq!(values(&tensor), [2.0 * f64::from(round)]);
                assert_eq!(group.sequence(), 1);
            }
        },
    );
}

fn alone() -> Rendezvous {
    Rendezvous::alone(Duration::from_secs(20))
}

#[test]
fn a_world_of_one_needs_no_port() {
    let rendezvous = alone();
    let (store, group) = gloo(&rendezvous);
    store.set("key", b"value").unwrap();
    assert_eq!(store.get("key").unwrap(), b"value");
    let tensor = Tensor::from_slice(&[2.5f32, 4.0]);
    for op in [ReduceOp::Sum, ReduceOp::Mean, ReduceOp::Min, ReduceOp::Max] {
        group.all_reduce(&tensor, op).unwrap();
    }
    group.broadcast(&tensor, 0).unwrap();
    group.barrier().unwrap();
    assert_eq!(
        group.all_gather(&tensor).unwrap(),
        std::slice::from_ref(&tensor)
    );
    assert_eq!(
        group.gather(&tensor, 0).unwrap().unwrap(),
        std::slice::from_ref(&tensor)
    );
    assert_eq!(values(&tensor), [2.5, 4.0]);
}

#[test]
fn tensors_that_cannot_be_reduced_are_refused() {
    let (_store, group) = gloo(&alone());
    let error = group
        .all_reduce(&Tensor::from_slice(&[1i64]), ReduceOp::Mean)
        .unwrap_err();
    assert!(
        error.to_string().starts_with("rank 0: all_reduce #1: "),
        "{error}"
    );
    let error = group.all_reduce(&Tensor::new(), ReduceOp::Sum).unwrap_err();
    assert!(matches!(error, CollectiveError::Torch { .. }), "{error:?}");
}

#[test]
fn nccl_says_what_is_missing_where_it_cannot_run() {
    let (store, _group) = gloo(&alone());
    if let Err(error) = ProcessGroup::new(&store, Backend::Nccl, "gpu", Duration::from_secs(2)) {
        let text = error.to_string();
        assert!(
            text.contains("libtorch_cuda.so") || text.contains("nccl") || text.contains("NCCL"),
            "{text}"
        );
        assert_eq!(
            collective::cuda::load().is_err(),
            text.starts_with("libtorch_cuda.so"),
            "{text}"
        );
    }
}

#[test]
fn a_device_that_is_not_there_is_refused() {
    let refused = |index| collective::cuda::set_device(index).unwrap_err();
    if collective::cuda::load().is_err() {
        assert!(matches!(refused(0), CollectiveError::Library { .. }));
        return;
    }
    let found = tch::Cuda::device_count() as usize;
    for index in [found, found + 1, 300] {
        let error = refused(index).to_string();
        let start = format!("there is no CUDA device {index}: libtorch sees {found};");
        assert!(error.starts_with(&start), "{error}");
    }
    (0..found).for_each(|index| collective::cuda::set_device(index).unwrap());
}
