//! Progress as plain lines, for log files: all that happens once, and now and then what repeats.

use std::collections::BTreeMap;

use event::{EventKind, RunEvent};

use super::pace::Pace;
use super::text::{self, Weight};
use crate::units;

/// Seconds of event time between two routine lines of a job.
const ROUTINE_SECONDS: f64 = 2.0;

#[derive(Debug)]
pub struct Lines {
    only_trouble: bool,
    /// Time of the first event: lines show the time since.
    began: Option<f64>,
    jobs: BTreeMap<String, JobLines>,
}

#[derive(Debug, Default)]
struct JobLines {
    pace: Pace,
    last_routine: Option<f64>,
}

impl Lines {
    pub fn all() -> Self {
        Lines {
            only_trouble: false,
            began: None,
            jobs: BTreeMap::new(),
        }
    }

    pub fn only_trouble() -> Self {
        Lines {
            only_trouble: true,
            ..Lines::all()
        }
    }

    /// The line to print for an event, if it is its turn.
    pub fn line(&mut self, event: &RunEvent) -> Option<String> {
        let began = *self.began.get_or_insert(event.time);
        let job = self
            .jobs
            .entry(event.job.clone().unwrap_or_default())
            .or_default();
        let mut last = false;
        match &event.kind {
            EventKind::JobStarted { .. } => *job = JobLines::default(),
            EventKind::Step(step) if event.rank.unwrap_or(0) == 0 => {
                job.pace.take(step);
                last = step.step == step.total_steps;
            }
            EventKind::GpuUse(gpu) => job.pace.take_gpu(event.rank.unwrap_or(0), gpu),
            EventKind::Progress { done, total, .. } => last = done == total,
            _ => {}
        }
        let (weight, text) = text::of(event, &job.pace)?;
        if self.only_trouble && weight != Weight::Trouble {
            return None;
        }
        if weight == Weight::Routine {
            let soon = |then: f64| (event.time - then).abs() < ROUTINE_SECONDS;
            if !last && job.last_routine.is_some_and(soon) {
                return None;
            }
            job.last_routine = Some(event.time);
        }
        let elapsed = units::duration(event.time - began);
        Some(match &event.job {
            Some(name) => format!("{elapsed} {name}: {text}"),
            None => format!("{elapsed} {text}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use event::{GpuUse, StepRecord};

    use super::*;

    fn at(time: f64, job: &str, kind: EventKind) -> RunEvent {
        RunEvent {
            time,
            ..RunEvent::job(job, 1, kind)
        }
    }

    fn step(time: f64, job: &str, step: u64) -> RunEvent {
        let record = StepRecord {
            step,
            total_steps: 10,
            epoch: 1,
            epochs: Some(3),
            loss: 0.5,
            learning_rate: 2e-4,
            images: 64,
            seconds: 1.0,
            ..StepRecord::default()
        };
        at(time, job, EventKind::Step(record))
    }

    #[test]
    fn steps_are_thinned_out_job_by_job_but_the_last_is_shown() {
        let mut lines = Lines::all();
        let shown: Vec<bool> = [
            step(100.0, "a", 1),
            step(101.0, "a", 2),
            step(101.5, "b", 1),
            step(102.5, "a", 3),
            step(103.0, "a", 10),
        ]
        .iter()
        .map(|event| lines.line(event).is_some())
        .collect();
        assert_eq!(shown, [true, false, true, true, true]);
    }

    #[test]
    fn a_line_tells_time_job_and_numbers() {
        let mut lines = Lines::all();
        lines.line(&at(40.0, "a", EventKind::JobStarted { world_size: 2 }));
        assert_eq!(
            lines.line(&step(101.0, "a", 4)).unwrap(),
            "1:01 a: step 4/10  epoch 2/3  loss 0.5000  lr 2.00e-4  64 images/s  0:06 left"
        );
    }

    #[test]
    fn how_busy_the_gpus_of_all_ranks_are_stands_beside_the_speed() {
        let mut lines = Lines::all();
        for (rank, utilization) in [(0, Some(0.1)), (1, Some(0.6)), (2, None), (0, Some(0.9))] {
            let gpu = EventKind::GpuUse(GpuUse {
                utilization,
                ..GpuUse::default()
            });
            let rank = Some(rank);
            let seen = RunEvent {
                rank,
                ..at(1.0, "a", gpu)
            };
            assert_eq!(lines.line(&seen), None);
        }
        let line = lines.line(&step(2.0, "a", 4)).unwrap();
        assert!(line.contains("64 images/s  GPU 75 %  0:06 left"), "{line}");
        let other = lines.line(&step(2.0, "b", 4)).unwrap();
        assert!(!other.contains("GPU"), "{other}");
    }

    #[test]
    fn other_ranks_do_not_repeat_what_the_first_says() {
        let event = RunEvent {
            rank: Some(1),
            ..step(1.0, "a", 1)
        };
        assert_eq!(Lines::all().line(&event), None);
    }

    #[test]
    fn quiet_means_trouble_only() {
        let mut lines = Lines::only_trouble();
        assert_eq!(lines.line(&step(1.0, "a", 10)), None);
        let warning = EventKind::Warning {
            message: "the disk is nearly full".into(),
        };
        assert_eq!(
            lines.line(&at(2.0, "a", warning)).unwrap(),
            "0:01 a: warning: the disk is nearly full"
        );
    }
}
