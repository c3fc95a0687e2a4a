//! Carries the requests of one signal: tries again where that may help, and tells once what is wrong.

use std::sync::mpsc;
use std::time::Duration;

use prost::Message;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::answers::Answer;
use super::backoff::Backoff;
use super::transport::Transport;
use super::verdict::Refused;
use super::{Destination, Signal};

/// Until when is to be sent: none while the run goes on.
pub(crate) type Ending = watch::Receiver<Option<Instant>>;

/// What a collector says is repeated up to here, characters.
const LONGEST_REASON: usize = 300;

/// After the end of a run what is refused for the moment is sent once more, so much later.
pub(super) const LAST_PAUSE: Duration = Duration::from_millis(500);

/// What couriers share with the one who is observed.
#[derive(Clone)]
pub(crate) struct Wires {
    pub ending: Ending,
    /// What a user should be told.
    pub notices: mpsc::Sender<String>,
}

pub(super) struct Courier {
    signal: Signal,
    transport: Option<Transport>,
    wires: Wires,
    has_told: bool,
    /// The run has ended and a request was given up since: those behind it are not waited for.
    hurries: bool,
}

impl Courier {
    /// Connects to nothing yet. Without a transport, which is told, nothing is taken.
    pub fn new(signal: Signal, to: Destination, wires: Wires) -> Self {
        let (transport, fault) = match Transport::new(to) {
            Ok(transport) => (Some(transport), None),
            Err(reason) => (None, Some(reason)),
        };
        let mut courier = Courier {
            signal,
            transport,
            wires,
            has_told: false,
            hurries: false,
        };
        if let Some(reason) = fault {
            courier.tell(&format!("not taken ({reason})"));
        }
        courier
    }

    /// Sends once; returns how much of it was refused.
    pub async fn send<A: Answer>(&mut self, request: &impl Message) -> Result<u64, Refused> {
        let Some(transport) = &mut self.transport else {
            return Err(Refused::for_good("there is no way to send"));
        };
        let answer = transport.send::<A>(request).await;
        let place = transport.place();
        match answer {
            Ok(answer) => {
                let (refused, words) = answer.partial();
                match (refused, words.is_empty()) {
                    (0, true) => {}
                    (0, false) => self.tell(&format!("taken, but {place} says: {words}")),
                    _ => self.tell(&format!(
                        "not all taken ({place}: {refused} refused, {words})"
                    )),
                }
                Ok(refused)
            }
            Err(refused) => {
                self.tell(&format!("not taken ({place}: {})", refused.reason));
                Err(refused)
            }
        }
    }

    /// Sends until it is taken, and returns how much of it was refused; none once it is given up.
    pub async fn deliver<A: Answer>(&mut self, request: &impl Message) -> Option<u64> {
        let mut backoff = Backoff::new(Instant::now());
        let mut is_last = false;
        loop {
            let refused = match self.send::<A>(request).await {
                Ok(refused) => return Some(refused),
                Err(refused) => refused,
            };
            self.hurries |= is_last;
            if !refused.is_passing || self.hurries {
                return None;
            }
            is_last = self.wires.ending.borrow().is_some();
            let pause = match is_last {
                true => LAST_PAUSE,
                false => backoff.pause(Instant::now(), refused.after, fastrand::f64())?,
            };
            self.wait(pause).await;
        }
    }

    /// The end of the run cuts a pause short, for one more try.
    async fn wait(&mut self, pause: Duration) {
        tokio::select! {
            () = sleep(pause) => {}
            _ = self.wires.ending.changed() => {}
        }
    }

    fn tell(&mut self, what: &str) {
        if std::mem::replace(&mut self.has_told, true) {
            return;
        }
        let what: String = what
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(LONGEST_REASON)
            .collect();
        let dropped = "what finds no room to wait is dropped and counted";
        let (signal, then) = match self.signal {
            Signal::Traces => ("traces", dropped),
            Signal::Logs => ("logs", dropped),
            Signal::Metrics => (
                "metrics",
                "they are sent again with all that is counted until then",
            ),
        };
        // Nobody need listen.
        let _ = self.wires.notices.send(format!(
            "telemetry: {signal} are {what}; the run goes on, and {then}"
        ));
    }
}
