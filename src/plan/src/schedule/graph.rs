//! What the graph of jobs alone says: whether it is one, and how long its ways are.

use std::cmp::Reverse;

use super::{Limits, ScheduleError, Task};

pub(super) fn check(tasks: &[Task], limits: &Limits) -> Result<(), ScheduleError> {
    for (task, of) in tasks.iter().enumerate() {
        if of.least() > limits.devices {
            return Err(ScheduleError::Devices {
                task,
                least: of.least(),
                devices: limits.devices,
            });
        }
        if of.memory > limits.memory {
            return Err(ScheduleError::Memory {
                task,
                needed: of.memory,
                there: limits.memory,
            });
        }
        if let Some(&need) = of.needs.iter().find(|need| **need >= tasks.len()) {
            return Err(ScheduleError::Unknown { task, need });
        }
    }
    Ok(())
}

/// The jobs that need one, of each.
pub(super) fn dependents(tasks: &[Task]) -> Vec<Vec<usize>> {
    let mut dependents = vec![Vec::new(); tasks.len()];
    for (task, of) in tasks.iter().enumerate() {
        for need in &of.needs {
            if let Some(dependents) = dependents.get_mut(*need) {
                dependents.push(task);
            }
        }
    }
    dependents
}

/// Seconds from a job's start to the end of all that needs it, on the most devices that each can use.
pub(super) fn ways(
    tasks: &[Task],
    dependents: &[Vec<usize>],
    devices: usize,
) -> Result<Vec<f64>, ScheduleError> {
    let mut ways = vec![0.0f64; tasks.len()];
    let mut open: Vec<usize> = dependents.iter().map(Vec::len).collect();
    let mut front: Vec<usize> = (0..tasks.len())
        .filter(|task| open.get(*task) == Some(&0))
        .collect();
    let mut seen = 0;
    while let Some(task) = front.pop() {
        seen += 1;
        let Some(of) = tasks.get(task) else { continue };
        let further = dependents
            .get(task)
            .into_iter()
            .flatten()
            .filter_map(|next| ways.get(*next));
        let way = of.seconds(of.widest(devices)) + further.copied().fold(0.0, f64::max);
        if let Some(own) = ways.get_mut(task) {
            *own = way;
        }
        for need in &of.needs {
            if let Some(open) = open.get_mut(*need) {
                *open -= 1;
                if *open == 0 {
                    front.push(*need);
                }
            }
        }
    }
    match open.iter().position(|open| *open > 0) {
        Some(task) if seen < tasks.len() => Err(ScheduleError::Cycle { task }),
        _ => Ok(ways),
    }
}

/// The chain of jobs that the run cannot be shorter than, and its seconds.
///
/// # Errors
/// As [`Scheduler::new`], for a graph that is none.
pub fn critical_path(tasks: &[Task], devices: usize) -> Result<(Vec<usize>, f64), ScheduleError> {
    check(tasks, &Limits::devices(usize::MAX))?;
    let dependents = dependents(tasks);
    let ways = ways(tasks, &dependents, devices)?;
    let longest = |of: &mut dyn Iterator<Item = usize>| {
        // The first of equals.
        of.min_by_key(|task| (Reverse(ways.get(*task).map(|way| way.to_bits())), *task))
    };
    let starts = |task: &usize| tasks.get(*task).is_some_and(|of| of.needs.is_empty());
    let mut next = longest(&mut (0..tasks.len()).filter(starts));
    let seconds = next.and_then(|task| ways.get(task)).copied().unwrap_or(0.0);
    let mut path = Vec::new();
    while let Some(task) = next {
        path.push(task);
        next = longest(&mut dependents.get(task).into_iter().flatten().copied());
    }
    Ok((path, seconds))
}
