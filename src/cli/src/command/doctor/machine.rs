//! Cores, memory, limits, clock: what the kernel lets a run have.

use std::path::Path;
use std::time::{Duration, SystemTime};

use recipe::Recipe;

use super::check::Check;
use crate::units;

/// Files of a rank: libraries, events, sockets to each peer, files of studies that are being read.
const FILES_OF_A_RANK: u64 = 64;
const FILES_AT_EASE: u64 = 1024;
/// 1 January 2025: an earlier clock is not set.
const TOO_EARLY: Duration = Duration::from_secs(1_735_689_600);

/// All of them; `recipe` and `ranks` say what a run would take.
pub fn checks(recipe: Option<&Recipe>, ranks: u64) -> Vec<Check> {
    let workers = recipe.map_or(1, |recipe| recipe.data.workers);
    let data_mb = recipe.map_or(0, |recipe| recipe.data.memory_mb + recipe.data.prefetch_mb);
    vec![
        cores(ranks, workers),
        memory(ranks.saturating_mul(launcher::memory_of_a_rank(data_mb))),
        files(limit(libc::RLIMIT_NOFILE), ranks),
        processes(limit(libc::RLIMIT_NPROC), ranks, workers),
        locked(limit(libc::RLIMIT_MEMLOCK)),
        shared_memory(),
        supervision(),
        clock(SystemTime::now()),
    ]
}

fn cores(ranks: u64, workers: u64) -> Check {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let found = format!("{cores} cores for {ranks} ranks with {workers} loader threads each");
    match cores < ranks {
        true => Check::warn(
            "cores",
            found,
            "fewer ranks (`--ranks N`), or ask the scheduler for more cores: ranks that share a core wait for each other",
        ),
        false => Check::ok("cores", found),
    }
}

fn memory(needed: u64) -> Check {
    let Some(memory) = launcher::host_memory() else {
        return Check::warn(
            "memory",
            "/proc/meminfo tells nothing",
            "mount /proc: it tells how much memory is free",
        );
    };
    let bytes = memory.available;
    let whose = match memory.is_limited {
        true => "the cgroup's limit",
        false => "free on this machine",
    };
    let found = format!(
        "{}, {whose}; a run takes about {}",
        units::bytes(bytes),
        units::bytes(needed)
    );
    match bytes < needed {
        true => Check::warn(
            "memory",
            found,
            "lower `data.memory_mb`, `data.prefetch_mb` or the ranks, or ask for more memory: the kernel kills what takes \
             more than there is",
        ),
        false => Check::ok("memory", found),
    }
}

/// What a process may have, now; none where there is no limit.
fn limit(resource: libc::__rlimit_resource_t) -> Option<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the output lives across the call.
    let got = unsafe { libc::getrlimit(resource, &raw mut limit) };
    (got == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

fn files(limit: Option<u64>, ranks: u64) -> Check {
    let name = "open files";
    let Some(limit) = limit else {
        return Check::ok(name, "no limit");
    };
    // The launcher has three for each rank, and some of its own.
    let needed = FILES_OF_A_RANK.max(32 + 3 * ranks);
    let found = format!("at most {limit} (ulimit -n)");
    match limit {
        limit if limit < needed => Check::fail(
            name,
            found,
            format!("`ulimit -n {FILES_AT_EASE}` before the launch; {needed} is the least"),
        ),
        limit if limit < FILES_AT_EASE => Check::warn(
            name,
            found,
            format!("`ulimit -n {FILES_AT_EASE}` before the launch"),
        ),
        _ => Check::ok(name, found),
    }
}

fn processes(limit: Option<u64>, ranks: u64, workers: u64) -> Check {
    let name = "processes and threads";
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    // Each rank: loader threads, operators' threads, and some of libtorch's and the GPU driver's.
    let needed = ranks
        .saturating_mul(workers + cores + 32)
        .saturating_add(16);
    match limit {
        Some(limit) if limit < needed => Check::warn(
            name,
            format!("at most {limit} of this user (ulimit -u); a run has about {needed}"),
            format!(
                "`ulimit -u {}` before the launch",
                needed.next_power_of_two()
            ),
        ),
        Some(limit) => Check::ok(name, format!("at most {limit} (ulimit -u)")),
        None => Check::ok(name, "no limit"),
    }
}

fn locked(limit: Option<u64>) -> Check {
    let found = limit.map_or_else(
        || "no limit".to_owned(),
        |limit| {
            format!(
                "at most {} (ulimit -l); only networks with RDMA need more",
                units::bytes(limit)
            )
        },
    );
    Check::ok("locked memory", found)
}

fn shared_memory() -> Check {
    let name = "/dev/shm";
    let Some(space) = super::disk::space(Path::new("/dev/shm")) else {
        return Check::warn(
            name,
            "is not there",
            "mount a tmpfs there: NCCL exchanges data between the GPUs of a machine through it",
        );
    };
    let found = format!("{} free", units::bytes(space.free_bytes));
    match space.free_bytes < 64_000_000 {
        true => Check::warn(
            name,
            found,
            "give the container more (`--shm-size=1g`, or `--ipc=host`): NCCL exchanges data between the GPUs of a \
             machine through it; runs on the CPU do not use it",
        ),
        false => Check::ok(name, found),
    }
}

/// The kernel's means by which a launcher sees its ranks end.
fn supervision() -> Check {
    let name = "supervision";
    // SAFETY: the call takes no pointers; it returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0) };
    if fd < 0 {
        return Check::fail(
            name,
            format!("pidfd_open: {}", std::io::Error::last_os_error()),
            "a Linux of 5.3 or later is needed, and a container runtime that allows the call",
        );
    }
    if let Ok(fd) = i32::try_from(fd) {
        // SAFETY: the descriptor is ours and used nowhere else.
        unsafe { libc::close(fd) };
    }
    Check::ok(name, "the kernel tells the end of a process (pidfd)")
}

fn clock(now: SystemTime) -> Check {
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    match since < TOO_EARLY {
        true => Check::warn(
            "clock",
            format!("it says {} days after 1970", since.as_secs() / 86_400),
            "set it (`timedatectl set-ntp true`): events, curves and the newest cache entries go by it",
        ),
        false => Check::ok("clock", "is set"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::*;

    #[test]
    fn each_limit_has_its_border() {
        assert_eq!(files(None, 8).state, State::Ok);
        assert_eq!(files(Some(1024), 8).state, State::Ok);
        assert_eq!(files(Some(1023), 8).state, State::Warn);
        assert_eq!(files(Some(63), 8).state, State::Fail);
        assert_eq!(files(Some(100), 40).state, State::Fail, "40 ranks need 152");
        assert_eq!(processes(Some(40), 1, 1).state, State::Warn);
        assert_eq!(memory(0).state, State::Ok);
        assert_eq!(memory(u64::MAX).state, State::Warn);
        assert_eq!(clock(SystemTime::UNIX_EPOCH).state, State::Warn);
        assert_eq!(cores(u64::MAX, 1).state, State::Warn);
    }
}
