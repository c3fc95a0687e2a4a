//! Sends a rank's events to the launcher, one JSON object a line.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::FromRawFd;

use event::{EventKind, RunEvent};
use train::Report;

use crate::environment::Environment;

/// A rank's voice.
pub struct Reporter {
    job: Option<String>,
    attempt: Option<u32>,
    rank: usize,
    sink: RefCell<Box<dyn Write>>,
}

impl Reporter {
    /// `job`: its name and the attempt; none in a prediction.
    pub fn new(environment: &Environment, job: Option<(&str, u32)>) -> Self {
        let sink: Box<dyn Write> = match environment.event_fd {
            // SAFETY: the launcher opened this descriptor for this process, and nothing else here uses it.
            Some(fd) => Box::new(unsafe { File::from_raw_fd(fd) }),
            None => Box::new(io::stdout()),
        };
        Reporter {
            job: job.map(|(name, _)| name.to_owned()),
            attempt: job.map(|(_, attempt)| attempt),
            rank: environment.rank,
            sink: RefCell::new(sink),
        }
    }

    pub fn send(&self, kind: EventKind) {
        let event = RunEvent {
            time: event::now(),
            job: self.job.clone(),
            attempt: self.attempt,
            rank: Some(self.rank),
            kind,
        };
        let sent = event::to_line(&event)
            .map_err(io::Error::other)
            .and_then(|line| self.sink.borrow_mut().write_all(line.as_bytes()));
        if let Err(error) = sent {
            // The launcher is gone and this process is about to follow: the log is what is left.
            eprintln!("spinectl-rank: an event could not be sent ({error}): {event:?}");
        }
    }
}

impl Report for Reporter {
    fn report(&self, kind: EventKind) {
        self.send(kind);
    }
}
