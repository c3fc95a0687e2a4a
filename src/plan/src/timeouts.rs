//! Every timeout of a run, derived from the recipe's one number.

use std::time::Duration;

/// How long whom is waited for. Ranks and the launcher derive theirs from the same `stall_timeout`, so they cannot contradict
/// each other: the launcher, which sees all ranks, always comes to its verdict before a collective gives up.
///
/// | | of `stall_timeout` T | T = 5 s | T = 300 s |
/// |---|---|---|---|
/// | `heartbeat` | T / 10, 3 s at most | 0.5 s | 3 s |
/// | `stall` | T | 5 s | 300 s |
/// | `start_up` | T, 60 s at least | 60 s | 300 s |
/// | `rendezvous` | `start_up` + T | 65 s | 600 s |
/// | `collective` | 2 T | 10 s | 600 s |
/// | `parts` | T / 2 | 2.5 s | 150 s |
/// | `examination` | 0.7 s | 0.7 s | 0.7 s |
/// | `grace` | 0.5 s | 0.5 s | 0.5 s |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// How often a rank says where it is.
    pub heartbeat: Duration,
    /// A rank that says nothing, or comes no further, for so long is ended.
    pub stall: Duration,
    /// As `stall`, while a rank starts: libtorch and CUDA load in one go, on a loaded machine slowly.
    pub start_up: Duration,
    /// How long ranks wait for each other to start.
    pub rendezvous: Duration,
    /// When a collective gives up by itself: where the launcher is gone or there is none.
    pub collective: Duration,
    /// How long rank 0 waits for the other ranks' parts of a checkpoint: it says which are missing before the launcher sees
    /// no more than a rank that comes no further.
    pub parts: Duration,
    /// How long the launcher looks at a rank before it ends it.
    pub examination: Duration,
    /// How long ranks that lost a peer are left, so that the peer's own report arrives, and then killed.
    pub grace: Duration,
}

impl Timeouts {
    /// `stall_timeout`: seconds; the recipe keeps it within 5 s and a day.
    pub fn of(stall_timeout: f64) -> Self {
        let stall =
            Duration::try_from_secs_f64(stall_timeout).unwrap_or(Duration::from_secs(86_400));
        let start_up = stall.max(Duration::from_secs(60));
        Timeouts {
            heartbeat: (stall / 10).min(Duration::from_secs(3)),
            stall,
            start_up,
            rendezvous: start_up + stall,
            collective: stall * 2,
            parts: stall / 2,
            examination: Duration::from_millis(700),
            grace: Duration::from_millis(500),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_launcher_is_always_first() {
        for seconds in [5.0, 7.5, 60.0, 300.0, 86_400.0] {
            let of = Timeouts::of(seconds);
            let verdict = of.stall + of.examination;
            assert!(
                of.heartbeat * 10 <= of.stall,
                "ten signs of life before silence counts"
            );
            assert!(verdict <= of.stall + Duration::from_secs(1));
            assert!(of.collective > verdict + of.grace, "{seconds}");
            assert!(of.parts < of.stall, "{seconds}");
            assert!(of.rendezvous > of.start_up + of.examination, "{seconds}");
        }
    }
}
