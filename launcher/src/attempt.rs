//! One attempt at a job as the supervisor knows it: how its ranks ended, and whose failure was the cause.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use event::{EventKind, FailureClass, FailureReport, Phase, Samples};
use plan::Timeouts;

use crate::action::Death;
use crate::exit::{Exit, STOPPED, words_of_death};
use crate::facts::Facts;
use crate::pace::Pace;
use crate::stall::{self, Standing, Suspect};
use crate::straggler::Straggler;
use crate::verdict::{self, Evidence};

/// What the ends of all ranks come to.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    Succeeded,
    /// All ranks stopped with a checkpoint.
    Stopped,
    /// Ended by the supervisor, or by its request to stop, before everything was saved.
    Cut,
    Failed {
        class: FailureClass,
        reason: String,
        /// The rank whose failure it was.
        rank: Option<usize>,
        /// The kernel took memory back: no allocator failed.
        by_kernel: bool,
    },
}

#[derive(Debug)]
pub(crate) struct Attempt {
    /// The job's place in the plan.
    pub job: usize,
    pub number: u32,
    pub started: Duration,
    /// When ranks that are left are killed, once one has failed.
    pub kill_at: Option<Duration>,
    /// Whether the ranks were asked to stop, and whether they were killed.
    pub asked: bool,
    /// It was asked while the other jobs go on.
    pub alone: bool,
    pub killed: bool,
    /// They were killed because somebody would not wait for them to stop.
    pub hurried: bool,
    /// Step of the newest checkpoint that a rank told of.
    pub checkpoint: Option<u64>,
    /// Of the newest evaluation.
    pub metrics: BTreeMap<String, f64>,
    /// Updates done when it went on from a checkpoint, and the newest.
    pub began: Option<u64>,
    pub reached: Option<u64>,
    pub pace: Pace,
    /// The rank that is looked at before it is ended.
    pub examination: Option<Examination>,
    ranks: Vec<Rank>,
}

/// A rank is suspected, and looked at twice.
#[derive(Debug)]
pub(crate) struct Examination {
    pub suspect: Suspect,
    first: Option<Facts>,
    /// When the second look is due.
    pub until: Duration,
}

#[derive(Debug)]
struct Rank {
    /// When it last gave a sign of life, and where it was.
    heard: Duration,
    progressed: Duration,
    place: Option<Place>,
    /// What it works on there.
    samples: Samples,
    waits: bool,
    straggler: Straggler,
    stack: Vec<String>,
    /// The kernel killed it for want of memory.
    killed_for_memory: bool,
    report: Option<FailureReport>,
    /// It dies, and will have ended so.
    dying: bool,
    exit: Option<Exit>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    phase: Phase,
    step: u64,
    sequence: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place {
            phase,
            step,
            sequence,
        } = self;
        write!(f, "{phase} at step {step}, collective {sequence}")
    }
}

impl Attempt {
    pub fn new(job: usize, number: u32, world_size: usize, now: Duration) -> Self {
        let rank = || Rank {
            heard: now,
            progressed: now,
            place: None,
            samples: Samples::default(),
            waits: false,
            straggler: Straggler::default(),
            stack: Vec::new(),
            killed_for_memory: false,
            report: None,
            dying: false,
            exit: None,
        };
        Attempt {
            job,
            number,
            started: now,
            kill_at: None,
            asked: false,
            alone: false,
            killed: false,
            hurried: false,
            checkpoint: None,
            metrics: BTreeMap::new(),
            began: None,
            reached: None,
            pace: Pace::default(),
            examination: None,
            ranks: (0..world_size).map(|_| rank()).collect(),
        }
    }

    /// Takes note of what a rank says; true where it is the rank's failure.
    pub fn said(&mut self, rank: usize, kind: &EventKind, now: Duration) -> bool {
        let Some(rank) = self.ranks.get_mut(rank) else {
            return false;
        };
        rank.heard = now;
        if !matches!(kind, EventKind::Pulse(_) | EventKind::Stack { .. }) {
            rank.progressed = now;
        }
        match kind {
            &EventKind::Heartbeat {
                phase,
                step,
                sequence,
            } => {
                rank.waits = phase.waits_for_others();
                rank.samples = Samples::default();
                rank.place = Some(Place {
                    phase,
                    step,
                    sequence,
                });
            }
            EventKind::Pulse(pulse) => {
                let idle = Duration::try_from_secs_f64(pulse.idle_seconds).unwrap_or_default();
                rank.progressed = rank.progressed.max(now.saturating_sub(idle));
                rank.waits = pulse.waits;
                rank.straggler.take(pulse);
                rank.samples.clone_from(&pulse.samples);
                rank.place = Some(Place {
                    phase: pulse.phase,
                    step: pulse.step,
                    sequence: pulse.sequence,
                });
            }
            EventKind::Stack { frames } => rank.stack.clone_from(frames),
            EventKind::Step(step) => {
                self.reached = self.reached.max(Some(step.step));
                self.pace.take(step, now);
            }
            EventKind::JobResumed { step, .. } => {
                (self.began, self.checkpoint) = (Some(*step), Some(*step));
                self.reached = self.reached.max(Some(*step));
            }
            EventKind::CheckpointWritten { step, .. } => self.checkpoint = Some(*step),
            EventKind::Evaluated { metrics, .. } => self.metrics.clone_from(metrics),
            EventKind::RankFailed(report) if rank.report.is_none() => {
                rank.report = Some(report.clone());
                return true;
            }
            _ => {}
        }
        false
    }

