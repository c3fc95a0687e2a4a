//! What is done about a failed attempt: a table, and nothing else.
//!
//! | Class | Action |
//! |---|---|
//! | data, setup, disk, diverged, replicas | stop: the same would happen again |
//! | device lost | stop, but where the recipe is elastic: then again without that device (`decide/failed.rs`) |
//! | device memory; host memory that the allocator missed | again with half the micro-batch and twice the accumulation; stop at the smallest |
//! | killed, stalled, collective, other; host memory that the kernel took back | again from the newest checkpoint |
//! | any, at the same update for the third time running | stop and say so |
//! | any, without retries left | stop |
//!
//! Half the micro-batch costs no retry: it is another attempt at the same thing only so often as it can be halved.
//!
//! The first retry after an attempt that came further than its beginning is immediate; others wait `back_off`, twice that,
//! four times that and so on, half a minute at most.

use std::time::Duration;

use event::FailureClass;
use plan::Split;

const LONGEST_BACK_OFF: f64 = 30.0;
/// Attempts in a row that end at the same update.
const PATIENCE: u32 = 3;

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Failure {
    pub class: FailureClass,
    /// The kernel took memory back: no allocator failed.
    pub by_kernel: bool,
    /// Updates done when it began and when it ended, where any is known.
    pub began: Option<u64>,
    pub reached: Option<u64>,
    /// Half the micro-batch, where that is possible.
    pub halved: Option<Split>,
}

/// A job's failures in this launch.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct History {
    retried: u64,
    /// Delays since an attempt came further.
    delays: u32,
    /// The furthest update, and how many attempts in a row ended there.
    furthest: Option<u64>,
    there: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Remedy {
    /// Not again; with why, where the failure alone does not say it.
    Stop {
        why: Option<String>,
    },
    Again {
        delay: Duration,
    },
    /// Again with this split.
    Smaller {
        split: Split,
        delay: Duration,
    },
}

/// What to do, given `retries` in all and the first delay in seconds.
pub(crate) fn remedy(
    history: &mut History,
    failure: &Failure,
    retries: u64,
    back_off: f64,
) -> Remedy {
    let stop = |why: &str| Remedy::Stop {
        why: Some(why.to_owned()),
    };
    let allocator_failed = match failure.class {
        FailureClass::DeviceMemory => true,
        FailureClass::HostMemory => !failure.by_kernel,
        _ => false,
    };
    if !allocator_failed
        && failure.class != FailureClass::HostMemory
        && !failure.class.is_transient()
    {
        return Remedy::Stop { why: None };
    }
    if allocator_failed {
        return match failure.halved {
            Some(split) => Remedy::Smaller {
                split,
                delay: history.delay(failure, back_off),
            },
            None => stop(
                "the micro-batch cannot be halved any further: lower image_size, or take a device with more memory",
            ),
        };
    }
    if let Some(reached) = failure.reached {
        match history.furthest {
            Some(furthest) if reached <= furthest => history.there += 1,
            _ => (history.furthest, history.there) = (Some(reached), 1),
        }
    }
    if history.there >= PATIENCE {
        let furthest = history.furthest.unwrap_or_default();
        return stop(&format!(
            "three attempts in a row came no further than update {furthest}, so that it is not tried again: what comes \
             after it fails every time"
        ));
    }
    if history.retried >= retries {
        return Remedy::Stop { why: None };
    }
    history.retried += 1;
    Remedy::Again {
        delay: history.delay(failure, back_off),
    }
}

