//! Where a rank says what happens.

use event::EventKind;

/// Takes the events of one rank.
pub trait Report {
    fn report(&self, kind: EventKind);
}
