//! `make setup`: interrupted, raced, refused and repeated, with a stub in the place of Python and pip.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use spinectl_tests::setup::{Home, Running, fails, succeeds};

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

const SCRIPT: &str = "scripts/setup-libtorch.sh";

fn home() -> Home {
    let home = Home::new(PYTHON);
    for tool in ["g++", "make", "cargo"] {
        home.stub(tool, "#!/bin/sh\n");
    }
    home
}

fn clone(home: &Home, name: &str) -> PathBuf {
    home.clone_with(name, &[SCRIPT])
}

fn setup(home: &Home, clone: &Path) -> Command {
    let mut command = home.script(&clone.join(SCRIPT));
    command.env("SPINECTL_LIBTORCH_SET", "small");
    command
}

/// A setup that has come half way and stays there until a line is written to the gate.
fn start_gated(home: &Home, clone: &Path) -> Running {
    let mut command = setup(home, clone);
    home.gate(&mut command);
    let mut running = Running::start(&mut command);
    running.read_until("half way");
    running
}

fn install(home: &Home) -> PathBuf {
    home.path("cache/spinectl/libtorch-2.11.0-small")
}

/// A folder like an unpacked libtorch of this version.
fn libtorch(home: &Home, name: &str, minor: u32) -> PathBuf {
    let folder = home.path(name);
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

fn linked(clone: &Path) -> PathBuf {
    fs::read_link(clone.join(".libtorch")).unwrap()
}

#[test]
fn the_second_run_finds_the_first_ones_install() {
    let home = home();
    let (first, second) = (clone(&home, "a"), clone(&home, "b"));
    assert!(succeeds(setup(&home, &first)).contains("1.2 GB on disk"));
    for clone in [&first, &second] {
        assert!(succeeds(setup(&home, clone)).contains("already there"));
        assert_eq!(linked(clone), install(&home).join("torch"));
    }
    assert_eq!(home.pip_runs(), 1);
}

#[test]
fn an_interrupted_install_is_never_taken_for_a_whole_one() {
    let home = home();
    let clone = clone(&home, "a");
    drop(start_gated(&home, &clone));
    assert!(!install(&home).exists());
    assert!(!clone.join(".libtorch").is_symlink());

    assert!(succeeds(setup(&home, &clone)).contains("removing what an interrupted setup left"));
    assert_eq!(linked(&clone), install(&home).join("torch"));
    assert_eq!(home.pip_runs(), 2);
    assert_eq!(
        home.cached(),
        [".libtorch-2.11.0-small.lock", "libtorch-2.11.0-small"]
    );
}

#[test]
fn two_clones_at_once_install_once() {
    let home = home();
    let (first, second) = (clone(&home, "a"), clone(&home, "b"));
    let mut installs = start_gated(&home, &first);
    let mut waits = Running::start(&mut setup(&home, &second));
    let line = waits.next_line();
    assert!(line.contains("waiting for that one"), "{line}");
    fs::write(home.path("gate"), "open\n").unwrap();
    installs.succeeds();
    waits.succeeds();
    assert_eq!(home.pip_runs(), 1);
    for clone in [&first, &second] {
        assert_eq!(linked(clone), install(&home).join("torch"));
    }
}

#[test]
fn an_install_without_its_marker_is_made_again() {
    let home = home();
    let clone = clone(&home, "a");
    succeeds(setup(&home, &clone));
    fs::remove_file(install(&home).join("spinectl-install.txt")).unwrap();
    assert!(succeeds(setup(&home, &clone)).contains("installing"));
    assert_eq!(home.pip_runs(), 2);
}

#[test]
fn a_libtorch_of_another_version_is_refused() {
    let home = home();
    let clone = clone(&home, "a");
    let mut command = setup(&home, &clone);
    command.env("LIBTORCH", libtorch(&home, "old", 5));
    let message = fails(command, 2);
    assert!(
        message.contains("it is version 2.5.1 and the bindings (tch) need 2.11"),
        "{message}"
    );
    assert!(!clone.join(".libtorch").is_symlink());
    assert_eq!(home.pip_runs(), 0);
}

#[test]
fn a_folder_that_is_no_libtorch_is_refused() {
    let home = home();
    let clone = clone(&home, "a");
    let mut command = setup(&home, &clone);
    command.env("LIBTORCH", home.path("bin"));
    let message = fails(command, 2);
    assert!(
        message.contains("it has no lib/libtorch_cpu.so"),
        "{message}"
    );
}

#[test]
fn a_libtorch_that_was_named_once_stays() {
    let home = home();
    let clone = clone(&home, "a");
    let mine = libtorch(&home, "mine", 11);
    let mut command = setup(&home, &clone);
    command.env("LIBTORCH", &mine);
    succeeds(command);
    assert_eq!(linked(&clone), mine);

    let mut command = setup(&home, &clone);
    command.env_remove("SPINECTL_LIBTORCH_SET");
    assert!(succeeds(command).contains("already there"));
    assert_eq!(linked(&clone), mine);
    assert_eq!(home.pip_runs(), 0);
}

/// A login node without a GPU and a node with one may share a clone: the first must not take away what the second runs on.
#[test]
fn the_full_set_stays_on_a_machine_without_a_gpu() {
    let home = home();
    let clone = clone(&home, "a");
    let mut command = setup(&home, &clone);
    command.env("SPINECTL_LIBTORCH_SET", "full");
    succeeds(command);
    let full = linked(&clone);
    assert!(full.ends_with("libtorch-2.11.0-full/torch"), "{full:?}");

    let mut command = setup(&home, &clone);
    command.env_remove("SPINECTL_LIBTORCH_SET");
    succeeds(command);
    assert_eq!(linked(&clone), full);
    assert_eq!(home.pip_runs(), 1);
}

/// Cargo sets LIBTORCH to the link for what it runs: the link must not come to point at itself.
#[test]
fn the_link_itself_is_no_choice() {
    let home = home();
    let clone = clone(&home, "a");
    symlink("nowhere", clone.join(".libtorch")).unwrap();
    let mut command = setup(&home, &clone);
    command.env("LIBTORCH", clone.join(".libtorch"));
    succeeds(command);
    assert_eq!(linked(&clone), install(&home).join("torch"));
}

#[test]
fn a_full_disk_is_told_before_the_download() {
    let home = home();
    let clone = clone(&home, "a");
    home.stub(
        "df",
        "#!/bin/sh\necho Filesystem 1024-blocks Used Available Capacity Mounted\necho disk 9000000 8000000 1100000 88% /\n",
    );
    let message = fails(setup(&home, &clone), 3);
    assert!(message.contains("takes 2.5 GB at its peak"), "{message}");
    assert!(message.contains("has 1.1 GB free"), "{message}");
    assert_eq!(home.pip_runs(), 0);
}

#[test]
fn a_missing_pip_is_told_with_what_to_install() {
    let home = home();
    let clone = clone(&home, "a");
    home.stub("python3", "#!/bin/sh\nexit 1\n");
    let message = fails(setup(&home, &clone), 3);
    assert!(message.contains("apt-get install python3-pip"), "{message}");
}
