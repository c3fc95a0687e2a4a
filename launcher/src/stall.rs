//! Which rank keeps a job from going on, and since when it may be said: a pure look at all ranks at once.
//!
//! ```text
//! says nothing for T                            -> silent
//! comes no further for T, waits for nobody      -> local: it is stuck by itself
//! all come no further for T, all wait           -> collective: the one that is behind, else the network
//! comes no further, waits for one that goes on  -> nothing: the other one is only slow
//! ```

use std::time::Duration;

use plan::Timeouts;

/// A running rank, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Standing {
    pub rank: usize,
    /// When it last said anything, and when it last came further.
    pub heard: Duration,
    pub progressed: Duration,
    /// It has said nothing yet; it starts.
    pub unheard: bool,
    pub starting: bool,
    /// It waits for other ranks.
    pub waits: bool,
    pub sequence: u64,
}

/// What ails a job that does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// No sign of life.
    Silent,
    /// Signs of life, but no progress in work that needs nobody else.
    Local,
    /// All wait in a collective, and this rank has issued fewer than the others.
    Behind,
    /// All wait in the same collective.
    AllWait,
}

/// The rank that is to blame, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Suspect {
    pub rank: usize,
    pub trouble: Trouble,
    pub since: Duration,
}

impl Standing {
    fn silent_at(&self, timeouts: &Timeouts) -> Duration {
        match self.unheard {
            true => self.heard + timeouts.start_up,
            false => self.heard + timeouts.stall,
        }
    }

    fn stuck_at(&self, timeouts: &Timeouts) -> Duration {
        match self.unheard || self.starting {
            true => self.progressed + timeouts.start_up,
            false => self.progressed + timeouts.stall,
        }
    }
}

/// When there will be a suspect if nothing is heard before; none where no rank runs.
pub(crate) fn due(ranks: &[Standing], timeouts: &Timeouts) -> Option<Duration> {
    let silent = ranks.iter().map(|rank| rank.silent_at(timeouts)).min()?;
    let is_local = |rank: &&Standing| !rank.waits;
    let local = ranks.iter().filter(is_local);
    let stuck = match local.map(|rank| rank.stuck_at(timeouts)).min() {
        Some(first) => first,
        None => ranks.iter().map(|rank| rank.stuck_at(timeouts)).max()?,
    };
    Some(silent.min(stuck))
}

/// The rank that is to blame, once it is [`due`].
pub(crate) fn suspect(ranks: &[Standing], timeouts: &Timeouts, now: Duration) -> Option<Suspect> {
    if due(ranks, timeouts)? > now {
        return None;
    }
    // A rank that missed a few heartbeats is on its way to be silent, whatever it said last.
    let is_quiet = |rank: &&Standing| rank.heard + timeouts.heartbeat * 3 <= now;
    let quiet = ranks.iter().filter(is_quiet).min_by_key(|rank| rank.heard);
    if let Some(rank) = quiet {
        return Some(Suspect {
            rank: rank.rank,
            trouble: Trouble::Silent,
            since: rank.heard,
        });
    }
    let local = ranks.iter().filter(|rank| !rank.waits);
    if let Some(rank) = local.min_by_key(|rank| rank.stuck_at(timeouts)) {
        return Some(Suspect {
            rank: rank.rank,
            trouble: Trouble::Local,
            since: rank.progressed,
        });
    }
    let behind = ranks.iter().min_by_key(|rank| (rank.sequence, rank.rank))?;
    let all_arrived = ranks.iter().all(|rank| rank.sequence == behind.sequence);
    Some(Suspect {
        rank: behind.rank,
        // One that waits alone has nobody to wait for: it is stuck by itself.
        trouble: match (all_arrived, ranks.len()) {
            (_, 1) => Trouble::Local,
            (true, _) => Trouble::AllWait,
            (false, _) => Trouble::Behind,
        },
        since: behind.progressed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Heard at 100 s and never stuck before 160 s, but for what a test changes.
    fn rank(rank: usize) -> Standing {
        Standing {
            rank,
            heard: at(100),
            progressed: at(100),
            unheard: false,
            starting: false,
            waits: false,
            sequence: 40,
        }
    }

    fn verdict(ranks: &[Standing], now: u64) -> Option<(usize, Trouble)> {
        let timeouts = Timeouts::of(60.0);
        let found = suspect(ranks, &timeouts, at(now));
        let due = due(ranks, &timeouts).unwrap();
        assert_eq!(
            found.is_some(),
            due <= at(now),
            "a tick that is due finds somebody"
        );
        found.map(|suspect| (suspect.rank, suspect.trouble))
    }

    #[test]
    fn silence_is_told_from_being_stuck() {
        let alive = Standing {
            heard: at(159),
            ..rank(1)
        };
        assert_eq!(verdict(&[rank(0), alive], 159), None);
        assert_eq!(verdict(&[rank(0), alive], 160), Some((0, Trouble::Silent)));
        let both = [
            Standing {
                heard: at(159),
                ..rank(0)
            },
            alive,
        ];
        assert_eq!(verdict(&both, 160), Some((0, Trouble::Local)));
    }

    #[test]
    fn who_waits_for_a_rank_that_goes_on_is_not_to_blame() {
        let waits = Standing {
            heard: at(299),
            waits: true,
            ..rank(0)
        };
        let slow = Standing {
            heard: at(299),
            progressed: at(290),
            ..rank(1)
        };
        assert_eq!(verdict(&[waits, slow], 300), None);
        let stuck = Standing {
            progressed: at(230),
            ..slow
        };
        assert_eq!(verdict(&[waits, stuck], 300), Some((1, Trouble::Local)));
    }

    #[test]
    fn in_a_stuck_collective_the_rank_behind_is_named_or_nobody() {
        let waits = |rank: usize, sequence| Standing {
            rank,
            heard: at(200),
            waits: true,
            sequence,
            ..self::rank(rank)
        };
        let behind = [waits(0, 41), waits(1, 41), waits(2, 40)];
        assert_eq!(verdict(&behind, 200), Some((2, Trouble::Behind)));
        let all = [waits(0, 41), waits(1, 41)];
        assert_eq!(verdict(&all, 200), Some((0, Trouble::AllWait)));
        let frozen = Standing {
            heard: at(150),
            ..waits(1, 41)
        };
        assert_eq!(
            verdict(&[waits(0, 40), frozen], 200),
            Some((1, Trouble::Silent))
        );
        assert_eq!(verdict(&[waits(0, 40)], 200), Some((0, Trouble::Local)));
    }

    #[test]
    fn a_start_has_a_minute_whatever_the_timeout() {
        let starts = Standing {
            starting: true,
            heard: at(99),
            ..rank(0)
        };
        let timeouts = Timeouts::of(5.0);
        let fresh = Standing {
            heard: at(0),
            progressed: at(0),
            unheard: true,
            ..starts
        };
        assert_eq!(due(&[fresh], &timeouts), Some(at(60)));
        assert_eq!(
            due(&[starts], &timeouts),
            Some(at(104)),
            "it must beat from then on"
        );
    }
}
