//! Sends a rank's events to the launcher, one JSON object a line, and a sign of life where there are none.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use data::Discretion;
use event::{EventKind, Phase, Pulse, RunEvent, Samples};
use train::{Names, Report, progress};

use crate::environment::Environment;
use crate::fault::Fault;
use crate::stack;

/// How often a rank says where it is, until it has read from the plan how often it should.
const FIRST_HEARTBEATS: Duration = Duration::from_millis(500);
/// The launcher asks for a stack by this word.
const STACK: &[u8] = b"stack\n";
/// Updates over which local seconds are averaged.
const RECENT: usize = 10;

/// A rank's voice.
pub struct Reporter {
    shared: Arc<Shared>,
}

struct Shared {
    job: Option<String>,
    attempt: Option<u32>,
    rank: usize,
    fault: Option<Fault>,
    /// Once the plan has told where the data lie.
    discretion: OnceLock<Discretion>,
    /// Between heartbeats, in milliseconds.
    interval: AtomicU64,
    state: Mutex<State>,
}

struct State {
    sink: Box<dyn Write + Send>,
    /// The last place that this rank told.
    phase: Phase,
    step: u64,
    sequence: u64,
    work: Work,
    /// Seconds of the last updates that this rank spent by itself.
    local_seconds: VecDeque<f64>,
}

/// What a rank has in hand: numbers, which cost nothing to note. Names are made when they are told.
#[derive(Default)]
struct Work {
    names: Option<Names>,
    /// The first ones.
    items: Vec<usize>,
    count: usize,
    /// How often there was something new in this phase.
    turns: u64,
}

impl Work {
    fn take(&mut self, items: &[usize], names: &Names) {
        self.names = Some(Arc::clone(names));
        self.items.clear();
        self.items.extend(items.iter().take(Samples::NAMED));
        self.count = items.len();
        self.turns += 1;
    }

    fn told(&self) -> Samples {
        let Some(names) = &self.names else {
            return Samples::default();
        };
        Samples {
            ids: self.items.iter().map(|item| names(*item)).collect(),
            count: self.count,
        }
    }
}

impl State {
    /// Comes to a place; what was in hand in another phase or update no longer is, but that an update's phases share theirs.
    fn come_to(&mut self, phase: Phase, step: u64, sequence: u64) {
        let shares = |phase| {
            use Phase::{AllReduce, Backward, DataWait, Forward, Optimizer};
            matches!(phase, DataWait | Forward | Backward | AllReduce | Optimizer)
        };
        let same_work =
            step == self.step && (phase == self.phase || shares(phase) && shares(self.phase));
        if !same_work {
            self.work = Work::default();
        }
        (self.phase, self.step, self.sequence) = (phase, step, sequence);
    }
}

impl Reporter {
    /// `job`: its name and the attempt; none in a prediction.
    pub fn new(environment: &Environment, job: Option<(&str, u32)>) -> Self {
        // SAFETY: the launcher opened this descriptor for this process, and nothing else here uses it.
        let socket = environment
            .event_fd
            .map(|fd| unsafe { File::from_raw_fd(fd) });
        let questions = socket.as_ref().and_then(|socket| socket.try_clone().ok());
        let sink: Box<dyn Write + Send> = match socket {
            Some(socket) => Box::new(socket),
            None => Box::new(io::stdout()),
        };
        let shared = Arc::new(Shared {
            job: job.map(|(name, _)| name.to_owned()),
            attempt: job.map(|(_, attempt)| attempt),
            rank: environment.rank,
            fault: environment.fault.clone(),
            discretion: OnceLock::new(),
            interval: AtomicU64::new(FIRST_HEARTBEATS.as_millis() as u64),
            state: Mutex::new(State {
                sink,
                phase: Phase::StartUp,
                step: 0,
                sequence: 0,
                work: Work::default(),
                local_seconds: VecDeque::with_capacity(RECENT),
            }),
        });
        let beating = Arc::clone(&shared);
        // A thread of its own: it speaks while a long decode or a collective holds the main one.
        std::thread::spawn(move || beating.live(questions));
        Reporter { shared }
    }

    pub fn beat_every(&self, interval: Duration) {
        let interval = interval.as_millis() as u64;
        self.shared.interval.store(interval, Ordering::Relaxed);
    }

    /// From now on nothing that is told names what these words leave out.
    pub fn heed(&self, discretion: Discretion) {
        // A rank has one job, and so one data set.
        let _ = self.shared.discretion.set(discretion);
    }

    /// The last place that this rank told: what it was doing, in which update, after how many collectives.
    pub fn place(&self) -> (Phase, u64, u64) {
        let state = self.shared.lock();
        (state.phase, state.step, state.sequence)
    }

    /// What this rank has in hand there.
    pub fn samples(&self) -> Samples {
        self.shared.lock().work.told()
    }

