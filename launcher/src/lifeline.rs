//! A lock that a rank holds as long as it lives. The kernel takes it back when the rank begins to die: before the memory of the
//! process is given back, which takes long for a large one, and before its end can be waited for (decisions/0031).

use std::fs::File;
use std::future::pending;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::NonNull;
use std::thread;

use rustix::fs::{MemfdFlags, memfd_create};
use tokio::sync::oneshot::{Receiver, channel};

use crate::exit::Exit;
use crate::pidfd::Pidfd;

/// The thread that waits for the lock does nothing else.
const STACK: usize = 64 << 10;

/// The lock in memory that is shared with a rank.
#[derive(Debug)]
pub(crate) struct Lifeline(NonNull<libc::pthread_mutex_t>);

// SAFETY: a mutex is made for several threads, and only its owner gives the memory back.
unsafe impl Send for Lifeline {}

impl Lifeline {
    /// A new one, and the descriptor by which the rank comes to it.
    pub fn new() -> io::Result<(Self, File)> {
        let length = size_of::<libc::pthread_mutex_t>();
        let file = File::from(memfd_create(c"spinectl-lifeline", MemfdFlags::CLOEXEC)?);
        file.set_len(length as u64)?;
        let lock = map(file.as_raw_fd(), length)?;
        let lifeline = Lifeline(lock);
        // SAFETY: the memory is as large as a mutex, its start is a page's, and nobody uses it yet.
        let refused = unsafe {
            let mut kind: libc::pthread_mutexattr_t = std::mem::zeroed();
            [
                libc::pthread_mutexattr_init(&raw mut kind),
                libc::pthread_mutexattr_setpshared(&raw mut kind, libc::PTHREAD_PROCESS_SHARED),
                libc::pthread_mutexattr_setrobust(&raw mut kind, libc::PTHREAD_MUTEX_ROBUST),
                libc::pthread_mutex_init(lock.as_ptr(), &raw const kind),
                libc::pthread_mutexattr_destroy(&raw mut kind),
            ]
        };
        match refused.into_iter().find(|code| *code != 0) {
            Some(code) => Err(io::Error::from_raw_os_error(code)),
            None => Ok((lifeline, file)),
        }
    }

    /// Told when the rank begins to die; the other side is dropped where that cannot be known. To be called when the rank has
    /// said something: by then it holds the lock, if it ever will.
    pub fn watch(self) -> Receiver<()> {
        let (to, dying) = channel();
        let wait = move || {
            let lifeline = self;
            // SAFETY: the mutex was made by `new` and is there until `lifeline` is dropped.
            let code = unsafe { libc::pthread_mutex_lock(lifeline.0.as_ptr()) };
            if code == libc::EOWNERDEAD {
                // Nobody need listen.
                let _ = to.send(());
            }
            if code == libc::EOWNERDEAD || code == 0 {
                // SAFETY: this thread holds it.
                unsafe { libc::pthread_mutex_unlock(lifeline.0.as_ptr()) };
            }
        };
        let thread = thread::Builder::new().name("lifeline".to_owned());
        // Without a thread the end is heard of when it is complete.
        let _ = thread.stack_size(STACK).spawn(wait);
        dying
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and this is the last use.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<libc::pthread_mutex_t>()) };
    }
}

fn map(fd: RawFd, length: usize) -> io::Result<NonNull<libc::pthread_mutex_t>> {
    let (access, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: a new mapping, wherever the kernel likes.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), length, access, shared, fd, 0) };
    match NonNull::new(memory) {
        Some(memory) if memory.as_ptr() != libc::MAP_FAILED => Ok(memory.cast()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A rank's process, whose end is awaited.
#[derive(Debug)]
pub(crate) struct Life {
    pid: u32,
    process: Pidfd,
    lifeline: Option<Lifeline>,
    dying: Option<Receiver<()>>,
}

/// What comes of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It begins to die, and will have ended so: not as it was asked to. Nothing that it does follows.
    Dies(Exit),
    /// It can be reaped.
    Ended,
}

impl Life {
    /// `pid` is a child that is not reaped before it has [`Change::Ended`].
    pub fn new(pid: u32, process: Pidfd, lifeline: Option<Lifeline>) -> Self {
        Life {
            pid,
            process,
            lifeline,
            dying: None,
        }
    }

    /// The rank has said something.
    pub fn speaks(&mut self) {
        if let Some(lifeline) = self.lifeline.take() {
            self.dying = Some(lifeline.watch());
        }
    }

    /// The next change; after the last one, that one again.
    pub async fn change(&mut self) -> Change {
        let (pid, dying) = (self.pid, &mut self.dying);
        let dies = async {
            let Some(told) = dying else {
                return pending().await;
            };
            let told = told.await;
            *dying = None;
            let exit = told.ok().and_then(|()| exit_of_dying(pid));
            match exit.filter(|exit| !exit.is_regular()) {
                Some(exit) => exit,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            exit = dies => Change::Dies(exit),
            () = self.process.ended() => Change::Ended,
        }
    }

    pub async fn end(&mut self) {
        while self.change().await != Change::Ended {}
    }
}

/// How a process that dies will have ended; none where it does not die, or is not ours to look at.
pub(crate) fn exit_of_dying(pid: u32) -> Option<Exit> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The last field of proc(5)'s stat, in the form of waitpid(2); 0 where it lives.
    let status: i32 = stat.split_whitespace().next_back()?.parse().ok()?;
    (status != 0).then(|| Exit::of_status(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A child that takes the lock, or does not, and lives until it is killed.
    fn child(holds: bool) -> (Lifeline, i32) {
        let (lifeline, _file) = Lifeline::new().unwrap();
        let mut ends_of_pipe = [0; 2];
        // SAFETY: the child calls async-signal-safe functions alone, and a lock that nobody else holds.
        unsafe {
            assert_eq!(libc::pipe(ends_of_pipe.as_mut_ptr()), 0);
            let [from, to] = ends_of_pipe;
            let pid = libc::fork();
            if pid == 0 {
                if holds {
                    libc::pthread_mutex_lock(lifeline.0.as_ptr());
                }
                libc::write(to, c"!".as_ptr().cast(), 1);
                libc::pause();
                libc::_exit(0);
            }
            libc::close(to);
            let mut word = [0_u8];
            assert_eq!(libc::read(from, word.as_mut_ptr().cast(), 1), 1);
            libc::close(from);
            (lifeline, pid)
        }
    }

    #[test]
    fn a_death_is_heard_of_with_its_signal_before_anybody_waits_for_it() {
        let (lifeline, pid) = child(true);
        let dying = lifeline.watch();
        assert_eq!(exit_of_dying(pid as u32), None, "it lives");
        // SAFETY: it is our child and not reaped.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        assert_eq!(dying.blocking_recv(), Ok(()));
        assert_eq!(exit_of_dying(pid as u32), Some(Exit::Signal(libc::SIGKILL)));
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    }

    #[test]
    fn a_rank_that_never_took_the_lock_is_not_said_to_die() {
        let (lifeline, pid) = child(false);
        assert!(lifeline.watch().blocking_recv().is_err());
        // SAFETY: as above.
        unsafe {
            libc::kill(pid, libc::SIGKILL);
            libc::waitpid(pid, std::ptr::null_mut(), 0);
        }
    }
}
