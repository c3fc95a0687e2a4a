//! How far the jobs of a run are, as the end of its events tells.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::Path;

use event::{EventKind, Phase, RunEvent, Samples, StepRecord};
use serde::Serialize;

use crate::logs::tail;

/// How much of the events' end is looked at: some hundred steps; and more, up to a bound, where a running job tells of none in it.
/// The histograms of one evaluation are many long lines.
const READ_FIRST: u64 = 256 << 10;
const READ_AT_MOST: u64 = 8 << 20;

/// Updates over which the pace is evened out.
const PACE_OF: usize = 20;

/// Where a rank is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RankStatus {
    pub rank: usize,
    /// What it was doing when it last said so.
    pub phase: Option<Phase>,
    pub step: u64,
    /// What it worked on when it last said so; none where it had no sample in hand.
    pub samples: Samples,
    /// Seconds since it last said anything.
    pub age_seconds: f64,
}

/// What the events tell of the newest attempt at a job.
#[derive(Debug, Default)]
pub(super) struct Progress {
    attempt: u32,
    pub step: Option<StepRecord>,
    /// Seconds of the last updates.
    seconds: VecDeque<f64>,
    ranks: BTreeMap<usize, LastWord>,
}

/// What a rank last said.
#[derive(Debug, Default)]
struct LastWord {
    phase: Option<Phase>,
    step: u64,
    samples: Samples,
    time: f64,
}

/// By job; `running`: those of which a step is looked for.
pub(super) fn read(events: &Path, running: &[&str]) -> BTreeMap<String, Progress> {
    let length = fs::metadata(events).map_or(0, |events| events.len());
    let mut bytes = READ_FIRST;
    loop {
        let jobs = of_events(&tail(events, bytes).unwrap_or_default());
        let tells_its_step = |job: &str| jobs.get(job).is_some_and(|job| job.step.is_some());
        if bytes >= length.min(READ_AT_MOST) || running.iter().all(|job| tells_its_step(job)) {
            return jobs;
        }
        bytes = bytes.saturating_mul(4);
    }
}

/// `events` are lines, of which the broken ones are passed over.
fn of_events(events: &str) -> BTreeMap<String, Progress> {
    let mut jobs: BTreeMap<String, Progress> = BTreeMap::new();
    for event in events
        .lines()
        .filter_map(|line| event::parse_line(line).ok())
    {
        if let Some(job) = event.job.clone() {
            jobs.entry(job).or_default().take(event);
        }
    }
    jobs
}

impl Progress {
    fn take(&mut self, event: RunEvent) {
        if let Some(attempt) = event.attempt.filter(|attempt| *attempt != self.attempt) {
            self.attempt = attempt;
            self.ranks.clear();
            self.seconds.clear();
        }
        if let Some(rank) = event.rank {
            let word = self.ranks.entry(rank).or_default();
            word.time = event.time;
            match &event.kind {
                EventKind::Heartbeat { phase, step, .. } => {
                    *word = LastWord {
                        phase: Some(*phase),
                        step: *step,
                        samples: Samples::default(),
                        time: event.time,
                    };
                }
                EventKind::Pulse(pulse) => {
                    (word.phase, word.step) = (Some(pulse.phase), pulse.step);
                    word.samples.clone_from(&pulse.samples);
                }
                EventKind::Step(record) => word.step = record.step,
                _ => {}
            }
        }
        if let EventKind::Step(record) = event.kind {
            self.seconds.push_back(record.seconds);
            if self.seconds.len() > PACE_OF {
                self.seconds.pop_front();
            }
            self.step = Some(record);
        }
    }

    /// The ranks of this attempt.
    pub fn ranks(&self, attempt: u32, now: f64) -> Vec<RankStatus> {
        if attempt != self.attempt {
            return Vec::new();
        }
        let ranks = self.ranks.iter();
        ranks
            .map(|(rank, word)| RankStatus {
                rank: *rank,
                phase: word.phase,
                step: word.step,
                samples: word.samples.clone(),
                age_seconds: (now - word.time).max(0.0),
            })
            .collect()
    }

