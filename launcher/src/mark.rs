//! The mark by which a process of a launch is known, whatever group and session it has moved to.
//!
//! Ranks are started with `SPINECTL_LAUNCH=<mark of the launch>,<mark of the attempt>` in their environment, and all that they
//! start inherits it. A launch that a rank starts adds its own marks to those: it ends with the outer one, and not the
//! other way round.
//!
//! What a sweep calls takes no lock and allocates nothing: the guardian sweeps in a process that was forked from one with
//! threads.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, RawDir, open, openat};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::rand::{GetRandomFlags, getrandom};

const VARIABLE: &str = "SPINECTL_LAUNCH";
/// Hexadecimal digits of a mark: nobody meets one by chance, or guesses it.
const LENGTH: usize = 32;
/// Between two looks; a program that is about to be executed has no environment for a moment.
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark([u8; LENGTH]);

impl Mark {
    /// One that no process bears yet.
    pub fn new() -> io::Result<Self> {
        let mut random = [0; LENGTH];
        getrandom(&mut random, GetRandomFlags::empty())?;
        // 256 is a multiple of 16: every digit is as likely as another.
        Ok(Mark(random.map(|byte| {
            b"0123456789abcdef"
                .get(usize::from(byte % 16))
                .copied()
                .unwrap_or(b'0')
        })))
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Kills every process that bears it, until two looks in a row find none; false where some are left after `patience`.
    pub fn sweep(&self, patience: Duration) -> bool {
        let begun = Instant::now();
        let mut quiet = 0;
        loop {
            match self.kill_all() {
                Ok(0) if quiet == 1 => return true,
                Ok(0) => quiet += 1,
                Ok(_) => quiet = 0,
                // Without /proc there is nothing to go by.
                Err(_) => return false,
            }
            if begun.elapsed() > patience {
                return false;
            }
            thread::sleep(PAUSE);
        }
    }

    /// Looks once; how many bear it.
    fn kill_all(&self) -> rustix::io::Result<usize> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let all = open(c"/proc", flags, Mode::empty())?;
        let all = all.as_fd();
        let mut buffer = [MaybeUninit::uninit(); 8 << 10];
        let mut entries = RawDir::new(all, &mut buffer);
        let mut found = 0;
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if let Some(pid) = number(name)
                && self.is_on(all, name)
                && let Ok(process) = pidfd_open(pid, PidfdFlags::empty())
                // Once more: the number may have gone to another process before the descriptor stood for it.
                && self.is_on(all, name)
            {
                found += 1;
                // One that has ended meanwhile is what is wanted.
                let _ = pidfd_send_signal(&process, Signal::KILL);
            }
        }
        Ok(found)
    }

    /// Whether a process was started with it. Those of other users cannot be read, and are not ours.
    fn is_on(&self, all: BorrowedFd<'_>, pid: &CStr) -> bool {
        let open = |folder: BorrowedFd<'_>, name: &CStr, flags| {
            openat(folder, name, flags | OFlags::CLOEXEC, Mode::empty())
        };
        let environment = open(all, pid, OFlags::PATH | OFlags::DIRECTORY)
            .and_then(|folder| open(folder.as_fd(), c"environ", OFlags::RDONLY));
        let Ok(environment) = environment else {
            return false;
        };
        let mut buffer = [0; 4 << 10];
        let mut kept = 0;
        while let Some(room) = buffer.get_mut(kept..)
            && let Ok(read @ 1..) = rustix::io::read(&environment, room)
        {
            let filled = kept + read;
            let text = buffer.get(..filled).unwrap_or_default();
            if text.windows(LENGTH).any(|part| part == self.0) {
                return true;
            }
            // It may lie across two reads.
            kept = filled.min(LENGTH - 1);
            buffer.copy_within(filled - kept..filled, 0);
        }
        false
    }
}

/// The variable by which processes bear these marks, and those that this process bears itself.
pub(crate) fn variable(marks: [Mark; 2]) -> (&'static str, String) {
    let inherited = std::env::var(VARIABLE).ok();
    let own = marks.iter().map(Mark::text);
    let all: Vec<&str> = inherited.as_deref().into_iter().chain(own).collect();
    (VARIABLE, all.join(","))
}

/// The process that an entry of /proc stands for.
fn number(name: &CStr) -> Option<Pid> {
    Pid::from_raw(name.to_str().ok()?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A process that bears these marks, and many other variables.
    fn sleeper(marks: [Mark; 2]) -> Child {
        let (name, value) = variable(marks);
        let others = (0..500).map(|number| (format!("V{number}"), "x".repeat(number % 97)));
        let mut command = Command::new("sleep");
        command.arg("1000").envs(others).env(name, value);
        command.stdin(Stdio::null()).spawn().unwrap()
    }

    fn lives(child: &mut Child) -> bool {
        child.try_wait().unwrap().is_none()
    }

    #[test]
    fn a_sweep_ends_those_that_bear_the_mark_and_no_other() {
        let [launch, one, two, another] = [(); 4].map(|()| Mark::new().unwrap());
        let mut all = [
            sleeper([launch, one]),
            sleeper([launch, two]),
            sleeper([another, two]),
        ];
        let alive = |all: &mut [Child; 3]| all.each_mut().map(lives);
        assert!(Mark::new().unwrap().sweep(PATIENCE), "nobody bears it");
        assert_eq!(alive(&mut all), [true; 3]);
        assert!(one.sweep(PATIENCE));
        all[0].wait().unwrap();
        assert_eq!(alive(&mut all), [false, true, true]);
        assert!(launch.sweep(PATIENCE));
        all[1].wait().unwrap();
        assert_eq!(alive(&mut all), [false, false, true]);
        assert!(another.sweep(PATIENCE));
        all[2].wait().unwrap();
    }

    #[test]
    fn a_mark_is_found_wherever_it_lies_in_an_environment() {
        let mark = Mark::new().unwrap();
        for before in (4096 - 2 * LENGTH..4096 + LENGTH).step_by(7) {
            let mut command = Command::new("sleep");
            command.arg("1000").env_clear();
            command.env("A", "x".repeat(before)).env("B", mark.text());
            let mut child = command.stdin(Stdio::null()).spawn().unwrap();
            assert!(mark.sweep(PATIENCE));
            assert!(!child.wait().unwrap().success(), "{before}");
        }
    }

    #[test]
    fn a_family_that_keeps_starting_children_is_ended_too() {
        let mark = Mark::new().unwrap();
        let (name, value) = variable([mark, mark]);
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("bash");
        command
            .args([
                "-c",
                r#"while :; do setsid bash -c 'echo >"$0/$$"; exec sleep 1000' "$0" & done"#,
            ])
            .arg(folder.path())
            .env(name, value);
        let mut child = command.stdin(Stdio::null()).spawn().unwrap();
        let count = || std::fs::read_dir(folder.path()).unwrap().count();
        while count() < 10 {
            thread::sleep(PAUSE);
        }
        assert!(mark.sweep(PATIENCE));
        child.wait().unwrap();
        let before = count();
        thread::sleep(10 * PAUSE);
        assert_eq!(count(), before, "somebody lives on");
    }
}
