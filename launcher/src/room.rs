//! What this machine has for a run beside its GPUs, and what a job takes of it: host memory and disk. Rules of thumb, from the recipe alone.

use std::fs;
use std::path::Path;

use plan::schedule::Limits;
use plan::{JobId, JobSpec, Plan};

use crate::LaunchError;
use crate::run_dir::RunDir;

/// What a rank takes beside its data: libtorch, a model and its gradients on the host.
const BYTES_OF_A_RANK: u64 = 2_000_000_000;
/// What a rank has in memory before it does anything.
const LEAST_OF_A_RANK: u64 = 200_000_000;

/// What a job takes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    /// While it runs, all its ranks together: as much as the recipe lets them have, and what they cannot do without.
    pub memory: u64,
    pub least_memory: u64,
    /// Of checkpoints that are not there yet: all that are kept at a time, and the one that is being written; and of one alone.
    pub disk: u64,
    pub least_disk: u64,
}

/// Host memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostMemory {
    pub total: u64,
    /// Free, or to be freed.
    pub available: u64,
    /// The control group allows less than is there.
    pub is_limited: bool,
}

/// What a rank takes of the host's memory that may have so much data there.
pub fn memory_of_a_rank(data_mb: u64) -> u64 {
    data_mb
        .saturating_mul(1_000_000)
        .saturating_add(BYTES_OF_A_RANK)
}

/// None where `/proc` does not tell.
pub fn host_memory() -> Option<HostMemory> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kilobytes.checked_mul(1024)
    };
    let (total, available) = (field("MemTotal:")?, field("MemAvailable:")?);
    let limit = cgroup_limit().unwrap_or(u64::MAX);
    Some(HostMemory {
        total: total.min(limit),
        available: available.min(limit),
        is_limited: limit < available,
    })
}

/// The least of the limits of this process's cgroup and those above it, of either version.
fn cgroup_limit() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let limits = own.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let controllers = parts.next().unwrap_or_default();
        let path = parts.next().unwrap_or_default();
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        let folders = Path::new(path.trim_start_matches('/')).ancestors();
        folders
            .filter_map(|folder| {
                let text = fs::read_to_string(Path::new(root).join(folder).join(file)).ok()?;
                text.trim().parse().ok()
            })
            .collect::<Vec<u64>>()
    });
    limits.min()
}

/// What each of the plan's jobs takes on so many devices, in the plan's order; of the disk only what `has_saved` does not say is there.
pub(crate) fn demands(
    plan: &Plan,
    devices: usize,
    has_saved: impl Fn(&JobId) -> bool,
) -> Vec<Demand> {
    let data_mb = plan.data.memory_mb.saturating_add(plan.data.prefetch_mb);
    let demand = |job: &JobSpec| {
        let widest = |training| {
            plan::widths(training, devices, plan.elastic)
                .last()
                .copied()
        };
        let ranks = job.kind.training().and_then(widest).unwrap_or(1) as u64;
        let one = plan::cost(&job.kind).map_or(0, |cost| cost.checkpoint_bytes);
        let kept = plan.checkpoint.keep_last + u64::from(!plan.checkpoint.keep_best.is_empty());
        let disk = match has_saved(&job.id) {
            true => 0,
            false => one,
        };
        Demand {
            memory: ranks.saturating_mul(memory_of_a_rank(data_mb)),
            least_memory: ranks.saturating_mul(LEAST_OF_A_RANK).saturating_add(one),
            disk: disk.saturating_mul(kept.saturating_add(1)),
            least_disk: disk,
        }
    };
    plan.jobs.iter().map(demand).collect()
}

/// The devices, and what memory and disk are free now.
pub(crate) fn limits(dir: &RunDir, devices: usize, jobs: Option<usize>) -> Limits {
    let disk = rustix::fs::statvfs(dir.root());
    Limits {
        jobs: jobs.unwrap_or(usize::MAX),
        memory: host_memory().map_or(u64::MAX, |memory| memory.available),
        disk: disk.map_or(u64::MAX, |of| of.f_bavail.saturating_mul(of.f_frsize)),
        ..Limits::devices(devices)
    }
}

/// Refuses a plan of which a job that is still to be done could not run on this machine were it alone.
pub(crate) fn check(
    plan: &Plan,
    demands: &[Demand],
    limits: Limits,
    is_done: impl Fn(&JobId) -> bool,
) -> Result<(), LaunchError> {
    let memory = host_memory().map_or(u64::MAX, |memory| memory.total);
    for (job, demand) in plan.jobs.iter().zip(demands) {
        let (what, needed, there) = match demand {
            Demand { least_memory, .. } if *least_memory > memory => {
                ("of host memory", *least_memory, memory)
            }
            Demand { least_disk, .. } if *least_disk > limits.disk => {
                ("of disk", *least_disk, limits.disk)
            }
            _ => continue,
        };
        if !is_done(&job.id) {
            return Err(LaunchError::NoRoom {
                job: job.id.to_string(),
                needed: gigabytes(needed),
                there: gigabytes(there),
                what,
            });
        }
    }
    Ok(())
}

pub(crate) fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn a_job_takes_memory_by_its_ranks_and_disk_by_what_it_keeps() {
        let mut plan = sample::chain(2);
        plan.checkpoint.keep_last = 3;
        plan.checkpoint.keep_best.clear();
        (plan.data.memory_mb, plan.data.prefetch_mb) = (1000, 200);
        let saved = plan.jobs[1].id.clone();
        let on = |devices| demands(&plan, devices, |job| *job == saved);
        let (two, four) = (on(2), on(4));
        assert_eq!(two[0].memory, 2 * memory_of_a_rank(1200));
        assert_eq!(four[0].memory, 2 * two[0].memory);
        let one = plan::cost(&plan.jobs[0].kind).unwrap().checkpoint_bytes;
        assert!(one > 0);
        assert_eq!((two[0].disk, two[0].least_disk), (4 * one, one));
        assert_eq!((two[1].disk, two[1].least_disk), (0, 0), "it is there");
    }

    #[test]
    fn only_what_could_never_run_is_refused() {
        let plan = sample::chain(1);
        let demand = |least_memory, least_disk| Demand {
            memory: u64::MAX,
            least_memory,
            disk: u64::MAX,
            least_disk,
        };
        let limits = Limits {
            disk: 10,
            ..Limits::devices(1)
        };
        let refused = |demand, done| {
            check(&plan, &[demand], limits, |_| done).map_err(|error| {
                assert_eq!(error.exit_code(), 3);
                error.to_string()
            })
        };
        assert_eq!(refused(demand(1, 10), false), Ok(()));
        let said = refused(demand(1, 11), false).unwrap_err();
        assert!(
            said.contains("job job0 takes 0.0 GB of disk at least"),
            "{said}"
        );
        let said = refused(demand(u64::MAX, 1), false).unwrap_err();
        assert!(said.contains("of host memory at least"), "{said}");
        assert_eq!(refused(demand(u64::MAX, 11), true), Ok(()), "it is done");
    }

    #[test]
    fn this_machine_tells_its_memory() {
        let memory = host_memory().unwrap();
        assert!(memory.available <= memory.total && memory.available > 0);
    }
}