impl History {
    /// How long to wait before the next attempt.
    fn delay(&mut self, failure: &Failure, back_off: f64) -> Duration {
        if failure.reached > Some(failure.began.unwrap_or(0)) {
            self.delays = 0;
            return Duration::ZERO;
        }
        let doublings = i32::try_from(self.delays.min(16)).unwrap_or(16);
        self.delays += 1;
        Duration::from_secs_f64((back_off * 2f64.powi(doublings)).min(LONGEST_BACK_OFF))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Split = Split {
        micro_batch: 2,
        accumulation: 4,
    };

    fn failure(class: FailureClass) -> Failure {
        Failure {
            class,
            by_kernel: false,
            began: None,
            reached: None,
            halved: Some(HALF),
        }
    }

    fn first(failure: &Failure) -> Remedy {
        remedy(&mut History::default(), failure, 2, 1.0)
    }

    #[test]
    fn every_class_has_its_action() {
        use FailureClass::*;
        let delay = Duration::from_secs(1);
        for class in [Data, Setup, Disk, Diverged, Replicas, DeviceLost] {
            assert_eq!(
                first(&failure(class)),
                Remedy::Stop { why: None },
                "{class:?}"
            );
        }
        for class in [Killed, Stalled, Collective, Other] {
            assert_eq!(first(&failure(class)), Remedy::Again { delay }, "{class:?}");
        }
        for class in [DeviceMemory, HostMemory] {
            let smaller = Remedy::Smaller { split: HALF, delay };
            assert_eq!(first(&failure(class)), smaller, "{class:?}");
            let smallest = Failure {
                halved: None,
                ..failure(class)
            };
            let Remedy::Stop { why: Some(why) } = first(&smallest) else {
                panic!("{class:?}");
            };
            assert!(why.contains("micro-batch"), "{why}");
        }
        let by_kernel = Failure {
            by_kernel: true,
            ..failure(HostMemory)
        };
        assert_eq!(first(&by_kernel), Remedy::Again { delay });
    }

    #[test]
    fn a_retry_is_immediate_after_progress_and_waits_longer_without() {
        let mut history = History::default();
        let mut delays = Vec::new();
        for (began, reached) in [
            (None, Some(5)),
            (Some(3), Some(3)),
            (Some(3), Some(9)),
            (Some(8), None),
            (None, None),
        ] {
            let failure = Failure {
                began,
                reached,
                ..failure(FailureClass::Killed)
            };
            let Remedy::Again { delay } = remedy(&mut history, &failure, 9, 0.5) else {
                panic!("{history:?}");
            };
            delays.push(delay.as_secs_f64());
        }
        assert_eq!(delays, [0.0, 0.5, 0.0, 0.5, 1.0]);
    }

    #[test]
    fn the_same_update_three_times_running_is_enough_whatever_is_left() {
        let mut history = History::default();
        let at = |reached| Failure {
            began: Some(3),
            reached: Some(reached),
            ..failure(FailureClass::Other)
        };
        for reached in [5, 5, 6, 6] {
            assert!(matches!(
                remedy(&mut history, &at(reached), 99, 1.0),
                Remedy::Again { .. }
            ));
        }
        let Remedy::Stop { why: Some(why) } = remedy(&mut history, &at(4), 99, 1.0) else {
            panic!("{history:?}");
        };
        assert!(why.contains("update 6"), "{why}");
    }

    #[test]
    fn a_smaller_micro_batch_costs_no_retry() {
        let mut history = History::default();
        let full = Failure {
            reached: Some(1),
            ..failure(FailureClass::DeviceMemory)
        };
        for _ in 0..6 {
            let remedy = remedy(&mut history, &full, 1, 1.0);
            assert!(matches!(remedy, Remedy::Smaller { .. }), "{remedy:?}");
        }
        let killed = failure(FailureClass::Killed);
        assert!(matches!(
            remedy(&mut history, &killed, 1, 1.0),
            Remedy::Again { .. }
        ));
    }

    #[test]
    fn retries_end() {
        let mut history = History::default();
        let killed = failure(FailureClass::Killed);
        assert!(matches!(
            remedy(&mut history, &killed, 1, 1.0),
            Remedy::Again { .. }
        ));
        assert_eq!(
            remedy(&mut history, &killed, 1, 1.0),
            Remedy::Stop { why: None }
        );
    }
}
