//! Runs a test's body in several real processes: the test starts its own binary once for each rank and waits for them.

use std::env;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use collective::{Backend, Place, ProcessGroup, Rendezvous, Store};

/// A test that hangs is ended after this; none of them needs a tenth of it.
const DEADLINE: Duration = Duration::from_secs(120);

/// In the processes it starts, runs `body` and returns None. In the test itself, returns how each rank ended.
pub fn start(
    test: &str,
    world_size: usize,
    body: impl FnOnce(Rendezvous),
) -> Option<Vec<ExitStatus>> {
    let number = |name: &str| {
        env::var(name)
            .ok()
            .map(|value| value.parse::<i32>().unwrap())
    };
    if let Some(rank) = number("SPINECTL_TEST_RANK") {
        tch::set_num_threads(1);
        body(Rendezvous {
            rank: rank as usize,
            world_size,
            place: Place::File(number("SPINECTL_TEST_FD").unwrap()),
            timeout: Duration::from_secs(20),
        });
        return None;
    }
    let meeting = tempfile::tempfile().unwrap();
    let mut ranks: Vec<Child> = (0..world_size)
        .map(|rank| spawn(test, rank, &meeting))
        .collect();
    let deadline = Instant::now() + DEADLINE;
    while ranks
        .iter_mut()
        .any(|rank| rank.try_wait().unwrap().is_none())
    {
        if Instant::now() > deadline {
            ranks.iter_mut().for_each(|rank| rank.kill().unwrap());
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let ended = ranks.into_iter().enumerate().map(|(rank, mut child)| {
        let mut log = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut log)
            .unwrap();
        eprintln!("--- rank {rank} ---\n{log}");
        child.wait().unwrap()
    });
    Some(ended.collect())
}

/// [`start`], where every rank is to end well.
pub fn run(test: &str, world_size: usize, body: impl FnOnce(Rendezvous)) {
    if let Some(ended) = start(test, world_size, body) {
        assert!(ended.iter().all(ExitStatus::success), "{ended:?}");
    }
}

fn spawn(test: &str, rank: usize, meeting: &File) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    let fd = meeting.as_raw_fd();
    command
        .env("SPINECTL_TEST_RANK", rank.to_string())
        .env("SPINECTL_TEST_FD", fd.to_string());
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    // SAFETY: both calls are safe between fork and exec.
    unsafe {
        command.pre_exec(move || {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::fcntl(fd, libc::F_SETFD, 0);
            Ok(())
        });
    }
    command.spawn().unwrap()
}

/// A store and a Gloo group over it.
pub fn gloo(rendezvous: &Rendezvous) -> (Store, ProcessGroup) {
    let store = Store::connect(rendezvous).unwrap();
    let group = ProcessGroup::new(&store, Backend::Gloo, "test", rendezvous.timeout).unwrap();
    (store, group)
}
