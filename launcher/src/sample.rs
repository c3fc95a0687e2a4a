//! Small plans for the tests of this crate.

use plan::{JobId, JobSpec, Plan};
use recipe::Source;

const RECIPE: &str = "
data: {root: data}
retries: 1
stall_timeout: 60
stage1a: {training: {batch: 4, micro_batch: 1}}
";

/// `job0 -> job1 -> ...`: each trains, and needs the one before it. One retry each.
pub(crate) fn chain(jobs: usize) -> Plan {
    plan((0..jobs).map(|index| {
        (
            id(index),
            index.checked_sub(1).map(id).into_iter().collect(),
        )
    }))
}

/// Jobs that need nothing.
pub(crate) fn independent(jobs: usize) -> Plan {
    plan((0..jobs).map(|index| (id(index), Vec::new())))
}

/// The same jobs, on so many devices each.
pub(crate) fn on(gpus: plan::Gpus, mut plan: Plan) -> Plan {
    for job in &mut plan.jobs {
        if let plan::JobKind::Train { training, .. } = &mut job.kind {
            training.gpus = gpus;
        }
    }
    plan
}

fn id(index: usize) -> JobId {
    JobId::new(&format!("job{index}")).unwrap()
}

fn plan(jobs: impl Iterator<Item = (JobId, Vec<JobId>)>) -> Plan {
    let source = Source {
        name: "sample.yaml".into(),
        text: RECIPE.into(),
    };
    let plan = plan::compile(&recipe::parse(&source, &[]).unwrap()).unwrap();
    let training = plan.jobs.iter().find(|job| job.kind.is_training()).unwrap();
    let spec = |(id, needs)| JobSpec {
        hash: format!("hash of {id}"),
        id,
        needs,
        kind: training.kind.clone(),
    };
    Plan {
        jobs: jobs.map(spec).collect(),
        ..plan.clone()
    }
}
