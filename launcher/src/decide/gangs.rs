//! The plan's jobs as the scheduler knows them: on how many devices each can run, and how long it is thought to take.

use std::collections::BTreeMap;

use plan::schedule::{Limits, ScheduleError, Scheduler, Task};
use plan::{JobKind, JobSpec, Plan};

use crate::room::Demand;

/// FLOPs of an image where the architecture's are not known: about a ResNet-50's.
const FLOPS: f64 = 1e10;

/// The schedule of a plan on a machine.
pub(super) fn scheduler(
    plan: &Plan,
    limits: Limits,
    demands: &[Demand],
    is_done: impl Fn(usize) -> bool,
) -> Result<Scheduler, ScheduleError> {
    let places: BTreeMap<_, usize> = plan.jobs.iter().map(|job| &job.id).zip(0..).collect();
    let task = |(place, job): (usize, &JobSpec)| Task {
        needs: job
            .needs
            .iter()
            .filter_map(|need| places.get(need).copied())
            .collect(),
        widths: match job.kind.training() {
            Some(training) => plan::widths(training, limits.devices, plan.elastic),
            None => Vec::new(),
        },
        work: work(&job.kind),
        // What the recipe allows may be more than there is: such a job runs alone.
        memory: demands
            .get(place)
            .map_or(0, |of| of.memory)
            .min(limits.memory),
        disk: demands.get(place).map_or(0, |of| of.disk),
    };
    let tasks = plan.jobs.iter().enumerate().map(task).collect();
    Scheduler::new(tasks, limits, is_done)
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
