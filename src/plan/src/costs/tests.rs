use recipe::parse;

use super::*;
use crate::schedule::{Limits, critical_path};
use crate::simulate;

const GPU: Machine = Machine {
    device: Device::Cuda,
    flops: 1e14,
};

fn plan(set: &[&str]) -> Plan {
    let text = "data: {root: d, folds: 2}\nstage1a: {training: {arch: resnest50d}}\nstage1b: {training: {arch: resnest50d}}\nstage2: {training: {arch: resnest50d}}\nstage3: {training: {arch: resnest50d}}\n";
    let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
    let source = recipe::Source {
        name: "r".into(),
        text: text.into(),
    };
    crate::compile(&parse(&source, &set).unwrap()).unwrap()
}

fn place(plan: &Plan, job: &str) -> usize {
    plan.jobs
        .iter()
        .position(|of| of.id.as_str() == job)
        .unwrap()
}

const FIRST: &str = "stage2-resnest50d-fold0-seed0";
const SECOND: &str = "stage2-resnest50d-fold1-seed0";

fn measured(of: &[(&str, Measured)]) -> BTreeMap<JobId, Measured> {
    let of = of
        .iter()
        .map(|(job, measured)| (JobId::new(job).unwrap(), *measured));
    of.collect()
}

#[test]
fn without_a_run_time_is_flops_at_the_assumed_rate() {
    let plan = plan(&[]);
    let costs = costs(&plan, GPU, |_| 1, None);
    let job = costs[place(&plan, FIRST)];
    assert_eq!(job.source, Source::Assumed);
    assert_eq!(job.seconds, job.flops / 1e14);
    assert!(job.flops > 1e16);
    let labels = costs[0];
    assert_eq!(labels.source, Source::Host);
    assert_eq!(labels.device_seconds(&plan.jobs[0].kind), 0.0);
    // Two checkpoints that stay and the one that is being written.
    let bytes = crate::cost(&plan.job(FIRST).unwrap().kind)
        .unwrap()
        .checkpoint_bytes;
    assert!(job.disk > 3 * bytes && job.disk < 3 * bytes + 1_000_000_000);
}

#[test]
fn what_has_run_counts_as_it_ran_and_stands_for_its_like() {
    let plan = plan(&[]);
    let measured = measured(&[(
        FIRST,
        Measured {
            finished: Some(3600.0),
            per_image: Some(1.0),
        },
    )]);
    let run = Run {
        plan: &plan,
        measured: &measured,
    };
    let of = |plan: &Plan, job: &str| {
        let costs = costs(plan, GPU, |_| 1, Some(run));
        costs[place(plan, job)]
    };
    assert_eq!(
        (of(&plan, FIRST).seconds, of(&plan, FIRST).source),
        (3600.0, Source::Ran)
    );
    let like = of(&plan, SECOND);
    assert_eq!(like.source, Source::Measured);
    assert!((like.seconds - 3600.0).abs() < 1.0, "{}", like.seconds);
    let other = of(&plan, "stage1b-resnest50d-fold0-seed0");
    assert_eq!(other.source, Source::OtherStages);
    assert!((other.seconds / other.flops - like.seconds / like.flops).abs() < 1e-18);
    // Twice the epochs are another job, of about twice the time.
    let longer = self::plan(&["stage2.training.epochs=6"]);
    let longer = of(&longer, FIRST);
    assert_eq!(longer.source, Source::Measured);
    assert!(
        (5500.0..=7200.0).contains(&longer.seconds),
        "{}",
        longer.seconds
    );
}

#[test]
fn updates_stand_for_a_job_that_has_not_finished() {
    let plan = plan(&[]);
    let update = Measured {
        finished: None,
        per_image: Some(0.01),
    };
    let measured = measured(&[(FIRST, update)]);
    let run = Run {
        plan: &plan,
        measured: &measured,
    };
    let costs = costs(&plan, GPU, |_| 1, Some(run));
    let job = costs[place(&plan, FIRST)];
    assert_eq!(job.source, Source::Measured);
    let images = volume(&plan, &plan.job(FIRST).unwrap().kind);
    let expected = 0.01 * (images.trained + images.inferred / 3.0);
    assert!((job.seconds - expected).abs() < expected * 1e-9);
}

#[test]
fn more_devices_shorten_a_run_down_to_its_critical_path() {
    let plan = plan(&[
        "stage2.training.gpus=1",
        "stage3.training.gpus=1",
        "stage1a.training.gpus=1",
        "stage1b.training.gpus=1",
    ]);
    let costs = costs(&plan, GPU, |_| 1, None);
    let makespan = |devices| {
        let widths = |kind: &JobKind| match kind.training() {
            Some(training) => crate::widths(training, devices, None),
            None => Vec::new(),
        };
        let tasks = tasks(&plan, &costs, widths);
        let (_, path) = critical_path(&tasks, devices).unwrap();
        let timeline = simulate(&tasks, Limits::devices(devices), |_| false).unwrap();
        (timeline.makespan, path)
    };
    let ((one, _), (two, path), (eight, same)) = (makespan(1), makespan(2), makespan(8));
    assert!(
        two < one * 0.6 && two >= path * 0.999_999,
        "{one} {two} {path}"
    );
    assert!((eight - same).abs() < 1e-6 * same);
}
