//! `make setup`: interrupted, raced, refused and repeated, with a stub in the place of Python and pip.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use tempfile::TempDir;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/setup-libtorch.sh");

/// Counts its installs in pip.log. Where GATE names a fifo, it stops half way until somebody writes to that.
const PYTHON: &str = r#"#!/bin/sh
case "$*" in
"-m pip install"*) ;;
*) exit 0 ;;
esac
while [ "$1" != --target ]; do shift; done
echo "$*" >>"$HOME/pip.log"
mkdir -p "$2/torch/lib" "$2/torch/include/torch/headeronly" "$2/torch/include/torch/csrc/distributed/c10d"
: >"$2/torch/lib/libtorch_cpu.so"
echo "pip is half way"
[ -z "$GATE" ] || read -r _ <"$GATE"
: >"$2/torch/include/torch/csrc/distributed/c10d/ProcessGroupGloo.hpp"
cat >"$2/torch/include/torch/headeronly/version.h" <<END
#define TORCH_VERSION_MAJOR 2
#define TORCH_VERSION_MINOR 11
#define TORCH_VERSION_PATCH 0
END
"#;

/// A home with stubs on PATH and, in it, clones that share its cache.
struct Home {
    folder: TempDir,
}

impl Home {
    fn new() -> Self {
        let home = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(home.path("bin")).unwrap();
        home.stub("python3", PYTHON);
        for tool in ["g++", "make", "cargo"] {
            home.stub(tool, "#!/bin/sh\n");
        }
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        // The script reports physical paths, and the temporary folder may lie behind a link.
        self.folder.path().canonicalize().unwrap().join(name)
    }

    fn stub(&self, name: &str, text: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A clone as far as the script needs one: itself in its place.
    fn clone_of_repository(&self, name: &str) -> PathBuf {
        let clone = self.path(name);
        fs::create_dir_all(clone.join("scripts")).unwrap();
        fs::copy(SCRIPT, clone.join("scripts/setup-libtorch.sh")).unwrap();
        clone
    }

    /// The script in `clone`, in a process group of its own and in an environment that holds nothing of the caller's.
    fn setup(&self, clone: &Path) -> Command {
        let stubs_first = format!("{}:/usr/bin:/bin", self.path("bin").display());
        let mut command = Command::new(clone.join("scripts/setup-libtorch.sh"));
        command
            .env_clear()
            .env("PATH", stubs_first)
            .env("HOME", self.path(""))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("SPINECTL_LIBTORCH_SET", "small")
            .process_group(0);
        command
    }

    fn install(&self) -> PathBuf {
        self.path("cache/spinectl/libtorch-2.11.0-small")
    }

    fn pip_runs(&self) -> usize {
        fs::read_to_string(self.path("pip.log")).map_or(0, |log| log.lines().count())
    }

    /// A setup whose pip stops half way until a line is written to the gate.
    fn gated_setup(&self, clone: &Path) -> Command {
        let gate = self.path("gate");
        let made = Command::new("mkfifo").arg(&gate).status().unwrap();
        assert!(made.success());
        let mut setup = self.setup(clone);
        setup.env("GATE", gate);
        setup
    }

    /// A folder like an unpacked libtorch of this version.
    fn libtorch(&self, name: &str, minor: u32) -> PathBuf {
        let folder = self.path(name);
        for file in [
            "lib/libtorch_cpu.so",
            "include/torch/csrc/distributed/c10d/ProcessGroupGloo.hpp",
            "include/torch/csrc/api/include/torch/version.h",
        ] {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let text = format!(
                "#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR {minor}\n#define TORCH_VERSION_PATCH 1\n"
            );
            fs::write(path, text).unwrap();
        }
        folder
    }
}

/// A setup under way. Its whole process group is killed at the end, pip included.
struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    fn next_line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert_ne!(line, "", "the setup has ended");
        line
    }

    fn read_until(&mut self, text: &str) {
        while !self.next_line().contains(text) {}
    }

    fn succeeds(&mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let group = libc::pid_t::try_from(self.child.id()).unwrap();
            // SAFETY: a plain system call; the child leads a group of its own and is not reaped yet, so the id is still its own.
            unsafe { libc::kill(-group, libc::SIGKILL) };
            let _ = self.child.wait();
        }
    }
}

#[track_caller]
fn succeeds(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn fails(mut command: Command, code: i32) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    let message = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(code), "{message}");
    message
}

fn linked(clone: &Path) -> PathBuf {
    fs::read_link(clone.join(".libtorch")).unwrap()
}

#[test]
fn the_second_run_finds_the_first_ones_install() {
    let home = Home::new();
    let (first, second) = (home.clone_of_repository("a"), home.clone_of_repository("b"));
    assert!(succeeds(home.setup(&first)).contains("1.2 GB on disk"));
    for clone in [&first, &second] {
        assert!(succeeds(home.setup(clone)).contains("already there"));
        assert_eq!(linked(clone), home.install().join("torch"));
    }
    assert_eq!(home.pip_runs(), 1);
}

