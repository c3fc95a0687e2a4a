//! How long to wait between tries at one request, and when to give it up. Pure: time and chance are handed in.

use std::time::Duration;

use tokio::time::Instant;

/// After the first try; it doubles each time, up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// From the first try: time to start a collector anew. After it a request gives way to those behind it.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(super) struct Backoff {
    until: Instant,
    next: Duration,
}

impl Backoff {
    /// `now`: the time of the first try.
    pub fn new(now: Instant) -> Self {
        Backoff {
            until: now + PATIENCE,
            next: FIRST,
        }
    }

    /// The pause before the next try; none where it is time to give up. `asked`: for how long the collector wants to be left alone.
    /// `chance`, from 0 to 1, keeps launches that failed together from coming back together.
    pub fn pause(
        &mut self,
        now: Instant,
        asked: Option<Duration>,
        chance: f64,
    ) -> Option<Duration> {
        if now >= self.until {
            return None;
        }
        let pause = self.next.mul_f64(0.5 + chance / 2.0);
        self.next = (self.next * 2).min(LONGEST);
        Some(asked.map_or(pause, |asked| asked.clamp(pause, PATIENCE)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_end() {
        let begin = Instant::now();
        let mut backoff = Backoff::new(begin);
        let mut pause = |after, asked: Option<u64>, chance| {
            let asked = asked.map(Duration::from_secs);
            let pause = backoff.pause(begin + Duration::from_secs(after), asked, chance);
            pause.map(|pause| pause.as_secs_f64())
        };
        assert_eq!(pause(0, None, 1.0), Some(1.0));
        assert_eq!(pause(1, None, 0.0), Some(1.0), "half of two");
        assert_eq!(pause(2, None, 1.0), Some(4.0));
        assert_eq!(pause(6, Some(20), 1.0), Some(20.0), "as asked");
        assert_eq!(pause(26, Some(0), 1.0), Some(16.0), "no sooner");
        assert_eq!(pause(42, None, 1.0), Some(30.0));
        assert_eq!(pause(72, Some(86_400), 1.0), Some(300.0), "not for a day");
        assert_eq!(pause(299, None, 0.5), Some(22.5));
        assert_eq!(pause(300, None, 1.0), None);
    }
}
