//! Where a rank says what happens.

use event::{EventKind, Phase};

/// Takes the events of one rank.
pub trait Report {
    fn report(&self, kind: EventKind);

    /// Notes where this rank is, without sending anything: its next heartbeat and its failure report say so.
    fn at(&self, phase: Phase, step: u64, sequence: u64);

    /// Notes how many seconds of an update this rank spent by itself, in data wait and forward: who is slower than the
    /// others shows in that, and not in the update's time, which all ranks share.
    fn took(&self, _local_seconds: f64) {}
}