    /// Takes note of a rank's end, as [`Attempt::dies`].
    pub fn ended(&mut self, rank: usize, death: &Death) -> Option<FailureReport> {
        self.ranks.get_mut(rank)?.exit = Some(death.exit);
        self.dies(rank, death)
    }

    /// Takes note that a rank dies; the report that it owed, where it fails without a word.
    pub fn dies(&mut self, rank: usize, death: &Death) -> Option<FailureReport> {
        let Death {
            exit,
            at,
            ref last_words,
            oom_kill,
        } = *death;
        let killed = self.killed;
        let by_request = self.asked && exit == Exit::Signal(libc::SIGTERM);
        let rank = self.ranks.get_mut(rank)?;
        rank.dying = true;
        if let Some(report) = &mut rank.report {
            report.exit.get_or_insert_with(|| exit.to_string());
            return None;
        }
        if exit.is_regular() || killed || by_request {
            return None;
        }
        let killed_for_memory = oom_kill && exit == Exit::Signal(libc::SIGKILL);
        let (message, advice) = words_of_death(exit, last_words, killed_for_memory);
        rank.killed_for_memory = killed_for_memory;
        let told = match exit {
            _ if killed_for_memory => Some(FailureClass::HostMemory),
            Exit::Code(4 | 3) => None,
            _ => FailureClass::of_message(last_words),
        };
        let report = FailureReport {
            phase: rank.place.map(|place| place.phase),
            step: rank.place.map(|place| place.step),
            sequence: rank.place.map(|place| place.sequence),
            samples: rank.samples.clone(),
            exit: Some(exit.to_string()),
            done: Some("all ranks of the job were ended".to_owned()),
            advice: advice.map(str::to_owned),
            ..FailureReport::new(at, told.unwrap_or(exit.class()), message)
        };
        rank.report = Some(report.clone());
        Some(report)
    }

    /// Whether no update was done since it began.
    pub fn has_nothing_to_save(&self) -> bool {
        self.reached == self.began
    }

    /// Whether some rank has failed, or has ended before it could save.
    pub fn is_broken(&self) -> bool {
        let broken =
            |rank: &Rank| rank.report.is_some() || rank.exit.is_some_and(|exit| !exit.is_regular());
        self.ranks.iter().any(broken)
    }

    /// Whether the end of a rank has told the cause: others need no time to report theirs.
    pub fn is_clear(&self) -> bool {
        let is_cause = |rank: &Rank| {
            rank.dying
                && rank
                    .report
                    .as_ref()
                    .is_some_and(|report| report.class != FailureClass::Collective)
        };
        self.ranks.iter().any(is_cause)
    }

    /// When a rank will be suspected if none says anything before.
    pub fn suspect_at(&self, timeouts: &Timeouts) -> Option<Duration> {
        stall::due(&self.standings(), timeouts)
    }

    /// The rank that keeps the others from going on, once it is due.
    pub fn suspect(&self, timeouts: &Timeouts, now: Duration) -> Option<Suspect> {
        stall::suspect(&self.standings(), timeouts, now)
    }

    fn standings(&self) -> Vec<Standing> {
        let running = self.ranks.iter().enumerate();
        running
            .filter(|(_, rank)| rank.exit.is_none() && rank.report.is_none())
            .map(|(index, rank)| Standing {
                rank: index,
                heard: rank.heard,
                progressed: rank.progressed,
                unheard: rank.place.is_none(),
                starting: rank.place.is_none_or(|place| place.phase == Phase::StartUp),
                // A rank alone waits for nobody.
                waits: rank.waits && self.ranks.len() > 1,
                sequence: rank.place.map_or(0, |place| place.sequence),
            })
            .collect()
    }

    /// Begins to look at a suspect; the second look is due after `patience`.
    pub fn examine(&mut self, suspect: Suspect, until: Duration) {
        self.examination = Some(Examination {
            suspect,
            first: None,
            until,
        });
    }

