//! A schedule on a virtual clock: how long a run would take.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::schedule::{Limits, ScheduleError, Scheduler, Start, Task};

/// A job's place in a simulated run; times in seconds from its beginning.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub task: usize,
    pub devices: Vec<usize>,
    pub begins: f64,
    pub ends: f64,
}

/// A simulated run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timeline {
    /// In the order in which they start.
    pub spans: Vec<Span>,
    /// Seconds until the last job ends.
    pub makespan: f64,
}

/// Runs the jobs on a virtual clock, each for as long as it is thought to take. Jobs that find no room on the disk are left out.
///
/// # Errors
/// As [`Scheduler::new`].
pub fn simulate(
    tasks: &[Task],
    limits: Limits,
    succeeded: impl Fn(usize) -> bool,
) -> Result<Timeline, ScheduleError> {
    let mut scheduler = Scheduler::new(tasks.to_vec(), limits, succeeded)?;
    let mut timeline = Timeline::default();
    // Seconds are not negative, and the bits of such numbers are in the order of the numbers.
    let mut ends: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut now = 0.0f64;
    loop {
        for Start { task, devices } in scheduler.start() {
            let seconds = tasks.get(task).map_or(0.0, |of| of.seconds(devices.len()));
            let end = now + seconds.max(0.0);
            ends.push(Reverse((end.to_bits(), task)));
            timeline.spans.push(Span {
                task,
                devices,
                begins: now,
                ends: end,
            });
        }
        let Some(Reverse((end, task))) = ends.pop() else {
            break;
        };
        now = f64::from_bits(end);
        scheduler.succeeded(task);
        // Whatever ends at the same time makes room at the same time.
        while ends.peek().is_some_and(|Reverse((at, _))| *at == end) {
            if let Some(Reverse((_, other))) = ends.pop() {
                scheduler.succeeded(other);
            }
        }
    }
    timeline.makespan = now;
    Ok(timeline)
}
