//! Two processes that write checkpoints together, one of them killed at a moment that nobody chose, and the other one soon
//! after: what was said to be durable is there, what is there is what was written, and the next writer clears up.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use checkpoint::{newest_valid_of, read, write, write_part};
use rand::RngExt;

use crate::chance::{seeded, tries};
use crate::fixture::{PLAN, names, part_of, share};
use crate::soak_kill::{of_step, said_durable};

const ROOT: &str = "CHECKPOINT_PARTS_ROOT";
const PART: &str = "CHECKPOINT_PARTS_PART";
const FIRST: &str = "CHECKPOINT_PARTS_FIRST";
const TOKEN: &str = "CHECKPOINT_PARTS_TOKEN";
const PARTS: usize = 2;

/// What a child runs; part 0 says each step once it is durable. Without a folder to write in it is a test of three steps.
#[test]
fn writer_of_a_part() {
    if let Some(root) = std::env::var_os(ROOT) {
        let number = |name: &str| -> u64 { std::env::var(name).unwrap().parse().unwrap() };
        let (part, token) = (number(PART) as usize, number(TOKEN));
        write_on_and_on(Path::new(&root), part, number(FIRST), token);
    }
    let folder = tempfile::tempdir().unwrap();
    for step in [1, 2, 3] {
        let whole = of_step(step);
        let written = crate::fixture::write_in_parts(folder.path(), &whole, PARTS, 9);
        assert_eq!(read(&written.path, Some(PLAN)).unwrap(), whole);
    }
}

fn write_on_and_on(root: &Path, part: usize, first: u64, token: u64) -> ! {
    let mut out = std::io::stdout();
    for step in first.. {
        let own = part_of(of_step(step), part, PARTS);
        let written = write_part(root, &own, &share(part, PARTS, token)).unwrap();
        if written.is_some() {
            writeln!(out, "\ndurable {step}").unwrap();
        }
        // As in a training, no part is more than one checkpoint ahead of another.
        let before = root.join(format!("step-{:08}", step.saturating_sub(1)));
        while part > 0 && step > first && !before.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    unreachable!("steps do not end")
}

fn start(root: &Path, part: usize, first: u64, token: u64) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "soak_parts::writer_of_a_part", "--nocapture"])
        .env(ROOT, root)
        .env(PART, part.to_string())
        .env(FIRST, first.to_string())
        .env(TOKEN, token.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The test runner's greeting: from here on the writer is at work, or about to be.
    let out = child.stdout.as_mut().unwrap();
    out.read_exact(&mut [0]).unwrap();
    child
}

#[test]
fn whichever_part_is_killed_no_half_checkpoint_is_ever_one() {
    let (mut random, seed) = seeded("a writer of a part is killed");
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let (mut acknowledged, mut caught) = (0, 0);
    for kill in 0..tries(500) {
        let token = random.random_range(0..u64::MAX);
        let mut parts: Vec<Child> = (0..PARTS)
            .map(|part| start(root, part, acknowledged + 1, token))
            .collect();
        let mut micros = |most| Duration::from_micros(random.random_range(0..most));
        let [after, later] = [micros(60_000), micros(20_000)];
        let victim = random.random_range(0..PARTS);
        let place =
            format!("SPINECTL_SOAK_SEED={seed}, kill {kill}: part {victim} after {after:?}");
        std::thread::sleep(after);
        parts[victim].kill().unwrap();
        std::thread::sleep(later);
        let mut said = String::new();
        for part in &mut parts {
            let _ = part.kill();
            part.wait().unwrap();
            let mut out = part.stdout.take().unwrap();
            out.read_to_string(&mut said).unwrap();
        }
        acknowledged = said_durable(&said).unwrap_or(acknowledged);

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

        // Another process, on its own: it removes what they have left, and what is no longer wanted.
        write(root, &of_step(newest + 1)).unwrap();
        checkpoint::retain(root, PLAN, &crate::soak_kill::KEEP_TWO).unwrap();
        acknowledged = newest + 1;
        let left = names(root);
        assert!(
            left.len() <= 2 && left.iter().all(|name| name.starts_with("step-")),
            "{place}: {left:?} stay after the next write"
        );
    }
    println!("{} pairs of writers left {caught} halves", tries(500));
    assert!(
        caught > 0,
        "SPINECTL_SOAK_SEED={seed}: no writer was killed while it wrote"
    );
}
