//! For tests of the setup scripts: a home with stubs on PATH, clones in it, and a setup that is stopped half way.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use tempfile::TempDir;

/// A home with stubs on PATH and, in it, clones that share its cache.
pub struct Home {
    folder: TempDir,
}

impl Home {
    /// `python`: the script that stands in for python3. It counts its installs in pip.log, a line each.
    pub fn new(python: &str) -> Self {
        let home = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        fs::create_dir(home.path("bin")).expect("a folder for stubs");
        home.stub("python3", python);
        home
    }

    pub fn path(&self, name: &str) -> PathBuf {
        // The scripts report physical paths, and the temporary folder may lie behind a link.
        let folder = self.folder.path().canonicalize().expect("its real path");
        folder.join(name)
    }

    pub fn stub(&self, name: &str, text: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, text).expect("a stub");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a program");
    }

    /// A clone as far as a script needs one: these files of the repository in their places.
    pub fn clone_with(&self, name: &str, files: &[&str]) -> PathBuf {
        let clone = self.path(name);
        for file in files {
            let place = clone.join(file);
            fs::create_dir_all(place.parent().expect("a folder")).expect("the clone");
            fs::copy(crate::root().join(file), place).expect("a file of the repository");
        }
        clone
    }

    /// A script of a clone, in a process group of its own and in an environment that holds nothing of the caller's.
    pub fn script(&self, path: &Path) -> Command {
        let stubs_first = format!("{}:/usr/bin:/bin", self.path("bin").display());
        let mut command = Command::new(path);
        command
            .env_clear()
            .env("PATH", stubs_first)
            .env("HOME", self.path(""))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .process_group(0);
        command
    }

    /// Makes the stub's install stop half way until a line is written to the fifo that is returned.
    pub fn gate(&self, script: &mut Command) -> PathBuf {
        let gate = self.path("gate");
        let made = Command::new("mkfifo").arg(&gate).status().expect("mkfifo");
        assert!(made.success());
        script.env("GATE", &gate);
        gate
    }

    pub fn pip_runs(&self) -> usize {
        fs::read_to_string(self.path("pip.log")).map_or(0, |log| log.lines().count())
    }

    /// What lies in the cache, sorted.
    pub fn cached(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("cache/spinectl")).expect("the cache");
        let mut names: Vec<String> = entries
            .map(|entry| {
                let name = entry.expect("an entry").file_name();
                name.to_str().expect("a name in UTF-8").to_owned()
            })
            .collect();
        names.sort();
        names
    }
}

/// A script under way. Its whole process group is killed at the end, pip included.
pub struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let started = command.stdout(Stdio::piped()).spawn();
        let mut child = started.expect("the script starts");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, output }
    }

    pub fn next_line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        assert_ne!(line, "", "the script has ended");
        line
    }

    pub fn read_until(&mut self, text: &str) {
        while !self.next_line().contains(text) {}
    }

    pub fn succeeds(&mut self) {
        assert!(self.child.wait().expect("its end").success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let group = libc::pid_t::try_from(self.child.id()).expect("a pid");
            // SAFETY: a plain system call; the child leads a group of its own and is not reaped yet, so the id is still its own.
            unsafe { libc::kill(-group, libc::SIGKILL) };
            let _ = self.child.wait();
        }
    }
}

/// What a script that ends well prints.
#[track_caller]
pub fn succeeds(mut command: Command) -> String {
    let output = command.output().expect("the script starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What a script that ends with `code` says on stderr.
#[track_caller]
pub fn fails(mut command: Command, code: i32) -> String {
    let Output { status, stderr, .. } = command.output().expect("the script starts");
    let message = String::from_utf8(stderr).expect("UTF-8");
    assert_eq!(status.code(), Some(code), "{message}");
    message
}
