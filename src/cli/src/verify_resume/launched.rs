//! A launch of this program by itself: started, watched, struck, and gone when this process is.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use launcher::StopSignals;
use tokio::process::{Child, Command};

use super::place::Place;

/// Between two looks at a run.
const PAUSE: Duration = Duration::from_millis(10);

/// This process was asked to stop by a signal, and what it had started is gone.
#[derive(Debug)]
pub struct Interrupted(pub i32);

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interrupted by signal {}", self.0)
    }
}

impl std::error::Error for Interrupted {}

pub struct Launched {
    process: Child,
    run: PathBuf,
}

impl Launched {
    /// Launches one of the two runs, or goes on with it. What it says is appended to its log.
    ///
    /// It is in a process group of its own, so that Ctrl-C comes to it through this process alone, and is killed with the
    /// calling thread. Its own ranks go with it, as with every launcher that is killed.
    pub fn start(place: &Place, name: &str) -> anyhow::Result<Self> {
        let run = place.run(name);
        let start = || {
            let log = std::fs::File::options()
                .create(true)
                .append(true)
                .open(place.log(name))?;
            let parent = libc::pid_t::try_from(std::process::id()).unwrap_or(-1);
            let mut command = Command::new(std::env::current_exe()?);
            command
                .args(["launch".as_ref(), "--run-dir".as_ref(), run.as_os_str()])
                .arg("--")
                .arg(place.recipe())
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .process_group(0)
                .kill_on_drop(true);
            // SAFETY: `die_with` makes system calls alone.
            unsafe { command.pre_exec(move || die_with(parent)) };
            command.spawn()
        };
        let process = start().with_context(|| format!("cannot launch {}", run.display()))?;
        Ok(Launched { process, run })
    }

    /// The launcher's id; none once it has ended.
    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Sends it a signal, if it has not ended.
    pub fn signal(&self, signal: i32) {
        if let Some(pid) = self.id().and_then(|pid| libc::pid_t::try_from(pid).ok()) {
            // SAFETY: it is our child and not reaped, so the number is still its own.
            unsafe { libc::kill(pid, signal) };
        }
    }

    /// Waits until it holds; or until the launch has ended, which is returned then.
    ///
    /// # Errors
    /// [`Interrupted`] where this process is asked to stop: then the launch is stopped, at once at a second signal.
    pub async fn until(
        &mut self,
        signals: &mut StopSignals,
        mut holds: impl FnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<Option<ExitStatus>> {
        loop {
            tokio::select! {
                biased;
                signal = signals.next() => {
                    self.stop(signals).await?;
                    return Err(Interrupted(signal).into());
                }
                ended = self.process.wait() => return Ok(Some(ended.context(WAIT)?)),
                () = tokio::time::sleep(PAUSE) => {}
            }
            if holds()? {
                return Ok(None);
            }
        }
    }

    /// Waits for its end.
    pub async fn end(&mut self, signals: &mut StopSignals) -> anyhow::Result<ExitStatus> {
        loop {
            if let Some(ended) = self.until(signals, || Ok(false)).await? {
                return Ok(ended);
            }
        }
    }

    /// Ends it, and waits until its ranks are gone as well.
    async fn stop(&mut self, signals: &mut StopSignals) -> anyhow::Result<()> {
        self.signal(libc::SIGTERM);
        tokio::select! {
            ended = self.process.wait() => ended.context(WAIT)?,
            _ = signals.next() => {
                self.signal(libc::SIGKILL);
                self.process.wait().await.context(WAIT)?
            }
        };
        // Of a launcher that was killed the guardian ends the ranks; this waits for it. What was not a run yet has none.
        let _ = launcher::running(&self.run);
        Ok(())
    }
}

const WAIT: &str = "cannot wait for a launch";

/// In the child, before it becomes the launcher.
fn die_with(parent: libc::pid_t) -> io::Result<()> {
    // SAFETY: plain system calls on numbers.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
            return Err(io::Error::last_os_error());
        }
        // It may have died before that.
        match libc::getppid() == parent {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    }
}
