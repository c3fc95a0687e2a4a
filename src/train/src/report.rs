//! Where a rank says what happens.

use std::sync::Arc;

use event::{EventKind, Phase};

/// What a reader knows a sample or a study by, from its number; called from another thread, and only when it is told.
pub type Names = Arc<dyn Fn(usize) -> String + Send + Sync>;

/// Takes the events of one rank.
pub trait Report {
    fn report(&self, kind: EventKind);

    /// A text about the data as it may be told and kept: without paths of it, and without names that may be a patient's.
    fn discreet(&self, text: String) -> String {
        text
    }

    /// Notes where this rank is, without sending anything: its next heartbeat and its failure report say so.
    fn at(&self, phase: Phase, step: u64, sequence: u64);

    /// Notes what this rank works on there, or waits for in a data wait: items by number, with their names.
    fn works_on(&self, _items: &[usize], _names: &Names) {}

    /// Notes how many seconds of an update this rank spent by itself, in data wait and forward: who is slower than the
    /// others shows in that, and not in the update's time, which all ranks share.
    fn took(&self, _local_seconds: f64) {}
}