    pub fn send(&self, kind: EventKind) {
        progress::went_on();
        self.shared.send(&mut self.shared.lock(), kind);
    }
}

impl Report for Reporter {
    fn report(&self, kind: EventKind) {
        self.send(match kind {
            EventKind::Warning { message } => EventKind::Warning {
                message: self.discreet(message),
            },
            kind => kind,
        });
    }

    fn discreet(&self, text: String) -> String {
        match self.shared.discretion.get() {
            Some(discretion) => {
                let told = discretion.of(&text);
                match told == text || !told.contains(Discretion::A_NAME) {
                    true => told,
                    false => format!("{told} (`spinectl data check` shows whole names)"),
                }
            }
            None => text,
        }
    }

    fn at(&self, phase: Phase, step: u64, sequence: u64) {
        progress::went_on();
        self.shared.lock().come_to(phase, step, sequence);
    }

    fn works_on(&self, items: &[usize], names: &Names) {
        progress::went_on();
        let place = {
            let mut state = self.shared.lock();
            state.work.take(items, names);
            match state.phase {
                Phase::DataWait => (Phase::DataWait, state.step),
                phase => (phase, state.work.turns),
            }
        };
        if let Some(fault) = &self.shared.fault {
            let job = self.shared.job.as_deref().unwrap_or_default();
            let attempt = self.shared.attempt.unwrap_or(1);
            fault.strike(job, attempt, self.shared.rank, place);
        }
    }

    fn took(&self, local_seconds: f64) {
        let recent = &mut self.shared.lock().local_seconds;
        if recent.len() == RECENT {
            recent.pop_front();
        }
        recent.push_back(local_seconds);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says where this rank is, at intervals, and answers the launcher's questions, for ever.
    fn live(&self, mut questions: Option<File>) {
        let mut last = Instant::now();
        loop {
            let interval = Duration::from_millis(self.interval.load(Ordering::Relaxed));
            let left = interval.saturating_sub(last.elapsed());
            match &mut questions {
                Some(socket) if is_asked(socket, left) => {
                    let mut word = [0; STACK.len()];
                    match socket.read_exact(&mut word) {
                        Ok(()) if word == STACK => self.tell_stack(),
                        // The launcher is gone, or this is no socket: there will be no question.
                        _ => questions = None,
                    }
                }
                Some(_) => {}
                None => std::thread::sleep(left),
            }
            if last.elapsed() >= interval {
                last = Instant::now();
                self.beat();
            }
        }
    }

    fn tell_stack(&self) {
        if let Some(frames) = stack::of_main_thread() {
            self.send(&mut self.lock(), EventKind::Stack { frames });
        }
    }

    fn beat(&self) {
        let mut state = self.lock();
        let so_far = progress::so_far();
        let recent = &state.local_seconds;
        let mean = recent.iter().sum::<f64>() / recent.len().max(1) as f64;
        let pulse = Pulse {
            phase: state.phase,
            step: state.step,
            sequence: state.sequence,
            waits: so_far.waits || state.phase.waits_for_others(),
            progress: so_far.count,
            idle_seconds: so_far.idle.as_secs_f64(),
            local_seconds: (!recent.is_empty()).then_some(mean),
            samples: state.work.told(),
        };
        self.send(&mut state, EventKind::Pulse(pulse));
    }

    fn send(&self, state: &mut State, kind: EventKind) {
        if let EventKind::Heartbeat {
            phase,
            step,
            sequence,
        } = &kind
        {
            state.come_to(*phase, *step, *sequence);
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

/// Waits until there is something to read, or nobody left who could ask.
fn is_asked(socket: &File, patience: Duration) -> bool {
    let mut wait = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let patience = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one descriptor, that lives across the call.
    unsafe { libc::poll(&raw mut wait, 1, patience) > 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
            sink: Box::new(io::sink()),
            phase: Phase::StartUp,
            step: 0,
            sequence: 0,
            work: Work::default(),
            local_seconds: VecDeque::new(),
        }
    }

    #[test]
    fn samples_stay_in_hand_through_an_update_and_no_longer() {
        let names: Names = Arc::new(|number| format!("1.2.3/{number}"));
        let mut state = state();
        state.come_to(Phase::DataWait, 3, 7);
        assert!(state.work.told().is_empty());
        state.work.take(&(10..30).collect::<Vec<_>>(), &names);
        for phase in [Phase::Forward, Phase::Backward, Phase::DataWait] {
            state.come_to(phase, 3, 8);
            let told = state.work.told();
            assert_eq!((told.ids.len(), told.count), (Samples::NAMED, 20));
            assert_eq!(told.ids[0], "1.2.3/10");
        }
        state.come_to(Phase::DataWait, 4, 9);
        assert!(state.work.told().is_empty(), "another update");
        state.work.take(&[1], &names);
        state.come_to(Phase::Evaluate, 4, 9);
        assert!(state.work.told().is_empty(), "another kind of work");
    }
}
