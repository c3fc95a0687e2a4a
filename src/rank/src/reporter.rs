//! Sends a rank's events to the launcher, one JSON object a line, and a sign of life where there are none.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::FromRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event::{EventKind, Phase, RunEvent};
use train::Report;

use crate::environment::Environment;

/// How often a rank says where it is. The launcher takes a rank that is silent for twice `stall_timeout` (5 s at least)
/// for frozen.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// A rank's voice.
pub struct Reporter {
    shared: Arc<Shared>,
}

struct Shared {
    job: Option<String>,
    attempt: Option<u32>,
    rank: usize,
    state: Mutex<State>,
}

struct State {
    sink: Box<dyn Write + Send>,
    /// The last place that this rank told.
    phase: Phase,
    step: u64,
    sequence: u64,
}

impl Reporter {
    /// `job`: its name and the attempt; none in a prediction.
    pub fn new(environment: &Environment, job: Option<(&str, u32)>) -> Self {
        let sink: Box<dyn Write + Send> = match environment.event_fd {
            // SAFETY: the launcher opened this descriptor for this process, and nothing else here uses it.
            Some(fd) => Box::new(unsafe { File::from_raw_fd(fd) }),
            None => Box::new(io::stdout()),
        };
        let shared = Arc::new(Shared {
            job: job.map(|(name, _)| name.to_owned()),
            attempt: job.map(|(_, attempt)| attempt),
            rank: environment.rank,
            state: Mutex::new(State {
                sink,
                phase: Phase::StartUp,
                step: 0,
                sequence: 0,
            }),
        });
        let beating = Arc::clone(&shared);
        // A thread of its own: it speaks while a long decode or a collective holds the main one.
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(HEARTBEAT);
                beating.beat();
            }
        });
        Reporter { shared }
    }

    /// The last place that this rank told: what it was doing, in which update.
    pub fn place(&self) -> (Phase, u64) {
        let state = self.shared.lock();
        (state.phase, state.step)
    }

    pub fn send(&self, kind: EventKind) {
        self.shared.send(&mut self.shared.lock(), kind);
    }
}

impl Report for Reporter {
    fn report(&self, kind: EventKind) {
        self.send(kind);
    }

    fn at(&self, phase: Phase, step: u64, sequence: u64) {
        let mut state = self.shared.lock();
        (state.phase, state.step, state.sequence) = (phase, step, sequence);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn beat(&self) {
        let mut state = self.lock();
        let State {
            phase,
            step,
            sequence,
            ..
        } = *state;
        self.send(
            &mut state,
            EventKind::Heartbeat {
                phase,
                step,
                sequence,
            },
        );
    }

    fn send(&self, state: &mut State, kind: EventKind) {
        if let EventKind::Heartbeat {
            phase,
            step,
            sequence,
        } = &kind
        {
            (state.phase, state.step, state.sequence) = (*phase, *step, *sequence);
        }
        let event = RunEvent {
            time: event::now(),
            job: self.job.clone(),
            attempt: self.attempt,
            rank: Some(self.rank),
            kind,
        };
        let sent = event::to_line(&event)
            .map_err(io::Error::other)
            .and_then(|line| state.sink.write_all(line.as_bytes()));
        if let Err(error) = sent {
            // The launcher is gone and this process is about to follow: the log is what is left.
            eprintln!("spinectl-rank: an event could not be sent ({error}): {event:?}");
        }
    }
}
