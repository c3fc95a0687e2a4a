//! Where a rank says what happens.

use event::EventKind;

/// Takes the events of one rank.
pub trait Report {
    fn report(&self, kind: EventKind);
}

/// Says nothing: what ranks other than the first do with events that one voice is enough for.
pub struct Silent;

impl Report for Silent {
    fn report(&self, _: EventKind) {}
}
