//! A request to stop at the next step boundary. It is set by a signal handler and agreed on by all ranks.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether this rank was asked to stop.
#[derive(Debug, Default)]
pub struct StopFlag(AtomicBool);

impl StopFlag {
    pub const fn new() -> Self {
        StopFlag(AtomicBool::new(false))
    }

    /// Safe to call from a signal handler.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
