//! One process of ours: started in a group of its own, bound to our life, ended with all it started.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::exit::Exit;
use crate::lifeline::Lifeline;
use crate::numa::Cores;

/// The environment variables by which open descriptors are handed over.
const EVENTS: &str = "SPINECTL_EVENT_FD";
const STORE: &str = "SPINECTL_STORE_FD";
const LIFELINE: &str = "SPINECTL_LIFELINE_FD";

/// What to start.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub program: &'a Path,
    pub arguments: &'a [OsString],
    pub environment: Vec<(&'static str, String)>,
    /// Takes stdout and stderr; appended to.
    pub log: &'a Path,
    /// Where it may run, if not everywhere.
    pub cores: Option<Cores>,
    /// Where it meets the others.
    pub store: &'a File,
}

#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Set once it has been reaped; its number may be another's from then on.
    exit: Option<Exit>,
}

impl Process {
    /// Starts it; the stream is where its events arrive, and the lifeline tells when it begins to die.
    ///
    /// It is killed when the calling thread ends, so that thread must live as long as the launcher.
    pub fn start(launch: Launch<'_>) -> io::Result<(Self, UnixStream, Option<Lifeline>)> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(launch.log)?;
        let (ours, theirs) = UnixStream::pair()?;
        // Without one a death is heard of a little later.
        let (lifeline, its_file) = Lifeline::new().ok().unzip();
        let mut command = Command::new(launch.program);
        command
            .args(launch.arguments)
            .envs(launch.environment)
            .env(EVENTS, theirs.as_raw_fd().to_string())
            .env(STORE, launch.store.as_raw_fd().to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        match &its_file {
            Some(file) => command.env(LIFELINE, file.as_raw_fd().to_string()),
            None => command.env_remove(LIFELINE),
        };
        let handed = [
            Some(theirs.as_raw_fd()),
            its_file.as_ref().map(AsRawFd::as_raw_fd),
            Some(launch.store.as_raw_fd()),
        ];
        let parent = libc::pid_t::try_from(std::process::id()).unwrap_or(-1);
        let cores = launch.cores.as_ref().map(Cores::as_set);
        // SAFETY: `bind_to` calls only async-signal-safe functions and allocates nothing.
        unsafe { command.pre_exec(move || bind_to(parent, handed, cores)) };
        let child = command.spawn()?;
        Ok((Process { child, exit: None }, ours, lifeline))
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its id, while that cannot be another's.
    pub fn running(&self) -> Option<u32> {
        self.exit.is_none().then(|| self.child.id())
    }

    /// The process group that it leads.
    pub fn group(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(i32::MAX)
    }

    /// Asks the process itself to save and stop.
    pub fn terminate(&self) {
        if self.exit.is_none() {
            // SAFETY: it is our child and not reaped, so the number is still its own.
            unsafe { libc::kill(self.group(), libc::SIGTERM) };
        }
    }

    /// Kills it and all that it has started.
    pub fn kill(&self) {
        if self.exit.is_none() {
            // SAFETY: as in `terminate`; it leads the group of the same number.
            unsafe { libc::kill(-self.group(), libc::SIGKILL) };
        }
    }

    /// Waits for its end, and ends what is left of its group.
    pub fn reap(&mut self) -> Exit {
        if let Some(exit) = self.exit {
            return exit;
        }
        // SAFETY: an all-zero siginfo is a valid value, and the call only fills it in. WNOWAIT keeps
        // the number its own until the group is ended.
        unsafe {
            let mut about: libc::siginfo_t = std::mem::zeroed();
            let flags = libc::WEXITED | libc::WNOWAIT;
            libc::waitid(libc::P_PID, self.child.id(), &mut about, flags);
        }
        self.kill();
        let exit = match self.child.wait() {
            Ok(status) => Exit::of_status(status.into_raw()),
            // Somebody else has reaped it: how it ended is not to be known.
            Err(_) => Exit::Signal(libc::SIGKILL),
        };
        self.exit = Some(exit);
        exit
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        self.reap();
    }
}

/// In the child, before exec: die with the parent, keep the descriptors that are handed over, stay on the cores.
fn bind_to(
    parent: libc::pid_t,
    handed: [Option<RawFd>; 3],
    cores: Option<libc::cpu_set_t>,
) -> io::Result<()> {
    // SAFETY: plain system calls on this process's own state.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
            return Err(io::Error::last_os_error());
        }
        // A parent that died before the call above sends nothing any more.
        if libc::getppid() != parent {
            libc::_exit(1);
        }
        if let Some(cores) = cores {
            // Without it the rank is slower and no less right.
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &cores);
        }
        for fd in handed.into_iter().flatten() {
            if libc::fcntl(fd, libc::F_SETFD, 0) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(())
}
