//! The ranks of a launch, as processes to be killed.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A living rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    pub rank: usize,
    pid: i32,
    launcher: u32,
}

/// The ranks that live, in order: the launcher's children that it gave a rank.
pub fn of(launcher: u32) -> Vec<Rank> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let ranks = pids.filter_map(|pid: i32| {
        (parent(pid) == Some(launcher)).then_some(())?;
        let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let mut entries = environment.split(|byte| *byte == 0);
        let rank = entries.find_map(|entry| entry.strip_prefix(b"RANK="))?;
        let rank = std::str::from_utf8(rank).ok()?.parse().ok()?;
        Some(Rank {
            rank,
            pid,
            launcher,
        })
    });
    let mut ranks: Vec<Rank> = ranks.collect();
    ranks.sort_unstable();
    ranks
}

impl Rank {
    /// Sends SIGKILL to this process and to no other that may have its number by now; false where it is gone.
    pub fn kill(&self) -> io::Result<bool> {
        let gone = |error: io::Error| match error.raw_os_error() {
            Some(libc::ESRCH) => Ok(false),
            _ => Err(error),
        };
        // SAFETY: plain system calls on a number; the descriptor is owned from then on.
        let opened = unsafe {
            match libc::syscall(libc::SYS_pidfd_open, self.pid, 0) {
                -1 => Err(io::Error::last_os_error()),
                descriptor => Ok(OwnedFd::from_raw_fd(descriptor as RawFd)),
            }
        };
        let process = match opened {
            Ok(process) => process,
            Err(error) => return gone(error),
        };
        // Looked at only now: what is found belongs to the process that the descriptor stands for.
        if parent(self.pid) != Some(self.launcher) {
            return Ok(false);
        }
        // SAFETY: an open pidfd, and no siginfo.
        let sent = unsafe {
            let none = std::ptr::null::<libc::siginfo_t>();
            let process = process.as_raw_fd();
            libc::syscall(libc::SYS_pidfd_send_signal, process, libc::SIGKILL, none, 0)
        };
        match sent {
            0 => Ok(true),
            _ => gone(io::Error::last_os_error()),
        }
    }
}

/// The parent of a process that lives; none of one that has ended, whether or not it was reaped.
fn parent(pid: i32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, so the fields are counted from its end.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?;
    fields.next()?.parse().ok().filter(|_| state != "Z")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_rank_is_found_by_its_parent_and_number_and_killed_once() {
        let start = |rank: Option<&str>| {
            let mut command = Command::new("sleep");
            command.arg("60").env_remove("RANK");
            command.envs(rank.map(|rank| ("RANK", rank)));
            command.spawn().unwrap()
        };
        let mut children = [start(Some("1")), start(Some("0")), start(None)];
        let own = std::process::id();
        let all_started = || of(own).len() == 2;
        while !all_started() {
            std::thread::yield_now();
        }
        let found = of(own);
        let numbers: Vec<_> = found.iter().map(|rank| rank.rank).collect();
        assert_eq!(numbers, [0, 1]);
        assert_eq!(found[0].pid as u32, children[1].id());
        assert!(found[0].kill().unwrap());
        children[1].wait().unwrap();
        assert!(!found[0].kill().unwrap());
        assert!(children[2].try_wait().unwrap().is_none());
        for child in &mut children {
            let _ = child.kill();
            child.wait().unwrap();
        }
    }
}
