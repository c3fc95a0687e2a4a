//! When to strike: moments of an undisturbed run, told by how far the work had come, so that they are the same places in a
//! run that loses time to every blow.

use std::collections::BTreeMap;
use std::time::Duration;

use event::{EventKind, RunEvent};
use serde::Serialize;

/// Something that happens once in every run of the same plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    Started(String),
    Step(String, u64),
    Finished(String),
}

impl Mark {
    fn of(event: &RunEvent) -> Option<Self> {
        let job = event.job.clone()?;
        match &event.kind {
            EventKind::JobStarted { .. } => Some(Mark::Started(job)),
            EventKind::Step(step) => Some(Mark::Step(job, step.step)),
            EventKind::JobFinished { .. } => Some(Mark::Finished(job)),
            _ => None,
        }
    }
}

/// The marks of a run in order, each with its seconds since the launch.
pub struct Course {
    seconds: Vec<f64>,
    places: BTreeMap<Mark, usize>,
}

impl Course {
    /// Of a run that was launched at `began`, in seconds since the Unix epoch.
    pub fn of(events: &[RunEvent], began: f64) -> Self {
        let mut course = Course {
            seconds: Vec::new(),
            places: BTreeMap::new(),
        };
        for event in events {
            if let Some(mark) = Mark::of(event)
                && !course.places.contains_key(&mark)
            {
                course.places.insert(mark, course.seconds.len());
                // A clock that was set back does not turn the course around.
                let before = course.seconds.last().copied().unwrap_or(0.0);
                course.seconds.push((event.time - began).max(before));
            }
        }
        course
    }

    /// The event's place among the marks.
    pub fn place(&self, event: &RunEvent) -> Option<usize> {
        self.places.get(&Mark::of(event)?).copied()
    }

    /// The moment at a share of the time from the launch to the last mark.
    fn moment(&self, share: f64) -> Moment {
        let at = share * self.seconds.last().copied().unwrap_or(0.0);
        let passed = self.seconds.partition_point(|seconds| *seconds <= at);
        let after = passed.checked_sub(1);
        let mark = after.and_then(|place| self.seconds.get(place));
        Moment {
            share,
            after,
            delay: Duration::try_from_secs_f64(at - mark.unwrap_or(&0.0)).unwrap_or_default(),
        }
    }
}

/// A moment of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Moment {
    /// Of the undisturbed run's time.
    pub share: f64,
    /// The place of the last mark before it; none: nothing had been begun.
    pub after: Option<usize>,
    /// From that mark, or from the launch.
    pub delay: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Weapon {
    /// SIGKILL of a rank: the launcher goes on by itself.
    KillRank,
    /// SIGKILL of the launcher; then it is launched again.
    KillLauncher,
    /// SIGTERM to the launcher, which saves and ends; then it is launched again.
    Stop,
}

/// A blow that is to be dealt.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    pub weapon: Weapon,
    pub moment: Moment,
}

/// One random moment in each of `kills` equal parts of the run, by each weapon in turn.
pub fn draw(course: &Course, kills: usize, random: &mut fastrand::Rng) -> Vec<Planned> {
    let weapons = [Weapon::KillRank, Weapon::KillLauncher, Weapon::Stop];
    let weapons = weapons.into_iter().cycle();
    (0..kills)
        .zip(weapons)
        .map(|(index, weapon)| Planned {
            weapon,
            moment: course.moment((index as f64 + random.f64()) / kills as f64),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use event::StepRecord;

    use super::*;

    fn at(time: f64, kind: EventKind) -> RunEvent {
        RunEvent {
            time,
            ..RunEvent::job("job", 1, kind)
        }
    }

    fn step(time: f64, step: u64) -> RunEvent {
        let step = StepRecord {
            step,
            ..StepRecord::default()
        };
        at(time, EventKind::Step(step))
    }

    /// Launched at 100: a start after 2 s, updates after 4 and 6 s, the end after 10 s.
    fn course() -> Course {
        let end = EventKind::JobFinished {
            seconds: 8.0,
            metrics: BTreeMap::new(),
        };
        let events = [
            at(102.0, EventKind::JobStarted { world_size: 1 }),
            step(104.0, 1),
            step(106.0, 2),
            at(110.0, end),
        ];
        Course::of(&events, 100.0)
    }

    #[test]
    fn a_moment_is_told_by_what_was_done_before_it() {
        let course = course();
        for (share, after, delay) in [
            (0.1, None, 1.0),
            (0.2, Some(0), 0.0),
            (0.5, Some(1), 1.0),
            (0.9, Some(2), 3.0),
        ] {
            let moment = course.moment(share);
            assert_eq!((moment.share, moment.after), (share, after));
            assert!(
                (moment.delay.as_secs_f64() - delay).abs() < 1e-6,
                "{moment:?}"
            );
        }
        assert_eq!(course.place(&step(7.0, 2)), Some(2));
        assert_eq!(course.place(&step(7.0, 3)), None);
    }

    #[test]
    fn blows_are_spread_over_the_run_and_repeat_with_their_seed() {
        let course = course();
        let draw = |seed| draw(&course, 7, &mut fastrand::Rng::with_seed(seed));
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        for (index, blow) in draw(3).iter().enumerate() {
            let part = (blow.moment.share * 7.0).floor();
            assert_eq!(part as usize, index, "{blow:?}");
        }
        let weapons: Vec<_> = draw(3).iter().map(|blow| blow.weapon).collect();
        use Weapon::*;
        assert_eq!(weapons[..4], [KillRank, KillLauncher, Stop, KillRank]);
    }

    #[test]
    fn a_run_without_events_is_struck_at_once() {
        let moment = Course::of(&[], 100.0).moment(0.5);
        assert_eq!((moment.after, moment.delay), (None, Duration::ZERO));
    }
}
