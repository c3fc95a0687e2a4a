//! What waits to be sent: bounded, never waited for, and counted where it finds no room.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::spans::Ended;

/// One thing that waits.
#[derive(Debug)]
pub(crate) enum Item {
    Span(Box<Span>),
    Log(Box<LogRecord>),
}

/// What came to nothing.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    pub spans: AtomicU64,
    pub logs: AtomicU64,
}

impl Lost {
    pub fn count(&self, item: &Item) {
        match item {
            Item::Span(_) => self.spans.fetch_add(1, Relaxed),
            Item::Log(_) => self.logs.fetch_add(1, Relaxed),
        };
    }

    pub fn spans(&self) -> u64 {
        self.spans.load(Relaxed)
    }

    pub fn logs(&self) -> u64 {
        self.logs.load(Relaxed)
    }
}

/// The end of the queue at which a run's events come in.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: Sender<Item>,
}

impl Outbox {
    pub fn new(capacity: usize) -> (Self, Receiver<Item>) {
        let (queue, receiver) = channel(capacity.max(1));
        (Outbox { queue }, receiver)
    }

    /// Puts in what there is room for. Sampled steps leave the last quarter to what other spans hang on, and come whole or not at all.
    pub fn put(&self, ended: Ended, log: Option<LogRecord>, lost: &Lost) {
        let reserve = self.queue.max_capacity() / 4;
        let has_room = self.queue.capacity() >= ended.step.len() + reserve;
        for span in ended.step {
            self.offer(Item::Span(Box::new(span)), has_room, lost);
        }
        for span in ended.structure {
            self.offer(Item::Span(Box::new(span)), true, lost);
        }
        if let Some(log) = log {
            self.offer(Item::Log(Box::new(log)), true, lost);
        }
    }

    fn offer(&self, item: Item, has_room: bool, lost: &Lost) {
        let refused = match has_room {
            true => self.queue.try_send(item).err().map(|e| e.into_inner()),
            false => Some(item),
        };
        if let Some(item) = refused {
            lost.count(&item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(names: &[&str]) -> Vec<Span> {
        let span = |name: &&str| Span {
            name: (*name).to_owned(),
            ..Span::default()
        };
        names.iter().map(span).collect()
    }

    #[test]
    fn steps_leave_room_for_what_others_hang_on_and_come_whole() {
        let (outbox, mut receiver) = Outbox::new(8);
        let lost = Lost::default();
        let step = |structure: &[&str]| Ended {
            structure: spans(structure),
            step: spans(&["forward", "backward", "step"]),
        };
        outbox.put(step(&[]), None, &lost);
        outbox.put(step(&["epoch"]), None, &lost);
        assert_eq!(lost.spans(), 0);
        // One place is left: a step finds none, a rank takes it, a job comes too late.
        outbox.put(step(&["rank"]), None, &lost);
        outbox.put(
            Ended {
                structure: spans(&["job"]),
                step: Vec::new(),
            },
            Some(LogRecord::default()),
            &lost,
        );
        assert_eq!((lost.spans(), lost.logs()), (4, 1));
        let mut names = Vec::new();
        while let Ok(item) = receiver.try_recv() {
            match item {
                Item::Span(span) => names.push(span.name),
                Item::Log(_) => panic!("a log record where there was no room"),
            }
        }
        let step = ["forward", "backward", "step"];
        assert_eq!(names, [&step[..], &step, &["epoch", "rank"]].concat());
    }
}
