//! `make setup-tests`: interrupted, raced, refused and repeated, with a stub in the place of Python and pip.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use spinectl_tests::setup::{Home, Running, fails, succeeds};

const SCRIPT: &str = "scripts/setup-tests.sh";
const REQUIREMENTS: &str = "tests/python/requirements.txt";

/// Makes an environment with itself as its Python. Its installs stop half way where GATE names a fifo, and fail where a file
/// `offline` lies in the home; timm is found once an install is done, unless a file `upgraded` says that Python has changed.
const PYTHON: &str = r#"#!/bin/sh
own=$(dirname "$(dirname "$0")")
case "$*" in
"-m venv "*)
  mkdir -p "$3/bin"
  cp "$0" "$3/bin/python"
  ;;
"-m pip install"*)
  echo "$*" >>"$HOME/pip.log"
  echo "pip is half way"
  [ -z "$GATE" ] || read -r _ <"$GATE"
  [ ! -e "$HOME/offline" ] || { echo "no route to the index" >&2; exit 1; }
  : >"$own/timm"
  ;;
*find_spec*) [ -e "$own/timm" ] && [ ! -e "$HOME/upgraded" ] ;;
*) exit 0 ;;
esac
"#;

fn clone(home: &Home, name: &str) -> PathBuf {
    home.clone_with(name, &[SCRIPT, REQUIREMENTS])
}

fn setup(home: &Home, clone: &Path) -> Command {
    home.script(&clone.join(SCRIPT))
}

/// A setup that has come half way and stays there until a line is written to the gate.
fn start_gated(home: &Home, clone: &Path) -> Running {
    let mut command = setup(home, clone);
    home.gate(&mut command);
    let mut running = Running::start(&mut command);
    running.read_until("half way");
    running
}

fn linked(clone: &Path) -> PathBuf {
    fs::read_link(clone.join(".venv")).unwrap()
}

/// The environments in the cache, whole or not.
fn environments(home: &Home) -> Vec<PathBuf> {
    let names = home.cached().into_iter();
    names
        .filter(|name| name.starts_with("tests-"))
        .map(|name| home.path("cache/spinectl").join(name))
        .collect()
}

fn is_marked(environment: &Path) -> bool {
    environment.join("spinectl-requirements.txt").exists()
}

#[test]
fn clones_share_one_environment() {
    let home = Home::new(PYTHON);
    let (first, second) = (clone(&home, "a"), clone(&home, "b"));
    assert!(succeeds(setup(&home, &first)).contains("5.2 GB on disk"));
    for clone in [&first, &second] {
        assert!(succeeds(setup(&home, clone)).contains("already there"));
        assert_eq!(environments(&home), [linked(clone)]);
        assert!(clone.join(".venv/bin/python").exists());
    }
    assert!(is_marked(&linked(&first)));
    assert_eq!(home.pip_runs(), 1);
}

#[test]
fn other_requirements_make_another_environment_and_leave_the_first() {
    let home = Home::new(PYTHON);
    let (first, second) = (clone(&home, "a"), clone(&home, "b"));
    succeeds(setup(&home, &first));
    fs::write(second.join(REQUIREMENTS), "timm==1.0.32\n").unwrap();
    let said = succeeds(setup(&home, &second));
    let old = linked(&first);
    let name = old.file_name().unwrap().to_str().unwrap();
    assert!(said.contains("to be deleted where no clone needs them") && said.contains(name));
    assert_ne!(linked(&second), old);
    assert!(is_marked(&old) && is_marked(&linked(&second)));
}

#[test]
fn an_interrupted_install_is_never_taken_for_a_whole_one() {
    let home = Home::new(PYTHON);
    let clone = clone(&home, "a");
    drop(start_gated(&home, &clone));
    assert!(environments(&home).iter().all(|left| !is_marked(left)));
    assert!(!clone.join(".venv").is_symlink());

    assert!(succeeds(setup(&home, &clone)).contains("removing what cannot be used"));
    assert!(is_marked(&linked(&clone)));
    assert!(!linked(&clone).join(".tmp").exists());
    assert_eq!(home.pip_runs(), 2);
}

#[test]
fn two_clones_at_once_install_once() {
    let home = Home::new(PYTHON);
    let (first, second) = (clone(&home, "a"), clone(&home, "b"));
    let mut installs = start_gated(&home, &first);
    let mut waits = Running::start(&mut setup(&home, &second));
    let line = waits.next_line();
    assert!(line.contains("waiting for that one"), "{line}");
    fs::write(home.path("gate"), "open\n").unwrap();
    installs.succeeds();
    waits.succeeds();
    assert_eq!(home.pip_runs(), 1);
    assert_eq!(linked(&first), linked(&second));
}

#[test]
fn a_failed_install_leaves_nothing_and_says_what_failed() {
    let home = Home::new(PYTHON);
    let clone = clone(&home, "a");
    fs::write(home.path("offline"), "").unwrap();
    let message = fails(setup(&home, &clone), 3);
    assert!(message.contains("no route to the index"), "{message}");
    assert!(message.contains("Run make setup-tests again"), "{message}");
    assert_eq!(environments(&home), Vec::<PathBuf>::new());
    assert!(!clone.join(".venv").is_symlink());
}

/// An environment finds its packages by the version of the python3 that it was made with.
#[test]
fn an_environment_of_another_python_is_made_again() {
    let home = Home::new(PYTHON);
    let clone = clone(&home, "a");
    succeeds(setup(&home, &clone));
    fs::write(home.path("upgraded"), "").unwrap();
    assert!(succeeds(setup(&home, &clone)).contains("of another python3"));
    assert_eq!(home.pip_runs(), 2);
}

#[test]
fn the_folder_of_an_earlier_version_gives_way_to_the_link() {
    let home = Home::new(PYTHON);
    let clone = clone(&home, "a");
    fs::create_dir(clone.join(".venv")).unwrap();
    fs::write(clone.join(".venv/spinectl-requirements.txt"), "nibabel\n").unwrap();
    succeeds(setup(&home, &clone));
    assert_eq!(environments(&home), [linked(&clone)]);
}

#[test]
fn a_folder_of_the_users_is_left_alone() {
    let home = Home::new(PYTHON);
    let clone = clone(&home, "a");
    fs::create_dir(clone.join(".venv")).unwrap();
    let message = fails(setup(&home, &clone), 2);
    assert!(message.contains("move it away"), "{message}");
    assert!(!clone.join(".venv").is_symlink());
}

#[test]
fn a_link_to_nowhere_is_replaced() {
    let home = Home::new(PYTHON);
    let clone = clone(&home, "a");
    symlink("nowhere", clone.join(".venv")).unwrap();
    succeeds(setup(&home, &clone));
    assert_eq!(environments(&home), [linked(&clone)]);
}

#[test]
fn a_full_disk_is_told_before_the_download() {
    let home = Home::new(PYTHON);
    let clone = clone(&home, "a");
    home.stub(
        "df",
        "#!/bin/sh\necho Filesystem 1024-blocks Used Available Capacity Mounted\necho disk 9000000 8000000 2100000 78% /\n",
    );
    let message = fails(setup(&home, &clone), 3);
    assert!(message.contains("takes 10.7 GB at its peak"), "{message}");
    assert!(message.contains("has 2.1 GB free"), "{message}");
    assert_eq!(home.pip_runs(), 0);
}

#[test]
fn a_missing_venv_is_told_with_what_to_install() {
    let home = Home::new("#!/bin/sh\nexit 1\n");
    let message = fails(setup(&home, &clone(&home, "a")), 3);
    assert!(
        message.contains("apt-get install python3-venv"),
        "{message}"
    );
}
