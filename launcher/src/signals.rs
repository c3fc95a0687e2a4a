//! The signals that ask a run to stop, as a stream.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Stop requests: SIGINT (the terminal), SIGTERM (a service manager), SIGUSR1 (Slurm's warning before
/// the time limit), SIGHUP (the terminal is gone).
#[derive(Debug)]
pub(crate) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    user: Signal,
    hang_up: Signal,
}

impl StopSignals {
    /// From now on these signals no longer end the process.
    pub fn listen() -> io::Result<Self> {
        Ok(StopSignals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            user: signal(SignalKind::user_defined1())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The number of the next one.
    pub async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => libc::SIGINT,
            _ = self.terminate.recv() => libc::SIGTERM,
            _ = self.user.recv() => libc::SIGUSR1,
            _ = self.hang_up.recv() => libc::SIGHUP,
        }
    }
}
