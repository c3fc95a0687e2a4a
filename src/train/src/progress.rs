//! Whether this process comes further: counted where work is done, told by its heartbeats. One process is one rank.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

static COUNT: AtomicU64 = AtomicU64::new(0);
/// Milliseconds from the first look at the clock to the newest count.
static LAST: AtomicU64 = AtomicU64::new(0);
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// How far a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Items done so far, of whatever kind.
    pub count: u64,
    /// Since the newest of them.
    pub idle: Duration,
    /// It waits for other ranks.
    pub waits: bool,
}

/// Notes that something is done that takes moments: a micro-batch, a batch of an inference, a study, a table. From any
/// thread.
pub fn went_on() {
    LAST.store(clock(), Relaxed);
    COUNT.fetch_add(1, Relaxed);
}

/// Notes that this rank waits for others, until the guard is dropped.
#[must_use]
pub fn waiting() -> Waiting {
    went_on();
    WAITING.fetch_add(1, Relaxed);
    Waiting(())
}

/// See [`waiting`].
#[derive(Debug)]
pub struct Waiting(());

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Relaxed);
        went_on();
    }
}

/// Where this process is now.
pub fn so_far() -> Progress {
    Progress {
        count: COUNT.load(Relaxed),
        idle: Duration::from_millis(clock().saturating_sub(LAST.load(Relaxed))),
        waits: WAITING.load(Relaxed) > 0,
    }
}

fn clock() -> u64 {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let elapsed = BEGAN.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_with_its_guard_and_counts_as_coming_further() {
        // Other tests of this process may count too.
        let before = so_far().count;
        let outer = waiting();
        drop(waiting());
        assert!(so_far().waits, "the outer one still waits");
        drop(outer);
        assert!(so_far().count >= before + 4);
    }
}