    /// Seconds of an update, the mean of the last ones.
    pub fn seconds_per_step(&self) -> Option<f64> {
        let sum: f64 = self.seconds.iter().sum();
        (sum > 0.0).then(|| sum / self.seconds.len() as f64)
    }

    /// Images of all ranks a second.
    pub fn images_per_second(&self) -> Option<f64> {
        let images = self.step.as_ref()?.images as f64;
        Some(images / self.seconds_per_step()?)
    }

    /// Seconds until the job's last update; evaluation and tables come on top.
    pub fn remaining(&self) -> Option<f64> {
        let step = self.step.as_ref()?;
        let left = step.total_steps.saturating_sub(step.step);
        Some(self.seconds_per_step()? * left as f64)
    }
}

#[cfg(test)]
mod tests {
    use event::Pulse;

    use super::*;

    fn event(time: f64, attempt: u32, rank: usize, kind: EventKind) -> String {
        let event = RunEvent {
            time,
            rank: Some(rank),
            ..RunEvent::job("a", attempt, kind)
        };
        event::to_line(&event).unwrap()
    }

    fn step(step: u64, seconds: f64) -> EventKind {
        EventKind::Step(StepRecord {
            step,
            total_steps: 10,
            images: 30,
            seconds,
            ..StepRecord::default()
        })
    }

    #[test]
    fn a_step_is_found_behind_what_an_evaluation_tells() {
        let histogram = event::Histogram {
            step: 9,
            name: "weights/head".into(),
            edges: vec![0.0; 1000],
            counts: vec![0; 999],
        };
        let mut lines = event(1.0, 1, 0, step(9, 2.0));
        let long = event(2.0, 1, 0, EventKind::Histogram(histogram));
        while lines.len() < 2 * READ_FIRST as usize {
            lines.push_str(&long);
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, &lines).unwrap();
        let step = |running: &[&str]| {
            let jobs = read(file.path(), running);
            jobs["a"].step.as_ref().map(|step| step.step)
        };
        assert_eq!(step(&["a"]), Some(9));
        assert_eq!(step(&[]), None, "the end is enough where nothing runs");
        assert!(read(Path::new("none"), &["a"]).is_empty());
    }

    #[test]
    fn the_newest_attempt_alone_tells_the_pace_and_the_ranks() {
        let beat = |phase, step| EventKind::Heartbeat {
            phase,
            step,
            sequence: 1,
        };
        let pulse = EventKind::Pulse(Pulse {
            phase: Phase::Backward,
            step: 8,
            sequence: 2,
            waits: true,
            progress: 3,
            idle_seconds: 0.1,
            local_seconds: None,
            samples: Samples {
                ids: vec!["1.2.3/4".into()],
                count: 1,
            },
        });
        let lines = [
            event(1.0, 1, 2, beat(Phase::Forward, 9)),
            event(2.0, 1, 0, step(9, 100.0)),
            "torn {\n".to_owned(),
            event(10.0, 2, 0, step(6, 2.0)),
            event(12.0, 2, 0, step(7, 4.0)),
            event(12.5, 2, 1, beat(Phase::AllReduce, 7)),
            event(13.0, 2, 1, pulse),
        ];
        let jobs = of_events(&lines.concat());
        let progress = &jobs["a"];
        assert_eq!(progress.seconds_per_step(), Some(3.0));
        assert_eq!(progress.images_per_second(), Some(10.0));
        assert_eq!(progress.remaining(), Some(9.0));
        let ranks = progress.ranks(2, 15.0);
        assert_eq!(ranks.len(), 2, "{ranks:?}");
        assert_eq!(
            (ranks[0].phase, ranks[0].step, ranks[0].age_seconds),
            (None, 7, 3.0)
        );
        assert_eq!((ranks[1].phase, ranks[1].step), (Some(Phase::Backward), 8));
        assert_eq!(ranks[1].samples.ids, ["1.2.3/4"]);
        assert!(progress.ranks(3, 15.0).is_empty());
    }
}