    /// Takes a look at the suspect: the second one makes its report, where it has come no further meanwhile.
    pub fn examined(
        &mut self,
        facts: Facts,
        timeouts: &Timeouts,
        now: Duration,
        at: f64,
    ) -> Option<(usize, FailureReport)> {
        let examination = self.examination.as_mut()?;
        let Some(first) = examination.first.take() else {
            examination.first = Some(facts);
            return None;
        };
        let suspected = examination.suspect;
        self.examination = None;
        let still = self.suspect(timeouts, now)?;
        if still.rank != suspected.rank {
            return None;
        }
        let index = suspected.rank;
        let others = self.others(index);
        let rank = self.ranks.get_mut(index)?;
        let place = rank.place;
        let report = verdict::report(&Evidence {
            suspect: suspected,
            at,
            seconds: now.saturating_sub(suspected.since).as_secs_f64(),
            place: place.map_or_else(|| "start-up".to_owned(), |place| place.to_string()),
            others,
            looks: [&first, &facts],
            stack: &rank.stack,
        });
        let report = FailureReport {
            phase: place.map(|place| place.phase),
            step: place.map(|place| place.step),
            sequence: place.map(|place| place.sequence),
            samples: rank.samples.clone(),
            ..report
        };
        rank.report = Some(report.clone());
        Some((index, report))
    }

    /// Where the other ranks are, in words.
    fn others(&self, than: usize) -> String {
        let others = self.ranks.iter().enumerate();
        let words = others
            .filter(|(index, rank)| *index != than && rank.exit.is_none())
            .filter_map(|(index, rank)| {
                let doing = if rank.waits { "waits" } else { "is" };
                Some(format!("rank {index} {doing} in {}", rank.place?))
            });
        words.collect::<Vec<_>>().join("; ")
    }

    /// How much slower than the others a rank is by itself, once it has been for long enough to be worth a word.
    pub fn straggles(&mut self, index: usize) -> Option<String> {
        let others = self.ranks.iter().enumerate();
        let others: Vec<f64> = others
            .filter(|(other, _)| *other != index)
            .filter_map(|(_, rank)| rank.straggler.local_seconds)
            .collect();
        let score = self.ranks.get_mut(index)?.straggler.score(&others)?;
        Some(format!("rank {index} {score}"))
    }

    /// What the attempt comes to; none while a rank is running.
    pub fn verdict(&self) -> Option<Verdict> {
        let exits: Vec<Exit> = self
            .ranks
            .iter()
            .map(|rank| rank.exit)
            .collect::<Option<_>>()?;
        let all = |code| exits.iter().all(|exit| *exit == Exit::Code(code));
        Some(if let Some(failed) = self.cause() {
            failed
        } else if all(0) {
            Verdict::Succeeded
        } else if all(STOPPED) {
            Verdict::Stopped
        } else if self.asked && !self.hurried && self.has_nothing_to_save() {
            // The request came before a rank could heed it: while it started up.
            Verdict::Stopped
        } else if self.asked || self.killed {
            Verdict::Cut
        } else {
            let exits: Vec<String> = exits.iter().map(Exit::to_string).collect();
            Verdict::Failed {
                class: FailureClass::Other,
                reason: format!("the ranks ended differently: {}", exits.join(", ")),
                rank: None,
                by_kernel: false,
            }
        })
    }

    /// The earliest failure, and one that is not the loss of a peer before one that is: the others
    /// are its consequences.
    fn cause(&self) -> Option<Verdict> {
        let (index, report) = self
            .ranks
            .iter()
            .enumerate()
            .filter_map(|(index, rank)| Some((index, rank.report.as_ref()?)))
            .min_by(|(_, a), (_, b)| {
                let collective = |report: &FailureReport| report.class == FailureClass::Collective;
                collective(a)
                    .cmp(&collective(b))
                    .then(a.failed_at.total_cmp(&b.failed_at))
            })?;
        let mut reason = format!("rank {index}");
        match (report.phase, report.step) {
            (Some(phase), Some(step)) => reason += &format!(", {phase} at step {step}"),
            (Some(phase), None) => reason += &format!(", {phase}"),
            (None, _) => {}
        }
        reason += &format!(": {}{}", report.message, report.samples.clause());
        if report.class == FailureClass::Collective {
            for (index, rank) in self.ranks.iter().enumerate() {
                if let (None, Some(place)) = (&rank.report, rank.place) {
                    reason += &format!("; rank {index} did not arrive, it was last in {place}");
                }
            }
        }
        let by_kernel = self.ranks.get(index)?.killed_for_memory;
        Some(Verdict::Failed {
            class: report.class,
            reason,
            rank: Some(index),
            by_kernel,
        })
    }
}
