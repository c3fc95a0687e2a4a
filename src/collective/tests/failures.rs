//! What a rank hears when a peer is killed, stopped or never comes.

mod ranks;

use std::net::TcpListener;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use collective::{
    Backend, CollectiveError, Place, ProcessGroup, ReduceOp, Reducer, ReducerOptions, Rendezvous,
    Store, Tcp,
};
use ranks::gloo;
use tch::{Device, Kind, Tensor};

const SHORT: Duration = Duration::from_secs(2);

fn die(signal: i32) {
    // SAFETY: a signal to this process.
    unsafe { libc::raise(signal) };
}

fn ones() -> Tensor {
    Tensor::ones([1000], (Kind::Float, Device::Cpu))
}

#[test]
fn a_killed_peer_is_named() {
    let ended = ranks::start("a_killed_peer_is_named", 3, |rendezvous| {
        let (_store, group) = gloo(&rendezvous);
        group.all_reduce(&ones(), ReduceOp::Sum).unwrap();
        if group.rank() == 2 {
            die(libc::SIGKILL);
        }
        let error = group.all_reduce(&ones(), ReduceOp::Sum).unwrap_err();
        let CollectiveError::PeerLost {
            rank,
            operation,
            peer,
            ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!((*rank, operation.as_str()), (group.rank(), "all_reduce #2"));
        // The other survivor may close its connection first, on hearing of the death.
        assert!(
            matches!(peer.candidates.as_slice(), [one] if *one != group.rank()),
            "{error}"
        );
        assert!(peer.address.unwrap().ip().is_loopback(), "{error}");
        if group.rank() == 0 && peer.candidates == [2] {
            assert!(
                error
                    .to_string()
                    .starts_with("rank 0: all_reduce #2: the connection to rank 2 at 127.0.0.1:"),
                "{error}"
            );
        }
    });
    if let Some(ended) = ended {
        assert!(ended[0].success() && ended[1].success(), "{ended:?}");
        assert_eq!(ended[2].signal(), Some(libc::SIGKILL));
    }
}

#[test]
fn a_peer_killed_during_backward_is_named() {
    let ended = ranks::start("a_peer_killed_during_backward_is_named", 2, |rendezvous| {
        let (_store, group) = gloo(&rendezvous);
        let weight = ones().set_requires_grad(true);
        let reducer = Reducer::new(
            std::slice::from_ref(&weight),
            &group,
            ReducerOptions::default(),
        )
        .unwrap();
        reducer.prepare_for_forward().unwrap();
        let loss = weight.sum(Kind::Float);
        reducer
            .prepare_for_backward(std::slice::from_ref(&loss))
            .unwrap();
        if group.rank() == 1 {
            die(libc::SIGKILL);
        }
        let error = reducer.backward(&loss).unwrap_err();
        let CollectiveError::PeerLost {
            operation, peer, ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!(
            (operation.as_str(), peer.candidates.as_slice()),
            ("backward", [1].as_slice())
        );
        // A reducer that was cut off in the middle of a step is dropped here without ending the process.
    });
    if let Some(ended) = ended {
        assert!(ended[0].success(), "{ended:?}");
        assert_eq!(ended[1].signal(), Some(libc::SIGKILL));
    }
}

#[test]
fn a_stopped_peer_is_a_timeout() {
    let ended = ranks::start("a_stopped_peer_is_a_timeout", 2, |rendezvous| {
        let store = Store::connect(&rendezvous).unwrap();
        let group = ProcessGroup::new(&store, Backend::Gloo, "test", SHORT).unwrap();
        if group.rank() == 1 {
            store
                .set("pid", std::process::id().to_string().as_bytes())
                .unwrap();
            die(libc::SIGSTOP);
            return;
        }
        let pid: i32 = String::from_utf8(store.get("pid").unwrap())
            .unwrap()
            .parse()
            .unwrap();
        let outcome = group.all_reduce(&ones(), ReduceOp::Sum);
        // SAFETY: a signal to the other rank, which cannot end by itself.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        let error = outcome.unwrap_err();
        let CollectiveError::Timeout {
            rank: 0,
            operation,
            peer,
            timeout,
            ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!(
            (operation.as_str(), peer.candidates.as_slice(), *timeout),
            ("all_reduce #1", [1].as_slice(), SHORT)
        );
        assert!(
            error
                .to_string()
                .starts_with("rank 0: all_reduce #1: no answer from rank 1 within 2s ("),
            "{error}"
        );
    });
    if let Some(ended) = ended {
        assert!(ended[0].success(), "{ended:?}");
        assert_eq!(ended[1].signal(), Some(libc::SIGKILL));
    }
}

#[test]
fn a_rank_that_never_comes_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let master_port = listener.local_addr().unwrap().port();
    let tcp = |listen_fd| {
        Place::Tcp(Tcp {
            master_addr: "127.0.0.1".to_owned(),
            master_port,
            listen_fd,
        })
    };
    let file = tempfile::tempfile().unwrap();
    let places = [
        (tcp(Some(listener.into_raw_fd())), tcp(None)),
        (Place::File(file.as_raw_fd()), Place::File(file.as_raw_fd())),
    ];
    for (of_rank_0, of_rank_2) in places {
        let rendezvous = |rank, place| Rendezvous {
            rank,
            world_size: 4,
            place,
            timeout: SHORT,
        };
        // Rank 2 comes, and gives up or loses the store at about the time at which rank 0 gives up.
        let client = rendezvous(2, of_rank_2);
        let other = std::thread::spawn(move || Store::connect(&client).unwrap_err());
        let error = Store::connect(&rendezvous(0, of_rank_0)).unwrap_err();
        let CollectiveError::RanksMissing {
            rank: 0,
            missing,
            timeout,
            ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!((missing.as_slice(), *timeout), ([1, 3].as_slice(), SHORT));
        other.join().unwrap();
    }
}

#[test]
fn a_rank_0_that_never_comes_is_named() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let error = Store::connect(&Rendezvous {
        rank: 1,
        world_size: 2,
        place: Place::Tcp(Tcp {
            master_addr: "127.0.0.1".to_owned(),
            master_port: port,
            listen_fd: None,
        }),
        timeout: SHORT,
    })
    .unwrap_err();
    let CollectiveError::RanksMissing {
        rank: 1, missing, ..
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!(missing, &[0]);
}

#[test]
fn a_parameter_left_out_of_the_loss_is_named() {
    ranks::run(
        "a_parameter_left_out_of_the_loss_is_named",
        2,
        |rendezvous| {
            let (_store, group) = gloo(&rendezvous);
            let parameters: Vec<Tensor> = (0..3).map(|_| ones().set_requires_grad(true)).collect();
            let reducer = Reducer::new(&parameters, &group, ReducerOptions::default()).unwrap();
            reducer.prepare_for_forward().unwrap();
            let loss = (&parameters[0] + &parameters[2]).sum(Kind::Float);
            reducer.prepare_for_backward(&[]).unwrap();
            reducer.backward(&loss).unwrap();
            let error = reducer.check_finished().unwrap_err();
            let CollectiveError::UnusedParameters { rank, indices } = &error else {
                panic!("{error}")
            };
            assert_eq!((*rank, indices.as_slice()), (group.rank(), [1].as_slice()));
            assert!(reducer.prepare_for_forward().is_err());
        },
    );
}
