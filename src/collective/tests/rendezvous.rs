//! How ranks meet: the store, its sockets, and what is refused.

mod ranks;

use std::fs;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::time::Duration;

use collective::{Backend, Place, ProcessGroup, Rendezvous, Store, Tcp};
use ranks::gloo;

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
    });
}

#[test]
fn ranks_meet_over_a_store_that_is_served_elsewhere() {
    let (server, port) = server(1);
    let _served = Store::connect(&server).unwrap();
    std::thread::scope(|scope| {
        for rank in 0..2 {
            scope.spawn(move || {
                let client = world_of_two(rank, port, None);
                let store = Store::join(&client, "attempt/1").unwrap();
                let group = ProcessGroup::new(&store, Backend::Gloo, "test", client.timeout);
                group.unwrap().barrier().unwrap();
            });
        }
    });
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
    let client = std::thread::spawn(move || Store::connect(&world_of_two(1, port, None)).unwrap());
    let server = Store::connect(&world_of_two(0, port, None)).unwrap();
    client.join().unwrap().set("key", b"value").unwrap();
    assert_eq!(server.get("key").unwrap(), b"value");
    assert_eq!(listening_addresses(), ["0100007F"]);
}

fn world_of_two(rank: usize, master_port: u16, listen_fd: Option<RawFd>) -> Rendezvous {
    Rendezvous {
        rank,
        world_size: 2,
        place: Place::Tcp(Tcp {
            master_addr: "127.0.0.1".to_owned(),
            master_port,
            listen_fd,
        }),
        timeout: Duration::from_secs(20),
    }
}

/// Rank 0 of a world of so many, with an open socket, and the socket's port.
fn server(world_size: usize) -> (Rendezvous, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = Rendezvous {
        world_size,
        ..world_of_two(0, port, Some(listener.into_raw_fd()))
    };
    (server, port)
}

#[test]
fn wrong_use_is_refused_before_anything_is_sent() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let unconnected = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let read_only = fs::File::open("/proc/self/exe").unwrap();
    let file = |fd: RawFd| Rendezvous {
        place: Place::File(fd),
        ..world_of_two(0, 29500, None)
    };
    let of_zero = Rendezvous {
        world_size: 0,
        ..world_of_two(0, 29500, None)
    };
    let no_time = Rendezvous {
        timeout: Duration::ZERO,
        ..world_of_two(0, 29500, None)
    };
    let mut no_text = world_of_two(1, 29500, None);
    if let Place::Tcp(tcp) = &mut no_text.place {
        tcp.master_addr = "a\0b".to_owned();
    }
    let listening = Some(closed.as_raw_fd());
    let cases = [
        (
            world_of_two(2, 29500, None),
            "rank 2 is outside a world of 2 ranks",
        ),
        (of_zero, "a world of 0 ranks; WORLD_SIZE is at least 1"),
        (no_time, "a timeout of 0ns; give at least a millisecond"),
        (
            world_of_two(1, 0, None),
            "MASTER_PORT is 0, where nobody can be found",
        ),
        (
            world_of_two(1, 29500, listening),
            "rank 1 was given a listening socket, but rank 0 serves",
        ),
        (world_of_two(0, 1, listening), "but MASTER_PORT is 1"),
        (
            world_of_two(0, 29500, Some(unconnected.as_raw_fd())),
            "it does not listen",
        ),
        (world_of_two(0, 29500, Some(-1)), "Bad file descriptor"),
        (no_text, "holds a zero byte"),
        (file(-1), "Bad file descriptor"),
        (file(closed.as_raw_fd()), "it is of another kind"),
        (
            file(read_only.as_raw_fd()),
            "it is not open for reading and writing",
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
    let (server, port) = server(2);
    let client = world_of_two(1, port, None);
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
