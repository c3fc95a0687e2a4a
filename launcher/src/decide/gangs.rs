//! The plan's jobs as the scheduler knows them: on how many devices each can run, and how long it is thought to take.

use std::collections::BTreeMap;

use plan::schedule::{Limits, ScheduleError, Scheduler, Task};
use plan::{JobKind, JobSpec, Plan};

/// FLOPs of an image where the architecture's are not known: about a ResNet-50's.
const FLOPS: f64 = 1e10;

/// The schedule of a plan on so many devices.
pub(super) fn scheduler(
    plan: &Plan,
    devices: usize,
    is_done: impl Fn(usize) -> bool,
) -> Result<Scheduler, ScheduleError> {
    let places: BTreeMap<_, usize> = plan.jobs.iter().map(|job| &job.id).zip(0..).collect();
    let task = |job: &JobSpec| Task {
        needs: job
            .needs
            .iter()
            .filter_map(|need| places.get(need).copied())
            .collect(),
        widths: match job.kind.training() {
            Some(training) => plan::widths(training, devices, plan.elastic),
            None => Vec::new(),
        },
        work: work(&job.kind),
        memory: 0,
        disk: 0,
    };
    let tasks = plan.jobs.iter().map(task).collect();
    Scheduler::new(tasks, Limits::devices(devices), is_done)
}

/// How long a job takes beside others. How many studies there are is not known to a plan, and is the same for all folds.
fn work(kind: &JobKind) -> f64 {
    let JobKind::Train {
        stage, training, ..
    } = kind
    else {
        return 1.0;
    };
    let flops = plan::cost(kind).map_or(FLOPS, |cost| cost.forward_flops_per_image);
    flops * (stage.images_per_sample() * training.epochs) as f64
}
