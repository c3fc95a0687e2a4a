//! Which cores a rank runs on: those of the NUMA node that its GPU hangs on.
//!
//! A rank that copies from another node's memory shares one link with all the others that do. Within a node the kernel places
//! threads better than a fixed core each would: several launches may share the machine.

use std::fs;
use std::mem::{size_of, zeroed};
use std::path::Path;

/// Cores by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cores(Vec<usize>);

impl Cores {
    /// The cores near the GPU that is a rank's, of those that this process may use itself; none where the machine has one node, or
    /// does not say where the GPU is.
    pub fn near_gpu(local_rank: usize, visible: Option<&str>) -> Option<Self> {
        near(Path::new("/"), local_rank, visible, &allowed()?)
    }

    /// As system calls take them.
    pub fn as_set(&self) -> libc::cpu_set_t {
        // SAFETY: a set of bits, for which all zeros is a value.
        let mut set: libc::cpu_set_t = unsafe { zeroed() };
        for core in self
            .0
            .iter()
            .filter(|core| **core < 8 * size_of::<libc::cpu_set_t>())
        {
            // SAFETY: the number is within the set.
            unsafe { libc::CPU_SET(*core, &mut set) };
        }
        set
    }
}

fn near(root: &Path, local_rank: usize, visible: Option<&str>, allowed: &[usize]) -> Option<Cores> {
    let nodes = names(&root.join("sys/devices/system/node"), "node");
    if nodes.len() < 2 {
        return None;
    }
    let index = match visible {
        None => local_rank,
        // Names of GPUs (GPU-..., MIG-...) say nothing of a place.
        Some(list) => list.split(',').nth(local_rank)?.trim().parse().ok()?,
    };
    let addresses = names(&root.join("proc/driver/nvidia/gpus"), "");
    let device = root.join("sys/bus/pci/devices").join(addresses.get(index)?);
    let node: usize = fs::read_to_string(device.join("numa_node"))
        .ok()?
        .trim()
        .parse()
        .ok()?;
    let list = root.join(format!("sys/devices/system/node/node{node}/cpulist"));
    let mut cores = parse(&fs::read_to_string(list).ok()?)?;
    cores.retain(|core| allowed.contains(core));
    (!cores.is_empty()).then_some(Cores(cores))
}

/// Entries of a folder that begin like this, in order; CUDA's order by PCI address is the order of these names.
fn names(folder: &Path, prefix: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let is_one = |name: &String| {
        let rest = name.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_hexdigit()))
    };
    let mut names: Vec<String> = names.filter(is_one).collect();
    names.sort();
    names
}

/// `0-3,8` as the kernel writes it.
fn parse(list: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for range in list.trim().split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cores.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(cores)
}

fn allowed() -> Option<Vec<usize>> {
    // SAFETY: all zeros is a value, and the call only fills it in.
    unsafe {
        let mut set: libc::cpu_set_t = zeroed();
        let got = libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set);
        let cores = 0..8 * size_of::<libc::cpu_set_t>();
        (got == 0).then(|| cores.filter(|core| libc::CPU_ISSET(*core, &set)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two nodes of four cores, a GPU on each.
    fn machine(nodes: usize) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let write = |path: String, text: String| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for node in 0..nodes {
            let cores = format!("{}-{},{}\n", 3 * node, 3 * node + 2, 100 + node);
            write(format!("sys/devices/system/node/node{node}/cpulist"), cores);
            let address = format!("0000:0{}:00.0", nodes - node);
            write(
                format!("proc/driver/nvidia/gpus/{address}/information"),
                String::new(),
            );
            write(
                format!("sys/bus/pci/devices/{address}/numa_node"),
                format!("{node}\n"),
            );
        }
        root
    }

    fn cores(root: &Path, rank: usize, visible: Option<&str>) -> Option<Vec<usize>> {
        let allowed: Vec<usize> = (0..102).filter(|core| *core != 4).collect();
        near(root, rank, visible, &allowed).map(|cores| cores.0)
    }

    #[test]
    fn a_rank_runs_on_the_allowed_cores_of_its_gpus_node() {
        let machine = machine(2);
        // The first GPU by address hangs on the second node.
        assert_eq!(cores(machine.path(), 0, None), Some(vec![3, 5, 101]));
        assert_eq!(cores(machine.path(), 1, None), Some(vec![0, 1, 2, 100]));
        assert_eq!(
            cores(machine.path(), 0, Some("1, 0")),
            Some(vec![0, 1, 2, 100])
        );
        assert_eq!(cores(machine.path(), 0, Some("GPU-8f3a")), None);
        assert_eq!(cores(machine.path(), 2, None), None, "no such GPU");
    }

    #[test]
    fn a_machine_of_one_node_and_a_gpu_without_a_place_bind_nothing() {
        assert_eq!(cores(machine(1).path(), 0, None), None);
        let machine = machine(2);
        let place = machine
            .path()
            .join("sys/bus/pci/devices/0000:01:00.0/numa_node");
        fs::write(place, "-1\n").unwrap();
        assert_eq!(cores(machine.path(), 0, None), None);
    }

    #[test]
    fn a_set_holds_its_cores() {
        let set = Cores(vec![1, 3]).as_set();
        // SAFETY: the numbers are within the set.
        let held = |core| unsafe { libc::CPU_ISSET(core, &set) };
        assert_eq!([0, 1, 2, 3].map(held), [false, true, false, true]);
        assert!(allowed().is_some_and(|cores| !cores.is_empty()));
    }
}
