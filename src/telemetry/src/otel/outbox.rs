//! What waits to be sent: bounded, never waited for, and counted where it finds no room.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::mpsc::{Receiver, Sender, channel};

/// How much came to nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lost(Arc<AtomicU64>);

impl Lost {
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    pub fn count(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The end of a queue at which things come in.
#[derive(Debug)]
pub(crate) struct Outbox<T> {
    queue: Sender<T>,
    lost: Lost,
}

/// The end from which they are sent.
#[derive(Debug)]
pub(crate) struct Inbox<T> {
    pub queue: Receiver<T>,
    pub lost: Lost,
}

impl<T> Outbox<T> {
    pub fn new(capacity: usize) -> (Self, Inbox<T>) {
        let (sender, queue) = channel(capacity.max(1));
        let lost = Lost::default();
        let outbox = Outbox {
            queue: sender,
            lost: lost.clone(),
        };
        (outbox, Inbox { queue, lost })
    }

    /// Puts in what there is room for.
    pub fn put(&self, things: impl IntoIterator<Item = T>) {
        for thing in things {
            if self.queue.try_send(thing).is_err() {
                self.lost.add(1);
            }
        }
    }

    /// Puts in all or nothing, and leaves the last quarter of the queue to what is more important.
    pub fn put_where_ample(&self, things: Vec<T>) {
        let reserve = self.queue.max_capacity() / 4;
        match self.queue.capacity() >= things.len() + reserve {
            true => self.put(things),
            false => self.lost.add(things.len() as u64),
        }
    }

    pub fn lost(&self) -> &Lost {
        &self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_dropped_leaves_room_for_what_may_not_and_comes_whole() {
        let (outbox, mut inbox) = Outbox::new(8);
        let step = || vec!["forward", "backward", "step"];
        outbox.put_where_ample(step());
        outbox.put_where_ample(step());
        outbox.put(["epoch"]);
        assert_eq!(outbox.lost().count(), 0);
        // One place is left: a step finds none, a rank takes it, a job comes too late.
        outbox.put_where_ample(step());
        outbox.put(["rank", "job"]);
        assert_eq!(inbox.lost.count(), 4);
        let received = std::iter::from_fn(|| inbox.queue.try_recv().ok());
        let expected = [step(), step(), vec!["epoch", "rank"]].concat();
        assert_eq!(received.collect::<Vec<_>>(), expected);
    }
}
