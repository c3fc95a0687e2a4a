//! The signals that ask a run to stop, as a stream.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Stop requests: SIGINT (the terminal), SIGTERM (a service manager), SIGUSR1 (Slurm's warning
/// before the time limit), SIGHUP (the terminal is gone).
#[derive(Debug)]
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    user: Signal,
    /// None under `nohup`, which says that a lost terminal is no reason to stop.
    hang_up: Option<Signal>,
}

impl StopSignals {
    /// From now on these signals no longer end the process.
    pub fn listen() -> io::Result<Self> {
        let hang_up = match is_ignored(libc::SIGHUP) {
            true => None,
            false => Some(signal(SignalKind::hangup())?),
        };
        Ok(StopSignals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            user: signal(SignalKind::user_defined1())?,
            hang_up,
        })
    }

    /// The number of the next one.
    pub async fn next(&mut self) -> i32 {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => libc::SIGINT,
            _ = self.terminate.recv() => libc::SIGTERM,
            _ = self.user.recv() => libc::SIGUSR1,
            _ = hang_up => libc::SIGHUP,
        }
    }
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: an all-zero sigaction is a valid value, and the call only fills it in.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut now) == 0
            && now.sa_sigaction == libc::SIG_IGN
    }
}
