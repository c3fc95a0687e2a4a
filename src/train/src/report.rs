//! Where a rank says what happens.

use event::{EventKind, Phase};

/// Takes the events of one rank.
pub trait Report {
    fn report(&self, kind: EventKind);

    /// Notes where this rank is, without sending anything: its next heartbeat and its failure report say so.
    fn at(&self, phase: Phase, step: u64, sequence: u64);
}
