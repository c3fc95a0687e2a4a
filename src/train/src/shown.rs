//! What rank 0 tells of an update, and what it shows beside it.

use event::{EventKind, Phase, StepRecord};

use crate::memory;
use crate::step::{Outcome, Stepper};
use crate::trainer::{Setup, Task};

/// A record of the update, or a warning that fp16 left it out.
pub(crate) fn step_event(
    outcome: Outcome,
    (step, total_steps, epoch): (u64, u64, u64),
    learning_rate: f64,
    batch: usize,
    seconds: f64,
    setup: &Setup,
) -> EventKind {
    if outcome.skipped {
        let scale = outcome.loss_scale.unwrap_or_default();
        let message = format!(
            "update {step} of {total_steps} is left out: a gradient overflowed fp16 under the loss scale of {scale}, which \
             is halved; now and then that is how fp16 finds its scale"
        );
        return EventKind::Warning { message };
    }
    let optimization = &setup.training.optimization;
    let of_backbone = optimization.backbone_learning_rate;
    let learning_rates = of_backbone.into_iter().flat_map(|rate| {
        let backbone = learning_rate * rate / optimization.learning_rate;
        [("backbone", backbone), ("heads", learning_rate)]
    });
    EventKind::Step(StepRecord {
        step,
        total_steps,
        epoch,
        epochs: Some(setup.training.epochs),
        loss: outcome.loss,
        losses: outcome.parts,
        learning_rate,
        learning_rates: learning_rates
            .map(|(group, rate)| (group.to_owned(), rate))
            .collect(),
        gradient_norm: outcome.gradient_norm,
        clipped_norm: outcome.clipped_norm,
        loss_scale: outcome.loss_scale,
        samples: batch as u64,
        images: outcome.images,
        seconds,
        phases: outcome.phases,
        host_memory: memory::host(),
        device_memory: memory::device(setup.store.device()),
    })
}

/// What the model is given and, where it is asked for, how weights and gradients are spread. Rank 0 alone; the others wait
/// for it in the next collective. Where it fails, the training goes on.
pub(crate) fn show<T: Task>(task: &T, setup: &Setup, stepper: &Stepper, step: u64, per_epoch: u64) {
    setup
        .report
        .at(Phase::Evaluate, step, setup.group.sequence());
    task.show_inputs(step, step.saturating_sub(1) / per_epoch);
    if !setup.histograms {
        return;
    }
    match stepper.spread(step) {
        Ok(all) => all
            .into_iter()
            .for_each(|histogram| setup.report.report(EventKind::Histogram(histogram))),
        Err(error) => setup.report.report(EventKind::Warning {
            message: format!("no histograms at step {step}: {error}"),
        }),
    }
}
