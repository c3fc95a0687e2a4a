//! The thread that a closure belongs to, and how others ask it to work.
//!
//! libtorch runs the backward pass of CUDA tensors on threads of its own. A closure that is not `Send` must not run there: the
//! thread that made it runs it, while the one that asks waits.

use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use crate::ffi::Work;

thread_local! {
    static HERE: Arc<Home> = Arc::new(Home {
        thread: thread::current().id(),
        desks: Mutex::new(Vec::new()),
        guests: AtomicUsize::new(0),
    });
}

/// A thread with closures of its own.
pub(crate) struct Home {
    thread: ThreadId,
    /// Where it takes work, while it waits for something; the last is the one it is at.
    desks: Mutex<Vec<Sender<Job>>>,
    guests: AtomicUsize,
}

/// Work for another thread, and who is told that it is done.
struct Job {
    work: Work,
    context: *mut c_void,
    done: SyncSender<()>,
}

// SAFETY: the thread that asks waits until the job is done or dropped, so `context` is never used by two threads at once; what
// it leads to that is not Send belongs to the thread that does the job.
unsafe impl Send for Job {}

impl Home {
    /// This thread's.
    pub(crate) fn here() -> Arc<Self> {
        HERE.with(Arc::clone)
    }

    /// `change`, 1 or -1, to the number of this thread's closures that another thread will ask for.
    pub(crate) fn count_guests(&self, change: isize) {
        self.guests
            .fetch_add(change.cast_unsigned(), Ordering::Relaxed);
    }

    pub(crate) fn expects_guests(&self) -> bool {
        self.guests.load(Ordering::Relaxed) > 0
    }

    /// Performs `work(context)` on this home's thread before it returns; false where that thread takes no work now, and then
    /// it was not performed.
    ///
    /// # Safety
    /// `work` may be called with `context` on that thread, once, until this returns, and does not unwind.
    pub(crate) unsafe fn perform(&self, work: Work, context: *mut c_void) -> bool {
        if thread::current().id() == self.thread {
            // SAFETY: as the caller promises.
            unsafe { work(context) };
            return true;
        }
        let Some(desk) = self.desks().last().cloned() else {
            return false;
        };
        let (done, answer) = sync_channel(1);
        let job = Job {
            work,
            context,
            done,
        };
        // A desk that is left drops its jobs, and with them `done`.
        desk.send(job).is_ok() && {
            drop(desk);
            answer.recv().is_ok()
        }
    }

    #[cfg(test)]
    pub(crate) fn desks_are_closed(&self) -> bool {
        self.desks().is_empty()
    }

    fn desks(&self) -> MutexGuard<'_, Vec<Sender<Job>>> {
        // Nothing between lock and unlock can leave the list half changed.
        self.desks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A time in which this thread waits and does what others ask of it.
pub(crate) struct Desk {
    home: Arc<Home>,
    jobs: Receiver<Job>,
    depth: usize,
}

impl Desk {
    pub(crate) fn open() -> (Self, DeskClosing) {
        let home = Home::here();
        let (sender, jobs) = channel();
        let mut desks = home.desks();
        let depth = desks.len();
        desks.push(sender);
        drop(desks);
        let closing = DeskClosing {
            home: Arc::clone(&home),
            depth,
        };
        (Self { home, jobs, depth }, closing)
    }

    /// Works until the desk is closed and nobody waits at it any more.
    pub(crate) fn serve(&self) {
        for job in &self.jobs {
            // SAFETY: whoever asked waits, as `perform` has it, and this is the thread that was asked.
            unsafe { (job.work)(job.context) };
            // The one who asked cannot be gone.
            let _ = job.done.send(());
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.home.desks().truncate(self.depth);
    }
}

/// Closes a desk, from any thread.
pub(crate) struct DeskClosing {
    home: Arc<Home>,
    depth: usize,
}

impl DeskClosing {
    pub(crate) fn close(&self) {
        self.home.desks().truncate(self.depth);
    }
}
