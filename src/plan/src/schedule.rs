//! Which job starts when and on which devices, as a pure function of what has happened: no process, no clock.
//!
//! List scheduling: of the jobs that are ready and fit, the one with the longest way to the end of the run starts first, and no
//! device stays idle while a ready job fits (Graham 1969; the way to the end is the "upward rank" of Topcuoglu, Hariri and Wu,
//! IEEE TPDS 2002). Jobs of several devices are gangs: all their devices at once or none.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

pub use graph::critical_path;
use graph::{check, dependents, ways};

/// What the scheduler knows of a job. Jobs are called by their places.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Jobs that must have succeeded before.
    pub needs: Vec<usize>,
    /// Numbers of devices that it can run on, ascending. Empty: it works on the host alone.
    pub widths: Vec<usize>,
    /// Seconds that it is thought to take on one device (or on the host).
    pub work: f64,
    /// Bytes of host memory while it runs.
    pub memory: u64,
    /// Bytes of disk that it comes to.
    pub disk: u64,
}

impl Task {
    /// Seconds on so many devices, which are taken to share the work without loss.
    pub fn seconds(&self, devices: usize) -> f64 {
        self.work / devices.max(1) as f64
    }

    fn least(&self) -> usize {
        self.widths.first().copied().unwrap_or(0)
    }

    /// The largest width that is no more than this.
    fn widest(&self, most: usize) -> usize {
        let fits = self
            .widths
            .iter()
            .copied()
            .take_while(|width| *width <= most);
        fits.last().unwrap_or(self.least())
    }
}

/// What the machine has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    pub devices: usize,
    /// Jobs without a device that run at once.
    pub host_jobs: usize,
    /// Jobs that run at once, of any kind.
    pub jobs: usize,
    /// Bytes of host memory for all jobs that run at once.
    pub memory: u64,
    /// Bytes of disk for all jobs together.
    pub disk: u64,
}

impl Limits {
    /// So many devices, and as much of everything else as is asked for.
    pub fn devices(devices: usize) -> Self {
        Limits {
            devices,
            host_jobs: usize::MAX,
            jobs: usize::MAX,
            memory: u64::MAX,
            disk: u64::MAX,
        }
    }
}

/// A job that can never start.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    #[error("job {task} needs {least} devices at least, and there are {devices}")]
    Devices {
        task: usize,
        least: usize,
        devices: usize,
    },
    #[error("job {task} needs {needed} bytes of host memory, and {there} are there")]
    Memory {
        task: usize,
        needed: u64,
        there: u64,
    },
    #[error("job {task} waits for itself: the jobs that it needs need it")]
    Cycle { task: usize },
    #[error("job {task} needs job {need}, which there is not")]
    Unknown { task: usize, need: usize },
}

/// A job to start now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub task: usize,
    pub devices: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq)]
enum Standing {
    /// So many of the jobs that it needs have not succeeded.
    Waiting(usize),
    Ready,
    Running(Vec<usize>),
    Succeeded,
    /// It, or one that it needs, came to nothing.
    Lost,
}

/// Sorts by urgency: the longest way to the end first, then the plan's order.
type Key = (Reverse<u64>, usize);

/// The state of a schedule.
#[derive(Clone, Debug)]
pub struct Scheduler {
    tasks: Vec<Task>,
    /// Jobs that need one.
    dependents: Vec<Vec<usize>>,
    keys: Vec<Key>,
    standing: Vec<Standing>,
    held: BTreeSet<usize>,
    /// By the least number of devices; 0 has those that need none.
    ready: BTreeMap<usize, BTreeSet<Key>>,
    /// How many of those could take more than their least.
    elastic: usize,
    free: BTreeSet<usize>,
    limits: Limits,
    running: usize,
    on_host: usize,
    memory: u64,
    disk: u64,
    /// Jobs whose disk is already counted.
    on_disk: BTreeSet<usize>,
}

