//! Ranks on GPUs that a library tells of which stands in for NVML.

use event::{EventKind, GpuUse, RunEvent};

use crate::fake_nvml;
use crate::harness::{Run, plan, wait_until};

/// Of which rank what was told.
fn told(events: &[RunEvent]) -> Vec<(usize, GpuUse)> {
    let of_gpus = events.iter().filter_map(|event| match &event.kind {
        EventKind::GpuUse(gpu) => Some((event.rank.unwrap(), gpu.clone())),
        _ => None,
    });
    of_gpus.collect()
}

#[test]
fn the_gpus_of_running_ranks_are_told_of_whatever_the_launcher_calls_them() {
    let run = Run::new(&plan(0));
    run.does("first-1", "train");
    let library = fake_nvml::make(run.folder.path(), None);
    let environment = [
        ("FAKE_NVML", library.to_str().unwrap()),
        ("CUDA_VISIBLE_DEVICES", "GPU-bb, 1"),
    ];
    let launcher = run.spawn_with("auto", &environment);
    run.training();
    wait_until("both GPUs are told of", || told(&run.events()).len() >= 2);
    launcher.signal(libc::SIGTERM);
    assert_eq!(launcher.end().code(), Some(75), "{}", run.stderr());

    let events = run.events();
    let told = told(&events);
    let ids: Vec<_> = told[..2]
        .iter()
        .map(|(rank, gpu)| (*rank, &*gpu.id))
        .collect();
    assert_eq!(ids, [(0, "GPU-bb33"), (1, "GPU-aa11")]);
    assert_eq!(told[0].1.utilization, Some(0.8));
    assert_eq!(told[1].1.memory_used, Some(0x41 << 30));
    let of_other_jobs = events
        .iter()
        .filter(|event| event.job.as_deref() != Some("first"));
    let is_of_a_gpu = |event: &RunEvent| matches!(event.kind, EventKind::GpuUse(_));
    assert_eq!(of_other_jobs.filter(|event| is_of_a_gpu(event)).count(), 0);
    assert_eq!(run.stderr(), "");
}

#[test]
fn a_driver_that_hangs_holds_up_neither_a_run_nor_its_end() {
    let run = Run::new(&plan(0));
    run.does(
        "first",
        r#"until [ -e "$FAKE_NVML_ASKED" ]; do sleep 0.02; done"#,
    );
    let library = fake_nvml::make(run.folder.path(), Some("HANG"));
    let asked = run.folder.path().join("asked");
    let environment = [
        ("FAKE_NVML", library.to_str().unwrap()),
        ("FAKE_NVML_ASKED", asked.to_str().unwrap()),
    ];
    let launcher = run.spawn_with("auto", &environment);
    assert_eq!(launcher.end().code(), Some(0), "{}", run.stderr());
    assert_eq!(told(&run.events()), []);
    assert_eq!(run.stderr(), "");
}
