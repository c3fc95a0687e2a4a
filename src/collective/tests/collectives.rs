//! Rendezvous and collectives between real processes.

mod ranks;

use std::fs;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, IntoRawFd};
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
fn the_store_shares_values_and_counts() {
    ranks::run("the_store_shares_values_and_counts", 2, |rendezvous| {
        let store = Store::connect(&rendezvous).unwrap();
        let key = |rank: usize| format!("from/{rank}");
        store
            .set(&key(store.rank()), &[store.rank() as u8, 0, 255])
            .unwrap();
        let other = 1 - store.rank();
        assert_eq!(store.get(&key(other)).unwrap(), [other as u8, 0, 255]);
        store.set(&format!("empty/{}", store.rank()), &[]).unwrap();
        assert!(store.get(&format!("empty/{other}")).unwrap().is_empty());
        assert!((1..=2).contains(&store.add("count", 1).unwrap()));
        store
            .set(&format!("counted/{}", store.rank()), b"yes")
            .unwrap();
        store.get(&format!("counted/{other}")).unwrap();
        assert_eq!(store.add("count", 0).unwrap(), 2);
        // Rank 0 serves the store, so it leaves last.
        store
            .set(&format!("done/{}", store.rank()), b"yes")
            .unwrap();
        if store.rank() == 0 {
            store.get("done/1").unwrap();
        }
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

#[test]
fn ranks_meet_over_a_store_that_is_served_elsewhere() {
    ranks::run(
        "ranks_meet_over_a_store_that_is_served_elsewhere",
        2,
        |rendezvous| {
            let served = (rendezvous.rank == 0).then(|| {
                Store::connect(&Rendezvous {
                    world_size: 1,
                    ..rendezvous.clone()
                })
                .unwrap()
            });
            let client = Rendezvous {
                listen_fd: None,
                ..rendezvous
            };
            let store = Store::join(&client, "attempt/1").unwrap();
            let group = ProcessGroup::new(&store, Backend::Gloo, "test", client.timeout).unwrap();
            group.barrier().unwrap();
            drop((group, store, served));
        },
    );
}

/// The local addresses of this process' listening sockets, from /proc/self/net/tcp: hexadecimal, in memory order.
fn listening_addresses() -> Vec<String> {
    let inodes: Vec<String> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter_map(|link| {
            Some(
                link.to_str()?
                    .strip_prefix("socket:[")?
                    .trim_end_matches(']')
                    .to_owned(),
            )
        })
        .collect();
    let mut addresses = Vec::new();
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        for line in fs::read_to_string(table)
            .unwrap_or_default()
            .lines()
            .skip(1)
        {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let (address, state, inode) = (columns[1], columns[3], columns[9]);
            if state == "0A" && inodes.iter().any(|own| own == inode) {
                addresses.push(address.split(':').next().unwrap().to_owned());
            }
        }
    }
    addresses
}

#[test]
fn nothing_listens_beyond_loopback_on_one_machine() {
    ranks::run(
        "nothing_listens_beyond_loopback_on_one_machine",
        2,
        |rendezvous| {
            let (_store, group) = gloo(&rendezvous);
            let listening = listening_addresses();
            assert!(!listening.is_empty());
            assert!(
                listening.iter().all(|address| address == "0100007F"),
                "{listening:?}"
            );
            group.barrier().unwrap();
        },
    );
}

#[test]
fn rank_0_binds_the_master_address_when_it_inherits_no_socket() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let rendezvous = move |rank| Rendezvous {
        master_port: port,
        ..world_of_two(rank)
    };
    let client = std::thread::spawn(move || Store::connect(&rendezvous(1)).unwrap());
    let server = Store::connect(&rendezvous(0)).unwrap();
    client.join().unwrap().set("key", b"value").unwrap();
    assert_eq!(server.get("key").unwrap(), b"value");
    assert_eq!(listening_addresses(), ["0100007F"]);
}

fn world_of_two(rank: usize) -> Rendezvous {
    Rendezvous {
        rank,
        world_size: 2,
        master_addr: "127.0.0.1".to_owned(),
        master_port: 29500,
        listen_fd: None,
        timeout: Duration::from_secs(20),
    }
}

#[test]
fn a_world_of_one_needs_no_port() {
    let rendezvous = Rendezvous {
        world_size: 1,
        master_port: 0,
        ..world_of_two(0)
    };
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
    let (_store, group) = gloo(&Rendezvous {
        world_size: 1,
        ..world_of_two(0)
    });
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
fn wrong_use_is_refused_before_anything_is_sent() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let unconnected = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let cases = [
        (
            Rendezvous {
                rank: 2,
                ..world_of_two(2)
            },
            "rank 2 is outside a world of 2 ranks",
        ),
        (
            Rendezvous {
                world_size: 0,
                ..world_of_two(0)
            },
            "a world of 0 ranks; WORLD_SIZE is at least 1",
        ),
        (
            Rendezvous {
                timeout: Duration::ZERO,
                ..world_of_two(0)
            },
            "a timeout of 0ns; give at least a millisecond",
        ),
        (
            Rendezvous {
                master_port: 0,
                ..world_of_two(1)
            },
            "MASTER_PORT is 0, where nobody can be found",
        ),
        (
            Rendezvous {
                listen_fd: Some(closed.as_raw_fd()),
                ..world_of_two(1)
            },
            "rank 1 was given a listening socket, but rank 0 serves",
        ),
        (
            Rendezvous {
                listen_fd: Some(closed.as_raw_fd()),
                master_port: 1,
                ..world_of_two(0)
            },
            "but MASTER_PORT is 1",
        ),
        (
            Rendezvous {
                listen_fd: Some(unconnected.as_raw_fd()),
                ..world_of_two(0)
            },
            "it does not listen",
        ),
        (
            Rendezvous {
                listen_fd: Some(-1),
                ..world_of_two(0)
            },
            "Bad file descriptor",
        ),
        (
            Rendezvous {
                master_addr: "a\0b".to_owned(),
                ..world_of_two(1)
            },
            "holds a zero byte",
        ),
    ];
    for (rendezvous, expected) in cases {
        let error = Store::connect(&rendezvous).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    // A socket that is refused stays the caller's.
    closed.local_addr().unwrap();
}

#[test]
fn a_rank_cannot_be_taken_twice() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let master_port = listener.local_addr().unwrap().port();
    let client = Rendezvous {
        master_port,
        ..world_of_two(1)
    };
    let server = Rendezvous {
        master_port,
        listen_fd: Some(listener.into_raw_fd()),
        ..world_of_two(0)
    };
    let first = std::thread::spawn({
        let client = client.clone();
        move || Store::connect(&client).unwrap()
    });
    let _server = Store::connect(&server).unwrap();
    let _first = first.join().unwrap();
    let error = Store::connect(&client).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("another process has arrived as rank 1"),
        "{error}"
    );
}

#[test]
fn nccl_says_what_is_missing_where_it_cannot_run() {
    let (store, _group) = gloo(&Rendezvous {
        world_size: 1,
        ..world_of_two(0)
    });
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
