use recipe::{Source, parse};

use super::*;

fn plan(set: &[&str]) -> Plan {
    let text = "data: {root: d, folds: 2}\nstage1a: {training: {arch: resnest50d}}\nstage1b: {training: {arch: resnest50d}}\nstage2: {training: {arch: resnest50d, batch: 48, micro_batch: 3}}\nstage3: {training: {arch: resnest50d}}\n";
    let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
    let source = Source {
        name: "r".into(),
        text: text.into(),
    };
    crate::compile(&parse(&source, &set).unwrap()).unwrap()
}

fn of(plan: &Plan, device: Device, ranks: usize) -> Memory {
    let kind = &plan.job("stage2-resnest50d-fold0-seed0").unwrap().kind;
    memory(plan, kind, device, ranks)
}

/// docs/gpu.md: so much did the tensors of an update take, in fp16.
#[test]
fn stage_2_in_its_published_shape_takes_what_a_gpu_was_seen_to_give_it() {
    let gpu = |set: &[&str]| of(&plan(set), Device::Cuda, 1).device.unwrap() as f64 / 1e9;
    let near = |estimate: f64, measured: f64| (1.0..1.15).contains(&(estimate / measured));
    let plain = gpu(&[]);
    assert!(near(plain, 33.6 + CONTEXT / 1e9), "{plain}");
    let again = gpu(&["stage2.training.gradient_checkpointing=true"]);
    assert!(near(again, 17.5 + CONTEXT / 1e9), "{again}");
    assert!(gpu(&["stage2.training.precision=fp32"]) > plain * 1.5);
}

#[test]
fn ranks_share_a_gpus_work_and_add_up_on_the_host() {
    let plan = plan(&[]);
    let (one, two) = (of(&plan, Device::Cuda, 1), of(&plan, Device::Cuda, 2));
    assert_eq!(one.device, two.device);
    assert!(two.host > one.host * 3 / 2);
    // Without a GPU the tensors lie in the host's memory.
    let on_cpu = of(&plan, Device::Cpu, 1);
    assert_eq!(on_cpu.device, None);
    assert!(on_cpu.host > one.host + one.device.unwrap());
    let labels = memory(&plan, &JobKind::Labels, Device::Cuda, 1);
    assert_eq!(labels.device, None);
}

#[test]
fn a_smaller_micro_batch_is_found_where_one_fits() {
    let plan = plan(&[]);
    let kind = &plan.job("stage2-resnest50d-fold0-seed0").unwrap().kind;
    let needed = of(&plan, Device::Cuda, 1).device.unwrap();
    assert_eq!(micro_batch_that_fits(kind, 1, needed), Some(3));
    // Two sequences are a rank's share in micro-batches of 2 of 48.
    assert_eq!(micro_batch_that_fits(kind, 1, needed - 1), Some(2));
    assert_eq!(micro_batch_that_fits(kind, 1, 1_000_000_000), None);
}
