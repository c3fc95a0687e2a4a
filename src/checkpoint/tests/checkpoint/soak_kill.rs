//! A process that writes checkpoints on and on, killed at moments that nobody chose: what it said to be durable is there,
//! and what is there is what was written.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use checkpoint::{Checkpoint, Retention, newest_valid_of, read, retain, write};
use rand::RngExt;

use crate::chance::{seeded, tries};
use crate::fixture::{PLAN, checkpoint, names, steps};

const ROOT: &str = "CHECKPOINT_SOAK_ROOT";
pub const KEEP_TWO: Retention = Retention {
    keep_last: 2,
    keep_every: 0,
    keep_best: None,
};

/// The checkpoint of a step: 4 kB to 160 kB, as the step has it.
pub fn of_step(step: u64) -> Checkpoint {
    checkpoint(step, 500 + (step * 7919 % 20_000) as usize)
}

fn write_next(root: &Path, step: u64) {
    write(root, &of_step(step)).unwrap();
    retain(root, PLAN, &KEEP_TWO).unwrap();
}

/// What the child runs: it says each step once it is durable. Without a folder to write in it is a test of two steps.
#[test]
fn writer() {
    if let Some(root) = std::env::var_os(ROOT) {
        let root = Path::new(&root);
        let newest = newest_valid_of(root, PLAN).unwrap();
        let mut out = std::io::stdout();
        for step in newest.map_or(0, |found| found.step) + 1.. {
            write_next(root, step);
            writeln!(out, "\ndurable {step}").unwrap();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    for step in [1, 2, 3] {
        write_next(folder.path(), step);
    }
    assert_eq!(steps(folder.path()), [2, 3]);
}

/// Runs the writer and kills it `after` it has begun; returns the last step that it said to be durable.
fn write_and_die(root: &Path, after: Duration) -> Option<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "soak_kill::writer", "--nocapture"])
        .env(ROOT, root)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    // The first byte is the test runner's greeting: from here on the writer is at work, or about to be.
    let mut said = vec![0];
    out.read_exact(&mut said).unwrap();
    std::thread::sleep(after);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    out.read_to_end(&mut said).unwrap();
    said_durable(&String::from_utf8(said).unwrap())
}

/// The last step that a writer said to be durable.
pub fn said_durable(said: &str) -> Option<u64> {
    // What is not ended by a line's end was not said in full.
    let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let mut durable = whole
        .lines()
        .filter_map(|line| line.strip_prefix("durable "));
    durable.next_back().map(|step| step.parse().unwrap())
}

#[test]
fn whatever_moment_a_writer_is_killed_at_what_it_said_is_there() {
    let (mut random, seed) = seeded("a writer is killed");
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let (mut acknowledged, mut caught) = (0, 0);
    for kill in 0..tries(500) {
        let after = Duration::from_micros(random.random_range(0..40_000));
        let place = format!("SPINECTL_SOAK_SEED={seed}, kill {kill} after {after:?}");
        acknowledged = write_and_die(root, after).unwrap_or(acknowledged);

        let left = names(root);
        caught += left.iter().filter(|name| name.starts_with(".tmp-")).count();
        let found = newest_valid_of(root, PLAN).unwrap_or_else(|error| panic!("{place}: {error}"));
        let newest = found.as_ref().map_or(0, |found| found.step);
        assert!(
            newest >= acknowledged,
            "{place}: step {acknowledged} was said to be durable, {newest} is the newest of {left:?}"
        );
        if let Some(found) = found {
            assert_eq!(found.skipped, [], "{place}: a broken one is to be seen");
            let contents = read(&found.path, Some(PLAN));
            let contents = contents.unwrap_or_else(|error| panic!("{place}: {error}"));
            assert!(contents == of_step(newest), "{place}: other bytes");
        }

        write_next(root, newest + 1);
        acknowledged = newest + 1;
        let left = names(root);
        assert!(
            left.len() <= 2 && left.iter().all(|name| name.starts_with("step-")),
            "{place}: {left:?} stay after the next write"
        );
    }
    println!(
        "{caught} of {} writers left something half written",
        tries(500)
    );
    assert!(
        caught > 0,
        "SPINECTL_SOAK_SEED={seed}: no writer was killed while it wrote"
    );
}