impl Scheduler {
    /// `succeeded` says which jobs are done.
    ///
    /// # Errors
    /// A job that could never start, or a graph that is none.
    pub fn new(
        tasks: Vec<Task>,
        limits: Limits,
        succeeded: impl Fn(usize) -> bool,
    ) -> Result<Self, ScheduleError> {
        check(&tasks, &limits)?;
        let dependents = dependents(&tasks);
        let ways = ways(&tasks, &dependents, limits.devices)?;
        let keys = ways.iter().zip(0..);
        // Seconds are not negative, and the bits of such numbers are in the order of the numbers.
        let keys = keys
            .map(|(way, task)| (Reverse(way.max(0.0).to_bits()), task))
            .collect();
        let standing = tasks.iter().enumerate().map(|(task, of)| {
            let missing = of.needs.iter().filter(|need| !succeeded(**need)).count();
            match (succeeded(task), missing) {
                (true, _) => Standing::Succeeded,
                (false, 0) => Standing::Ready,
                (false, missing) => Standing::Waiting(missing),
            }
        });
        let mut scheduler = Scheduler {
            standing: standing.collect(),
            dependents,
            keys,
            tasks,
            held: BTreeSet::new(),
            ready: BTreeMap::new(),
            elastic: 0,
            free: (0..limits.devices).collect(),
            limits,
            running: 0,
            on_host: 0,
            memory: 0,
            disk: 0,
            on_disk: BTreeSet::new(),
        };
        for task in 0..scheduler.tasks.len() {
            if scheduler.standing.get(task) == Some(&Standing::Ready) {
                scheduler.enlist(task);
            }
        }
        Ok(scheduler)
    }

    /// Jobs that start now, the most urgent first; from here on they count as running.
    pub fn start(&mut self) -> Vec<Start> {
        let mut starts = Vec::new();
        while let Some(task) = self.pick() {
            let width = self.width(task);
            let devices: Vec<usize> = self.free.iter().copied().take(width).collect();
            for device in &devices {
                self.free.remove(device);
            }
            self.delist(task);
            self.running += 1;
            self.on_host += usize::from(width == 0);
            if let Some(of) = self.tasks.get(task) {
                self.memory = self.memory.saturating_add(of.memory);
                if self.on_disk.insert(task) {
                    self.disk = self.disk.saturating_add(of.disk);
                }
            }
            self.set(task, Standing::Running(devices.clone()));
            starts.push(Start { task, devices });
        }
        starts
    }

    /// A running job has succeeded: those that waited for it alone are ready.
    pub fn succeeded(&mut self, task: usize) {
        self.vacate(task);
        self.set(task, Standing::Succeeded);
        for dependent in self.dependents.get(task).cloned().unwrap_or_default() {
            let Some(Standing::Waiting(missing)) = self.standing.get_mut(dependent) else {
                continue;
            };
            *missing -= 1;
            if *missing == 0 {
                self.set(dependent, Standing::Ready);
                self.enlist(dependent);
            }
        }
    }

    /// A job has failed for good or was cancelled: nothing that needs it will start. Returns those others, in the plan's order.
    pub fn failed(&mut self, task: usize) -> Vec<usize> {
        self.vacate(task);
        self.delist(task);
        self.set(task, Standing::Lost);
        let mut lost = BTreeSet::new();
        let mut front = vec![task];
        while let Some(task) = front.pop() {
            for &dependent in self.dependents.get(task).map_or(&[][..], Vec::as_slice) {
                if lost.insert(dependent) {
                    front.push(dependent);
                }
            }
        }
        for task in &lost {
            self.set(*task, Standing::Lost);
        }
        lost.into_iter().collect()
    }

    /// A running job has stopped and goes on later, perhaps on other devices.
    pub fn stopped(&mut self, task: usize) {
        if self.vacate(task) {
            self.set(task, Standing::Ready);
            self.enlist(task);
        }
    }

    /// Whether a job must not start for now. One that runs is not touched.
    pub fn hold(&mut self, task: usize, held: bool) {
        if held {
            self.held.insert(task);
            self.delist(task);
        } else if self.held.remove(&task) && self.standing.get(task) == Some(&Standing::Ready) {
            self.enlist(task);
        }
    }

    /// A device is gone, whoever had it.
    pub fn lose(&mut self, device: usize) {
        self.free.remove(&device);
        self.limits.devices = self.limits.devices.saturating_sub(1);
        for standing in &mut self.standing {
            if let Standing::Running(devices) = standing {
                devices.retain(|of| *of != device);
            }
        }
    }

    /// From now on a job that does not run can run on these numbers of devices, as [`Task::widths`]: there are others than before.
    pub fn reshape(&mut self, task: usize, widths: Vec<usize>) {
        let is_listed = self.standing.get(task) == Some(&Standing::Ready);
        self.delist(task);
        if let Some(of) = self.tasks.get_mut(task) {
            of.widths = widths;
        }
        if is_listed {
            self.enlist(task);
        }
    }

