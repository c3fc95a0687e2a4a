//! Faults at random moments: how many, drawn from which seed, and how long things took.

use std::fmt;
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Multiplies the full counts, 1 in `make soak`; without it tests deal a tenth.
const SHARE: &str = "SPINECTL_SOAK";
/// Repeats a run's moments, as far as the machine's own timing allows.
const SEED: &str = "SPINECTL_SOAK_SEED";

/// The moments of one test.
pub struct Soak {
    moments: fastrand::Rng,
    share: f64,
}

impl Soak {
    /// Seeded anew each time; the seed is printed.
    pub fn new(test: &str) -> Self {
        let given = std::env::var(SEED).ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| fastrand::u64(..));
        println!("{test}: {SEED}={seed}");
        Soak {
            moments: fastrand::Rng::with_seed(seed),
            share: match std::env::var(SHARE) {
                Ok(text) => text.parse().expect("SPINECTL_SOAK is a number"),
                Err(_) => 0.1,
            },
        }
    }

    /// This test's share of `full`.
    pub fn count(&self, full: usize) -> usize {
        ((full as f64 * self.share) as usize).max(1)
    }

    pub fn pause(&mut self, milliseconds: Range<u64>) {
        std::thread::sleep(Duration::from_millis(self.moments.u64(milliseconds)));
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.moments.u64(..n) == 0
    }

    pub fn choose<'a, T>(&mut self, among: &'a [T]) -> Option<&'a T> {
        self.moments.choice(among)
    }
}

/// Seconds since the Unix epoch, as in events.
pub fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock after 1970").as_secs_f64()
}

/// Seconds that something took, each time.
#[derive(Default)]
pub struct Times(Vec<f64>);

impl Times {
    pub fn add(&mut self, seconds: f64) {
        self.0.push(seconds);
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (share * sorted.len().saturating_sub(1) as f64).round() as usize;
            sorted.get(place).map_or(f64::NAN, |s| s * 1e3)
        };
        write!(
            f,
            "{} times: median {:.0} ms, 95 % within {:.0} ms, longest {:.0} ms",
            sorted.len(),
            at(0.5),
            at(0.95),
            at(1.0)
        )
    }
}
