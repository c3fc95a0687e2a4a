//! The watch over a library that stands in for NVML.

use std::time::Duration;

use event::{EventKind, GpuUse};
use plan::JobId;
use tempfile::TempDir;

use super::GpuWatch;

#[path = "../../tests/launch/fake_nvml.rs"]
mod fake_nvml;

const OFTEN: Duration = Duration::from_millis(2);

fn job(name: &str) -> JobId {
    JobId::new(name).unwrap()
}

/// The folder holds the library as long as it is used.
fn watch(by_address: bool, trouble: Option<&str>) -> (GpuWatch, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let library = fake_nvml::make(folder.path(), trouble);
    (GpuWatch::start(library, by_address, OFTEN), folder)
}

fn started(watch: &GpuWatch, name: &str, names: &[&str]) {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    watch.job_started(&job(name), 3, names);
}

/// Job, rank and what is told next.
fn next(watch: &mut GpuWatch) -> (String, usize, GpuUse) {
    let (job, event) = watch.seen.blocking_recv().expect("the thread watches");
    assert_eq!(
        (event.job.as_deref(), event.attempt),
        (Some(job.as_str()), Some(3))
    );
    match event.kind {
        EventKind::GpuUse(gpu) => (job.to_string(), event.rank.unwrap(), gpu),
        other => panic!("{other:?}"),
    }
}

fn ids(names: &[&str], by_address: bool) -> Vec<(usize, String)> {
    let (mut watch, _folder) = watch(by_address, None);
    // The last one, which is known, comes last.
    let names = [names, &["MIG-77"]].concat();
    started(&watch, "a", &names);
    let mut ids = Vec::new();
    loop {
        let (_, rank, gpu) = next(&mut watch);
        match rank + 1 == names.len() {
            true => return ids,
            false => ids.push((rank, gpu.id)),
        }
    }
}

#[test]
fn a_number_is_a_place_by_address_among_the_gpus_that_may_be_used() {
    let ranks = [
        (0, "GPU-bb33".into()),
        (1, "GPU-aa22".into()),
        (2, "GPU-aa11".into()),
    ];
    assert_eq!(ids(&["2", "0", "1", "3", "-1"], true), ranks);
    assert_eq!(ids(&["0", "1"], false), [], "in an order of CUDA's own");
}

#[test]
fn a_uuid_may_be_cut_short_but_must_name_one() {
    let ranks = [(1, "GPU-aa22".into()), (3, "GPU-bb33".into())];
    assert_eq!(
        ids(&["GPU-aa", "GPU-aa2", "GPU-cc", "GPU-bb33"], false),
        ranks
    );
}

#[test]
fn what_is_told_is_the_mean_of_the_looks_since_and_the_memory_of_now() {
    let (mut watch, _folder) = watch(true, None);
    started(&watch, "a", &["0", "MIG-77"]);
    let whole = |utilization| GpuUse {
        id: "GPU-aa22".into(),
        model: "NVIDIA Nothing".into(),
        utilization: Some(utilization),
        memory_used: Some(0x17 << 30),
        memory_total: Some(160 << 30),
    };
    let part = GpuUse {
        id: "MIG-77".into(),
        utilization: None,
        memory_used: Some(0x99 << 30),
        ..whole(0.0)
    };
    assert_eq!(next(&mut watch), ("a".into(), 0, whole(0.8)));
    assert_eq!(next(&mut watch), ("a".into(), 1, part.clone()));
    // Five times 0 and five times 0.8.
    let (_, rank, gpu) = next(&mut watch);
    assert!((gpu.utilization.unwrap() - 0.4).abs() < 1e-9, "{gpu:?}");
    assert_eq!((rank, gpu.memory_used), (0, whole(0.0).memory_used));
    assert_eq!(next(&mut watch), ("a".into(), 1, part));
}

#[test]
fn of_a_lost_gpu_nothing_more_is_said_and_of_the_others_all() {
    let (mut watch, _folder) = watch(true, Some("LOST"));
    started(&watch, "a", &["2", "0"]);
    let ranks = [(); 5].map(|()| next(&mut watch).1);
    assert_eq!(ranks, [0, 1, 1, 1, 1]);
}

#[test]
fn a_job_that_has_ended_is_watched_no_more() {
    let (mut watch, _folder) = watch(true, None);
    started(&watch, "a", &["0"]);
    assert_eq!(next(&mut watch).0, "a");
    watch.job_ended(&job("a"));
    started(&watch, "b", &["1"]);
    while next(&mut watch).0 == "a" {}
    let jobs = [(); 3].map(|()| next(&mut watch).0);
    assert_eq!(jobs, ["b", "b", "b"]);
}

#[test]
fn without_the_library_nothing_is_seen_and_nothing_said() {
    let mut watch = GpuWatch::start("/nowhere/libnvidia-ml.so.1".into(), true, OFTEN);
    started(&watch, "a", &["0"]);
    assert!(watch.seen.blocking_recv().is_none(), "its thread has ended");
}