#[test]
fn an_interrupted_install_is_never_taken_for_a_whole_one() {
    let home = Home::new();
    let clone = home.clone_of_repository("a");
    let mut interrupted = Running::start(&mut home.gated_setup(&clone));
    interrupted.read_until("half way");
    drop(interrupted);
    assert!(!home.install().exists());
    assert!(!clone.join(".libtorch").is_symlink());

    assert!(succeeds(home.setup(&clone)).contains("removing what an interrupted setup left"));
    assert_eq!(linked(&clone), home.install().join("torch"));
    assert_eq!(home.pip_runs(), 2);
    let mut left: Vec<_> = fs::read_dir(home.path("cache/spinectl"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(
        left,
        [".libtorch-2.11.0-small.lock", "libtorch-2.11.0-small"]
    );
}

#[test]
fn two_clones_at_once_install_once() {
    let home = Home::new();
    let (first, second) = (home.clone_of_repository("a"), home.clone_of_repository("b"));
    let mut installs = Running::start(&mut home.gated_setup(&first));
    installs.read_until("half way");
    let mut waits = Running::start(&mut home.setup(&second));
    let line = waits.next_line();
    assert!(line.contains("waiting for that one"), "{line}");
    fs::write(home.path("gate"), "open\n").unwrap();
    installs.succeeds();
    waits.succeeds();
    assert_eq!(home.pip_runs(), 1);
    for clone in [&first, &second] {
        assert_eq!(linked(clone), home.install().join("torch"));
    }
}

#[test]
fn an_install_without_its_marker_is_made_again() {
    let home = Home::new();
    let clone = home.clone_of_repository("a");
    succeeds(home.setup(&clone));
    fs::remove_file(home.install().join("spinectl-install.txt")).unwrap();
    assert!(succeeds(home.setup(&clone)).contains("installing"));
    assert_eq!(home.pip_runs(), 2);
}

#[test]
fn a_libtorch_of_another_version_is_refused() {
    let home = Home::new();
    let clone = home.clone_of_repository("a");
    let mut setup = home.setup(&clone);
    setup.env("LIBTORCH", home.libtorch("old", 5));
    let message = fails(setup, 2);
    assert!(
        message.contains("it is version 2.5.1 and the bindings (tch) need 2.11"),
        "{message}"
    );
    assert!(!clone.join(".libtorch").is_symlink());
    assert_eq!(home.pip_runs(), 0);
}

#[test]
fn a_folder_that_is_no_libtorch_is_refused() {
    let home = Home::new();
    let clone = home.clone_of_repository("a");
    let mut setup = home.setup(&clone);
    setup.env("LIBTORCH", home.path("bin"));
    let message = fails(setup, 2);
    assert!(
        message.contains("it has no lib/libtorch_cpu.so"),
        "{message}"
    );
}

#[test]
fn a_libtorch_that_was_named_once_stays() {
    let home = Home::new();
    let clone = home.clone_of_repository("a");
    let mine = home.libtorch("mine", 11);
    let mut setup = home.setup(&clone);
    setup.env("LIBTORCH", &mine);
    succeeds(setup);
    assert_eq!(linked(&clone), mine);

    let mut setup = home.setup(&clone);
    setup.env_remove("SPINECTL_LIBTORCH_SET");
    assert!(succeeds(setup).contains("already there"));
    assert_eq!(linked(&clone), mine);
    assert_eq!(home.pip_runs(), 0);
}

/// A login node without a GPU and a node with one may share a clone: the first must not take away what the second runs on.
#[test]
fn the_full_set_stays_on_a_machine_without_a_gpu() {
    let home = Home::new();
    let clone = home.clone_of_repository("a");
    let mut setup = home.setup(&clone);
    setup.env("SPINECTL_LIBTORCH_SET", "full");
    succeeds(setup);
    let full = linked(&clone);
    assert!(full.ends_with("libtorch-2.11.0-full/torch"), "{full:?}");

    let mut setup = home.setup(&clone);
    setup.env_remove("SPINECTL_LIBTORCH_SET");
    succeeds(setup);
    assert_eq!(linked(&clone), full);
    assert_eq!(home.pip_runs(), 1);
}

/// Cargo sets LIBTORCH to the link for what it runs: the link must not come to point at itself.
#[test]
fn the_link_itself_is_no_choice() {
    let home = Home::new();
    let clone = home.clone_of_repository("a");
    symlink("nowhere", clone.join(".libtorch")).unwrap();
    let mut setup = home.setup(&clone);
    setup.env("LIBTORCH", clone.join(".libtorch"));
    succeeds(setup);
    assert_eq!(linked(&clone), home.install().join("torch"));
}

#[test]
fn a_full_disk_is_told_before_the_download() {
    let home = Home::new();
    let clone = home.clone_of_repository("a");
    home.stub(
        "df",
        "#!/bin/sh\necho Filesystem 1024-blocks Used Available Capacity Mounted\necho disk 9000000 8000000 1100000 88% /\n",
    );
    let message = fails(home.setup(&clone), 3);
    assert!(message.contains("takes 2.5 GB at its peak"), "{message}");
    assert!(message.contains("has 1.1 GB free"), "{message}");
    assert_eq!(home.pip_runs(), 0);
}

#[test]
fn a_missing_pip_is_told_with_what_to_install() {
    let home = Home::new();
    let clone = home.clone_of_repository("a");
    home.stub("python3", "#!/bin/sh\nexit 1\n");
    let message = fails(home.setup(&clone), 3);
    assert!(message.contains("apt-get install python3-pip"), "{message}");
}