    /// The most urgent job that could start, were there devices and room.
    pub fn ready(&self) -> Option<usize> {
        let first = self.ready.values().filter_map(BTreeSet::first).min();
        first.map(|(_, task)| *task)
    }

    /// A running job that would gain by more devices, where devices are idle and no ready job can take them: the job and the
    /// number of devices that it could have. `remaining` is in seconds on the devices that it has, `cost` is what the change
    /// itself takes, in seconds.
    pub fn widen(&self, cost: f64, remaining: impl Fn(usize) -> f64) -> Option<(usize, usize)> {
        // Where others wait, be it for memory, a job that starts again gets no more devices than before.
        let others_wait = self.ready.values().any(|class| !class.is_empty());
        if self.free.is_empty() || others_wait {
            return None;
        }
        let gain = |(task, standing): (usize, &Standing)| {
            let Standing::Running(devices) = standing else {
                return None;
            };
            let width = self
                .tasks
                .get(task)?
                .widest(devices.len() + self.free.len());
            let left = remaining(task);
            let gain = left - (left * devices.len() as f64 / width.max(1) as f64 + cost);
            (width > devices.len() && gain > 0.0).then_some((gain, task, width))
        };
        let gains = self.standing.iter().enumerate().filter_map(gain);
        let best = gains.max_by(|a, b| a.0.total_cmp(&b.0))?;
        Some((best.1, best.2))
    }

    /// Devices of a job that runs.
    pub fn devices(&self, task: usize) -> Option<&[usize]> {
        match self.standing.get(task)? {
            Standing::Running(devices) => Some(devices),
            _ => None,
        }
    }

    /// The most urgent job that can start.
    fn pick(&self) -> Option<usize> {
        if self.running >= self.limits.jobs {
            return None;
        }
        let classes = self.ready.iter().filter(|(least, _)| match least {
            0 => self.on_host < self.limits.host_jobs,
            least => **least <= self.free.len(),
        });
        let first = |(_, class): (_, &BTreeSet<Key>)| {
            class.iter().copied().find(|(_, task)| self.has_room(*task))
        };
        classes.filter_map(first).min().map(|(_, task)| task)
    }

    fn has_room(&self, task: usize) -> bool {
        let Some(of) = self.tasks.get(task) else {
            return false;
        };
        let disk = match self.on_disk.contains(&task) {
            true => 0,
            false => of.disk,
        };
        self.memory.saturating_add(of.memory) <= self.limits.memory
            && self.disk.saturating_add(disk) <= self.limits.disk
    }

    /// How many devices a job gets: what the other ready jobs leave over is shared by those that can use it.
    fn width(&self, task: usize) -> usize {
        let Some(of) = self.tasks.get(task) else {
            return 0;
        };
        if of.widths.len() < 2 {
            return of.least();
        }
        let least: usize = self
            .ready
            .iter()
            .map(|(least, class)| least * class.len())
            .sum();
        let over = self.free.len().saturating_sub(least) / self.elastic.max(1);
        of.widest((of.least() + over).min(self.free.len()))
    }

    fn enlist(&mut self, task: usize) {
        if self.held.contains(&task) {
            return;
        }
        if let (Some(of), Some(key)) = (self.tasks.get(task), self.keys.get(task)) {
            self.ready.entry(of.least()).or_default().insert(*key);
            self.elastic += usize::from(of.widths.len() > 1);
        }
    }

    fn delist(&mut self, task: usize) {
        if let (Some(of), Some(key)) = (self.tasks.get(task), self.keys.get(task))
            && let Some(class) = self.ready.get_mut(&of.least())
        {
            let was_there = class.remove(key);
            self.elastic -= usize::from(was_there && of.widths.len() > 1);
        }
    }

    /// Gives back what a running job had; false where it did not run.
    fn vacate(&mut self, task: usize) -> bool {
        let Some(Standing::Running(devices)) = self.standing.get(task).cloned() else {
            return false;
        };
        if let Some(of) = self.tasks.get(task) {
            self.memory = self.memory.saturating_sub(of.memory);
            self.on_host -= usize::from(of.widths.is_empty());
        }
        self.running -= 1;
        self.free.extend(devices);
        true
    }

    fn set(&mut self, task: usize, to: Standing) {
        if let Some(standing) = self.standing.get_mut(task) {
            *standing = to;
        }
    }
}

mod graph;
#[cfg(test)]
mod tests;
