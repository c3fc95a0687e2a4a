//! A second process that outlives the launcher by a moment and ends what it leaves behind.
//!
//! Ranks die with the launcher by PDEATHSIG, but what they have started does not. The guardian
//! knows the process groups of the running ranks and the launch's mark; when the launcher is gone,
//! however it ended, it kills the groups and whoever bears the mark. Until they are gone it also
//! holds the run directory's lock, so that no second launch writes beside a rank of the first.

use std::fs::File;
use std::io::{self, PipeWriter, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use crate::mark::Mark;

/// Groups that can be watched at once; ranks of one machine are far fewer.
const SLOTS: usize = 1024;
/// How long the guardian waits for what it has killed to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Guardian {
    /// Told `+pid` to watch a group and `-pid` to forget it; its end says that the launcher is gone.
    /// None once it is closed.
    line: Option<PipeWriter>,
    pid: libc::pid_t,
    mark: Mark,
}

impl Guardian {
    /// Starts it; `lock` stays held while it lives.
    pub fn start(lock: Option<&File>) -> io::Result<Self> {
        let (from, to) = io::pipe()?;
        let from_fd = from.as_raw_fd();
        let lock_fd = lock.map(AsRawFd::as_raw_fd);
        let mark = Mark::new()?;
        // SAFETY: the child runs `guard` alone, which calls nothing but async-signal-safe functions,
        // allocates nothing and never returns.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => unsafe { guard(from_fd, lock_fd, mark) },
            pid => Ok(Guardian {
                line: Some(to),
                pid,
                mark,
            }),
        }
    }

    /// What every process of the launch is to bear.
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// Watches the process group that `pid` leads.
    pub fn watch(&mut self, pid: i32) {
        self.say(pid);
    }

    /// Forgets it: it is gone, and its number may soon be another's.
    pub fn forget(&mut self, pid: i32) {
        self.say(-pid);
    }

    fn say(&mut self, word: i32) {
        if let Some(line) = &mut self.line {
            // Without a guardian ranks still die with the launcher.
            let _ = line.write_all(&word.to_ne_bytes());
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        self.line = None;
        // SAFETY: it is our child, and only this reaps it.
        unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) };
    }
}

/// The guardian's whole life.
///
/// # Safety
/// Only in a child that was just forked.
unsafe fn guard(line: RawFd, lock: Option<RawFd>, mark: Mark) -> ! {
    let mut groups = [0_i32; SLOTS];
    // Of the ranks that lead the groups. A rank that has ended is told from one that only waits to be reaped by whoever
    // inherits it, which may take its time. -1: none, which `poll` passes over.
    const NONE: libc::pollfd = libc::pollfd {
        fd: -1,
        events: libc::POLLIN,
        revents: 0,
    };
    let mut leaders = [NONE; SLOTS];
    // SAFETY: system calls on this process's own descriptors and memory.
    unsafe {
        // Away from the terminal's signals; the end of the line is what ends it.
        libc::setsid();
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1] {
            libc::signal(signal, libc::SIG_IGN);
        }
        // Line and lock move to 0 and 1, all else is closed: the launcher's own end of the line too.
        libc::dup2(line, 0);
        let first_unneeded = match lock {
            Some(lock) => {
                libc::dup2(lock, 1);
                2
            }
            None => 1,
        };
        libc::syscall(libc::SYS_close_range, first_unneeded, u32::MAX, 0);
        let mut word = 0_i32;
        while libc::read(0, (&raw mut word).cast(), size_of::<i32>()) == size_of::<i32>() as isize {
            let (from, to) = if word > 0 { (0, word) } else { (-word, 0) };
            let slots = groups.iter_mut().zip(&mut leaders);
            if let Some((group, leader)) = slots.into_iter().find(|(group, _)| **group == from) {
                *group = to;
                if leader.fd >= 0 {
                    libc::close(leader.fd);
                }
                leader.fd = match to {
                    0 => -1,
                    pid => libc::syscall(libc::SYS_pidfd_open, pid, 0) as libc::c_int,
                };
            }
        }
        for group in groups.iter().filter(|group| **group > 0) {
            libc::kill(-group, libc::SIGKILL);
        }
        let begun = Instant::now();
        mark.sweep(PATIENCE);
        let left = PATIENCE.saturating_sub(begun.elapsed()).as_millis() as libc::c_int;
        // No more than are in use: `poll` refuses more than a process may have open.
        while let Some(last) = leaders.iter().rposition(|leader| leader.fd >= 0)
            && libc::poll(leaders.as_mut_ptr(), last as libc::nfds_t + 1, left) > 0
        {
            for leader in leaders.iter_mut().filter(|leader| leader.revents != 0) {
                leader.fd = -1;
            }
        }
        libc::_exit(0)
    }
}
