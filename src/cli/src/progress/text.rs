//! An event in words, and how much it matters.

use std::collections::BTreeMap;

use event::{EventKind, FailureReport, RunEvent, StepRecord};

use super::pace::Pace;
use crate::units;

/// Whether a line may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Warnings and failures: shown even where quiet is asked for.
    Trouble,
    /// What happens once: always shown.
    Milestone,
    /// What happens again and again: some of it is shown.
    Routine,
}

/// What to say of an event; nothing of those that only matter to machines.
pub fn of(event: &RunEvent, pace: &Pace) -> Option<(Weight, String)> {
    use Weight::*;
    // All ranks train alike: the first speaks for them.
    let first = event.rank.unwrap_or(0) == 0;
    let said = match &event.kind {
        EventKind::RunStarted {
            plan_hash,
            jobs,
            done,
            device,
            ranks,
        } => (
            Milestone,
            format!(
                "{} of {jobs} jobs to do, {} on {device}; plan {:.12}",
                jobs.saturating_sub(*done),
                units::count(*ranks, "rank", "ranks"),
                plan_hash
            ),
        ),
        EventKind::RunFinished { state, seconds } => (
            Milestone,
            format!("run {state} after {}", units::duration(*seconds)),
        ),
        EventKind::JobStarted { world_size } => (
            Milestone,
            format!(
                "started{} on {}",
                again(event),
                units::count(*world_size, "rank", "ranks")
            ),
        ),
        EventKind::JobResumed { step, skipped, .. } => {
            let weight = if skipped.is_empty() {
                Milestone
            } else {
                Trouble
            };
            let passed_over: String = skipped
                .iter()
                .map(|what| format!("; skipped {what}"))
                .collect();
            (weight, format!("goes on from step {step}{passed_over}"))
        }
        EventKind::JobFinished { seconds, metrics } => (
            Milestone,
            format!(
                "finished after {}{}",
                units::duration(*seconds),
                metrics_after(": ", metrics)
            ),
        ),
        EventKind::JobFailed { reason } => (Trouble, format!("failed: {reason}")),
        EventKind::JobRetried {
            reason,
            delay_seconds,
        } => (
            Trouble,
            format!("starts again in {delay_seconds:.0} s: {reason}"),
        ),
        EventKind::JobStopped { step } => (
            Milestone,
            match step {
                Some(step) => format!("stopped; saved at step {step}"),
                None => "stopped before its first step".into(),
            },
        ),
        EventKind::JobPaused => (Milestone, "paused on request".to_owned()),
        EventKind::JobCancelled { skipped } => (
            Milestone,
            match skipped.is_empty() {
                true => "cancelled on request".to_owned(),
                false => format!(
                    "cancelled on request; skipped, as they need it: {}",
                    skipped.join(", ")
                ),
            },
        ),
        EventKind::JobReleased => (Milestone, "may run again, on request".to_owned()),
        EventKind::Step(step) if first => (Routine, step_line(step, pace)),
        EventKind::Evaluated { step, set, metrics } if first => (
            Milestone,
            format!(
                "evaluated{} at step {step}{}",
                match set.as_str() {
                    "" => String::new(),
                    set => format!(" on {set}"),
                },
                metrics_after(": ", metrics)
            ),
        ),
        EventKind::Progress { what, done, total } if first => {
            (Routine, format!("{what} {done}/{total}"))
        }
        EventKind::CheckpointWritten {
            step,
            bytes,
            seconds,
            ..
        } => (
            Routine,
            format!(
                "checkpoint at step {step}: {} in {seconds:.1} s",
                units::bytes(*bytes)
            ),
        ),
        EventKind::TableWritten { table, rows } => {
            (Milestone, format!("table {table}: {rows} rows"))
        }
        EventKind::WeightsLoaded { path, report, .. } => {
            (Milestone, format!("starts from {path}: {report}"))
        }
        EventKind::Warning { message } => (Trouble, format!("warning: {message}")),
        EventKind::RankFailed(report) => (Trouble, failure_line(event.rank, report)),
        EventKind::Heartbeat { .. }
        | EventKind::Pulse(_)
        | EventKind::GpuUse(_)
        | EventKind::Stack { .. }
        | EventKind::TrainingStarted { .. }
        | EventKind::Step(_)
        | EventKind::Scores(_)
        | EventKind::Picture(_)
        | EventKind::Histogram(_)
        | EventKind::Evaluated { .. }
        | EventKind::Progress { .. } => return None,
    };
    Some(said)
}

/// `step 7/90  epoch 1/3  loss 0.4321  lr 2.000e-4  120 images/s  3:20 left`
fn step_line(step: &StepRecord, pace: &Pace) -> String {
    let mut line = format!("step {}/{}", step.step, step.total_steps);
    line.push_str(&step_numbers(step, pace));
    if let Some(left) = pace.remaining(step).filter(|left| *left >= 1.0) {
        line.push_str(&format!("  {} left", units::duration(left)));
    }
    line
}

/// Epoch, loss, learning rate, speed and how busy the GPUs are, each after two spaces.
pub fn step_numbers(step: &StepRecord, pace: &Pace) -> String {
    let speed = pace.images_per_second().map_or_else(String::new, |speed| {
        let decimals = usize::from(speed < 10.0);
        format!("  {speed:.decimals$} images/s")
    });
    let epoch = step.epochs.map_or_else(String::new, |epochs| {
        format!("  epoch {}/{epochs}", step.epoch + 1)
    });
    let busy = pace
        .utilization()
        .map_or_else(String::new, |busy| format!("  GPU {:.0} %", 100.0 * busy));
    format!(
        "{epoch}  loss {}  lr {:.2e}{speed}{busy}",
        units::metric(step.loss),
        step.learning_rate
    )
}

fn failure_line(rank: Option<usize>, report: &FailureReport) -> String {
    let who = rank.map_or_else(|| "a rank".into(), |rank| format!("rank {rank}"));
    let exit = report
        .exit
        .as_ref()
        .map_or_else(String::new, |exit| format!(" ({exit})"));
    let samples = report.samples.clause();
    format!("{who} failed{exit}: {}{samples}", report.message)
}

fn metrics_after(separator: &str, metrics: &BTreeMap<String, f64>) -> String {
    let parts: Vec<String> = metrics
        .iter()
        .map(|(name, value)| format!("{name} {}", units::metric(*value)))
        .collect();
    match parts.is_empty() {
        true => String::new(),
        false => format!("{separator}{}", parts.join("  ")),
    }
}

fn again(event: &RunEvent) -> String {
    match event.attempt {
        Some(attempt) if attempt > 1 => format!(" again (attempt {attempt})"),
        _ => String::new(),
    }
}
