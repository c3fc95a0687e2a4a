//! Takes a run's events as they come and shows them: terminal, TensorBoard, JSON lines, OpenTelemetry.

mod bars;
mod failures;
mod lines;
mod pace;
mod text;

use std::io::{self, IsTerminal};
use std::thread;

use event::{EventKind, RunEvent};
use telemetry::Observer;
use telemetry::tensorboard::Board;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::output;
use bars::Bars;
pub use failures::{Cause, Failures};
use lines::Lines;

/// How much is shown, and where.
#[derive(Clone, Copy, Debug)]
pub enum Show {
    /// Bars on a terminal, lines elsewhere; on stderr.
    Progress,
    /// Only warnings and failures, on stderr.
    Quiet,
    /// Every event as a line of JSON on stdout; warnings and failures on stderr.
    Json,
}

/// What is worth keeping of a run's events.
#[derive(Debug, Default)]
pub struct Seen {
    pub failures: Failures,
    /// The first warnings, at most [`WARNINGS_KEPT`].
    pub warnings: Vec<String>,
}

const WARNINGS_KEPT: usize = 20;

/// Shows events on a thread of its own, so that a slow terminal or disk never holds up the
/// supervision of ranks.
pub struct Follower {
    thread: thread::JoinHandle<Seen>,
}

impl Follower {
    /// Begins to follow; the events go into the sender.
    pub fn start(
        show: Show,
        board: Option<Board>,
        observer: Option<Observer>,
    ) -> anyhow::Result<(UnboundedSender<RunEvent>, Self)> {
        let (sender, receiver) = unbounded_channel();
        let reporter = Reporter::new(show, board, observer);
        let thread = thread::Builder::new()
            .name("progress".into())
            .spawn(move || reporter.follow(receiver))
            .map_err(|error| {
                anyhow::anyhow!("cannot start the thread that shows progress: {error}")
            })?;
        Ok((sender, Follower { thread }))
    }

    /// Waits until the last event has been shown. All senders must be gone.
    pub fn end(self) -> Seen {
        // A fault in the display must not turn a run's outcome into another one.
        self.thread.join().unwrap_or_default()
    }
}

struct Reporter {
    display: Display,
    json: bool,
    board: Option<Board>,
    observer: Option<Observer>,
    seen: Seen,
}

enum Display {
    Bars(Bars),
    Lines(Lines),
}

impl Reporter {
    fn new(show: Show, board: Option<Board>, observer: Option<Observer>) -> Self {
        let display = match show {
            Show::Progress if io::stderr().is_terminal() => Display::Bars(Bars::new()),
            Show::Progress => Display::Lines(Lines::all()),
            Show::Quiet | Show::Json => Display::Lines(Lines::only_trouble()),
        };
        Reporter {
            display,
            json: matches!(show, Show::Json),
            board,
            observer,
            seen: Seen::default(),
        }
    }

    fn follow(mut self, mut events: UnboundedReceiver<RunEvent>) -> Seen {
        while let Some(event) = events.blocking_recv() {
            self.take(&event);
        }
        let flushed = self.board.as_mut().map_or(Ok(()), Board::flush);
        self.warn_of(flushed);
        for notice in self.observer.take().map_or_else(Vec::new, Observer::end) {
            self.say(&notice);
        }
        if let Display::Bars(bars) = &self.display {
            bars.end();
        }
        self.seen
    }

    fn take(&mut self, event: &RunEvent) {
        match &mut self.display {
            Display::Bars(bars) => bars.show(event),
            Display::Lines(lines) => {
                if let Some(line) = lines.line(event) {
                    output::say(&line);
                }
            }
        }
        if self.json {
            self.print_json(event);
        }
        let recorded = self
            .board
            .as_mut()
            .map_or(Ok(()), |board| board.record(event));
        self.warn_of(recorded);
        self.observe(event);

        self.seen.failures.take(event);
        if let EventKind::Warning { message } = &event.kind {
            self.keep(message.clone());
        }
    }

    /// A warning, for who reads of the run later.
    fn keep(&mut self, warning: String) {
        if self.seen.warnings.len() < WARNINGS_KEPT {
            self.seen.warnings.push(warning);
        }
    }

    /// Training goes on when nobody listens any more.
    fn print_json(&mut self, event: &RunEvent) {
        let printed = event::to_line(event)
            .map_err(anyhow::Error::from)
            .and_then(|line| output::print(&line));
        if let Err(error) = printed {
            self.json = false;
            output::say(&format!("no more events on stdout: {error}"));
        }
    }

    fn observe(&mut self, event: &RunEvent) {
        if let Some(observer) = &mut self.observer {
            observer.take(event);
        }
        while let Some(notice) = self.observer.as_mut().and_then(Observer::notice) {
            self.say(&notice);
        }
    }

    fn warn_of(&mut self, result: Result<(), telemetry::tensorboard::Error>) {
        if let Err(error) = result {
            self.say(&format!("warning: {error}"));
            self.keep(error.to_string());
        }
    }

    /// Says something that is no event of the run.
    fn say(&self, text: &str) {
        match &self.display {
            Display::Bars(bars) => bars.print(text),
            Display::Lines(_) => output::say(text),
        }
    }
}
