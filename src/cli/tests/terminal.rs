//! What a terminal shows of a launch: bars for the run and its jobs, milestones above them; and no colour where NO_COLOR is set.

#[expect(dead_code, reason = "these launches end by themselves")]
mod fake_run;
#[expect(dead_code, reason = "what they print goes to a terminal")]
mod program;

use std::fs::File;
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::{Command, Stdio};

use fake_run::{command, folder};

/// Ten updates in two epochs, slow enough to be seen.
const TRAINS: &str = r#"
case $job in stage1a*)
    if [ "$RANK" = 0 ]; then
        for step in $(seq 10); do
            sleep 0.1
            say "\"event\":\"step\",\"step\":$step,\"total_steps\":10,\"epoch\":$(((step - 1) / 5)),\"epochs\":2,\"loss\":0.5,
                \"learning_rate\":0.1,\"gradient_norm\":1.0,\"samples\":8,\"images\":8,\"seconds\":2.0"
        done
    fi ;;
esac
"#;

/// A terminal of 120 columns: the end that a program is given, and the end at which it is read.
fn terminal() -> (OwnedFd, File) {
    let (mut reads, mut writes) = (-1, -1);
    let size = libc::winsize {
        ws_row: 40,
        ws_col: 120,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let none = std::ptr::null_mut();
    // SAFETY: two descriptors are written to places that live; no name and no attributes are asked for.
    let opened = unsafe { libc::openpty(&mut reads, &mut writes, none, none.cast(), &size) };
    assert_eq!(opened, 0, "{}", std::io::Error::last_os_error());
    for end in [reads, writes] {
        // Other tests of this process start programs, too, which must not hold it open.
        // SAFETY: a plain system call on a number.
        unsafe { libc::fcntl(end, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    // SAFETY: both are open and belong to nobody else.
    unsafe { (OwnedFd::from_raw_fd(writes), File::from_raw_fd(reads)) }
}

/// All that a terminal was sent until the program ended well.
fn shown(mut command: Command) -> String {
    let (given, mut read) = terminal();
    for name in ["CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command
        .env("TERM", "xterm-256color")
        .stdout(Stdio::null())
        .stderr(given);
    let mut child = command.spawn().unwrap();
    // It holds the terminal's end open.
    drop(command);
    let mut bytes = Vec::new();
    // EIO: the last one that had it open has ended.
    let _ = read.read_to_end(&mut bytes);
    assert!(child.wait().unwrap().success());
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sequences that set a colour: `ESC [ ... m`.
fn has_colours(text: &str) -> bool {
    text.split("\u{1b}[").skip(1).any(|rest| {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == ';'));
        end.is_some_and(|end| end > 0 && rest[end..].starts_with('m') && &rest[..end] != "0")
    })
}

#[test]
fn bars_tell_of_the_run_and_of_each_job_with_its_rate_and_what_remains() {
    let folder = folder(TRAINS);
    let mut launch = command(folder.path(), &["launch"]);
    launch.env_remove("NO_COLOR");
    let shown = shown(launch);
    for part in [
        "jobs ",
        "stage1a-resnest14d-fold0-seed0",
        "/10",
        "epoch 1/2",
        "epoch 2/2",
        "loss 0.5000",
        "4.0 images/s",
        " left",
        "finished after",
        "run done after",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(has_colours(&shown), "{shown:?}");
}

#[test]
fn without_colours_and_quiet() {
    let of = |words: &[&str]| {
        let folder = folder(TRAINS);
        let mut command = command(folder.path(), words);
        command.env("NO_COLOR", "1");
        shown(command)
    };
    let plain = of(&["launch"]);
    assert!(plain.contains("epoch 2/2"), "{plain}");
    assert!(!has_colours(&plain), "{plain:?}");
    assert_eq!(of(&["launch", "--quiet"]), "");
}
