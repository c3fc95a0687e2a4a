//! One attempt at a job as the supervisor knows it: how its ranks ended, and whose failure was the cause.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use event::{EventKind, FailureClass, FailureReport, Phase};

/// A rank stopped on request, with a checkpoint (DESIGN.md's exit codes).
pub(crate) const STOPPED: i32 = 75;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
}

impl Exit {
    fn is_regular(self) -> bool {
        matches!(self, Exit::Code(0 | STOPPED))
    }

    /// The class of a failure that nobody reported; [`FailureClass::exit_code`] the other way round.
    pub fn class(self) -> FailureClass {
        match self {
            Exit::Signal(_) => FailureClass::Killed,
            Exit::Code(4) => FailureClass::Data,
            Exit::Code(3) => FailureClass::Setup,
            Exit::Code(_) => FailureClass::Other,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit {code}"),
            Exit::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

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
    pub killed: bool,
    /// Step of the newest checkpoint that a rank told of.
    pub checkpoint: Option<u64>,
    /// Of the newest evaluation.
    pub metrics: BTreeMap<String, f64>,
    ranks: Vec<Rank>,
}

#[derive(Debug)]
struct Rank {
    /// When it last gave a sign of life, and where it was.
    heard: Duration,
    place: Option<Place>,
    report: Option<FailureReport>,
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
            place: None,
            report: None,
            exit: None,
        };
        Attempt {
            job,
            number,
            started: now,
            kill_at: None,
            asked: false,
            killed: false,
            checkpoint: None,
            metrics: BTreeMap::new(),
            ranks: (0..world_size).map(|_| rank()).collect(),
        }
    }

    /// Takes note of what a rank says; true where it is the rank's failure.
    pub fn said(&mut self, rank: usize, kind: &EventKind, now: Duration) -> bool {
        let Some(rank) = self.ranks.get_mut(rank) else {
            return false;
        };
        rank.heard = now;
        match kind {
            &EventKind::Heartbeat {
                phase,
                step,
                sequence,
            } => {
                rank.place = Some(Place {
                    phase,
                    step,
                    sequence,
                });
            }
            EventKind::JobResumed { step, .. } | EventKind::CheckpointWritten { step, .. } => {
                self.checkpoint = Some(*step);
            }
            EventKind::Evaluated { metrics, .. } => self.metrics.clone_from(metrics),
            EventKind::RankFailed(report) if rank.report.is_none() => {
                rank.report = Some(report.clone());
                return true;
            }
            _ => {}
        }
        false
    }

    /// Takes note of a rank's end; the report that it owed, where it failed without a word.
    pub fn ended(
        &mut self,
        rank: usize,
        exit: Exit,
        at: f64,
        last_words: &str,
    ) -> Option<FailureReport> {
        let killed = self.killed;
        let by_request = self.asked && exit == Exit::Signal(libc::SIGTERM);
        let rank = self.ranks.get_mut(rank)?;
        rank.exit = Some(exit);
        if let Some(report) = &mut rank.report {
            report.exit.get_or_insert_with(|| exit.to_string());
            return None;
        }
        if exit.is_regular() || killed || by_request {
            return None;
        }
        let message = match (exit, last_words) {
            (Exit::Signal(signal), "") => format!("killed by signal {signal} without a word"),
            (Exit::Code(code), "") => format!("ended with exit code {code} without a word"),
            (exit, words) => format!("ended ({exit}) without a report; its log ends: {words}"),
        };
        let report = FailureReport {
            failed_at: at,
            class: exit.class(),
            message,
            phase: rank.place.map(|place| place.phase),
            step: rank.place.map(|place| place.step),
            exit: Some(exit.to_string()),
        };
        rank.report = Some(report.clone());
        Some(report)
    }

    /// Whether some rank has failed, or has ended before it could save.
    pub fn is_broken(&self) -> bool {
        let broken =
            |rank: &Rank| rank.report.is_some() || rank.exit.is_some_and(|exit| !exit.is_regular());
        self.ranks.iter().any(broken)
    }

    /// When the next rank counts as silent for too long; none where all have ended.
    pub fn silent_at(&self, patience: Duration) -> Option<Duration> {
        let running = self.ranks.iter().filter(|rank| rank.exit.is_none());
        running.map(|rank| rank.heard + patience).min()
    }

    /// The first rank that has been silent for too long, with its report.
    pub fn silence(
        &mut self,
        patience: Duration,
        now: Duration,
        at: f64,
    ) -> Option<(usize, FailureReport)> {
        let silent = |rank: &Rank| {
            rank.exit.is_none() && rank.report.is_none() && rank.heard + patience <= now
        };
        let index = self.ranks.iter().position(silent)?;
        let rank = self.ranks.get_mut(index)?;
        let seconds = now.saturating_sub(rank.heard).as_secs();
        let place = rank
            .place
            .map_or_else(|| "start-up".to_owned(), |place| place.to_string());
        let report = FailureReport {
            failed_at: at,
            class: FailureClass::Killed,
            message: format!("no sign of life for {seconds} s (last in {place}): ended as stuck"),
            phase: rank.place.map(|place| place.phase),
            step: rank.place.map(|place| place.step),
            exit: None,
        };
        rank.report = Some(report.clone());
        Some((index, report))
    }

    /// What the attempt comes to; none while a rank is running.
    pub fn verdict(&self) -> Option<Verdict> {
        let exits: Vec<Exit> = self
            .ranks
            .iter()
            .map(|rank| rank.exit)
            .collect::<Option<_>>()?;
        let all = |code| exits.iter().all(|exit| *exit == Exit::Code(code));
        Some(if let Some((class, reason)) = self.cause() {
            Verdict::Failed { class, reason }
        } else if all(0) {
            Verdict::Succeeded
        } else if all(STOPPED) {
            Verdict::Stopped
        } else if self.asked || self.killed {
            Verdict::Cut
        } else {
            let exits: Vec<String> = exits.iter().map(Exit::to_string).collect();
            Verdict::Failed {
                class: FailureClass::Other,
                reason: format!("the ranks ended differently: {}", exits.join(", ")),
            }
        })
    }

    /// The earliest failure, and one that is not the loss of a peer before one that is: the others
    /// are its consequences.
    fn cause(&self) -> Option<(FailureClass, String)> {
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
        reason += &format!(": {}", report.message);
        if report.class == FailureClass::Collective {
            for (index, rank) in self.ranks.iter().enumerate() {
                if let (None, Some(place)) = (&rank.report, rank.place) {
                    reason += &format!("; rank {index} did not arrive, it was last in {place}");
                }
            }
        }
        Some((report.class, reason))
    }
}
