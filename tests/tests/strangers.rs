//! What another user of the same machine can do to a run: look for its doors, and knock at those of its ranks.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use spinectl_tests::{Launch, assert_same, kill, launch_arguments, phantom, processes, ranks};

/// Of the user `nobody`, who exists on every Linux.
const NOBODY: u32 = 65534;

/// Descriptors of a process that are sockets, by inode.
fn sockets(pid: i32) -> Vec<String> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    let links = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links
        .filter_map(|link| {
            let inode = link.to_str()?.strip_prefix("socket:[")?;
            Some(inode.trim_end_matches(']').to_owned())
        })
        .collect()
}

/// Where a process listens: the addresses as /proc/net/tcp and tcp6 have them.
fn listens(pid: i32) -> Vec<String> {
    let own = sockets(pid);
    let mut found = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        for line in text.lines().skip(1) {
            let columns: Vec<&str> = line.split_whitespace().collect();
            if columns[3] == "0A" && own.iter().any(|inode| inode == columns[9]) {
                found.push(columns[1].to_owned());
            }
        }
    }
    found
}

/// The port of an address of IPv4 loopback.
fn port(address: &str) -> Option<u16> {
    let port = address.strip_prefix("0100007F:")?;
    u16::from_str_radix(port, 16).ok()
}

fn long_run(data: &Path, run: &Path) -> Launch {
    let sets = ["--stages=1a", "--set=stage1a.training.epochs=10000"];
    Launch::start(&launch_arguments(data, run, 2, &sets), run)
}

#[test]
fn the_place_where_ranks_meet_is_open_to_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let data = phantom(folder.path());
    let run = folder.path().join("run");
    let mut launch = long_run(&data, &run);
    launch.wait_for(&["\"event\":\"step\""]);

    for pid in processes(&run) {
        for address in listens(pid) {
            assert!(port(&address).is_some(), "{pid} listens at {address}");
        }
    }
    assert!(listens(launch.pid()).is_empty());

    for pid in ranks(&run) {
        let folder = format!("/proc/{pid}/fd");
        let entries = fs::read_dir(&folder).unwrap();
        let meeting = entries
            .map(|entry| entry.unwrap().path())
            .find(|path| {
                fs::read_link(path)
                    .is_ok_and(|to| to.display().to_string().contains("spinectl-rendezvous"))
            })
            .expect("the file in which ranks meet");
        assert!(
            fs::metadata(&meeting).unwrap().len() > 0,
            "nobody met there"
        );
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o077, 0);
        // Only root can try it as another user.
        // SAFETY: a plain system call.
        if unsafe { libc::geteuid() } == 0 {
            let tried = Command::new("cat")
                .arg(&meeting)
                .uid(NOBODY)
                .gid(NOBODY)
                .stdin(Stdio::null())
                .output()
                .unwrap();
            assert!(
                !tried.status.success() && tried.stdout.is_empty(),
                "{tried:?}"
            );
        }
    }
    kill(launch.pid(), libc::SIGTERM);
    assert_eq!(launch.finish(), Some(75), "{}", launch.log());
}

/// Also when the test fails: its threads must end.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn who_knocks_at_the_ranks_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = phantom(folder.path());
    let run = |name: &str| folder.path().join(name);
    let sets = ["--stages=1a"];
    let quiet = run("quiet");
    let mut launch = Launch::start(&launch_arguments(&data, &quiet, 2, &sets), &quiet);
    assert_eq!(launch.finish(), Some(0), "{}", launch.log());

    let disturbed = run("disturbed");
    let over = AtomicBool::new(false);
    let knocks = AtomicUsize::new(0);
    let mut launch = Launch::start(&launch_arguments(&data, &disturbed, 2, &sets), &disturbed);
    let code = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut held = Vec::new();
            while !over.load(Ordering::Relaxed) {
                for port in ranks(&disturbed)
                    .into_iter()
                    .flat_map(listens)
                    .filter_map(|at| port(&at))
                {
                    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                    // Gloo's pairs tell each other a small number first: all that are likely, then nothing more.
                    for guess in 0..8_u64 {
                        if let Ok(mut stranger) =
                            TcpStream::connect_timeout(&at, Duration::from_millis(100))
                        {
                            let _ = stranger.write_all(&guess.to_ne_bytes());
                            knocks.fetch_add(1, Ordering::Relaxed);
                            held.push(stranger);
                        }
                    }
                }
                held.truncate(64);
            }
        });
        let _over = SetOnDrop(&over);
        launch.finish()
    });
    assert!(knocks.into_inner() > 0, "nobody listened");
    assert_eq!(code, Some(0), "{}", launch.log());
    assert_same(&disturbed, &quiet);
}
