//! A run's [`Measures`], shared by the one who counts and those who send and show them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event::RunEvent;

use crate::measures::Measures;

#[derive(Clone, Debug)]
pub(crate) struct Meter(Arc<Mutex<Measures>>);

impl Meter {
    /// `since`: when counting begins, seconds since the Unix epoch.
    pub fn new(since: f64) -> Self {
        Meter(Arc::new(Mutex::new(Measures::new(since))))
    }

    pub fn take(&self, event: &RunEvent) {
        self.lock().take(event);
    }

    /// All series as they stand now: a copy, so that nobody counts against somebody who sends.
    pub fn reading(&self) -> Measures {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Measures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
