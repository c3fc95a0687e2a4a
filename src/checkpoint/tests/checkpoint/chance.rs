//! Tests that are seeded anew each time, and how often they try.
//!
//! `SPINECTL_SOAK` multiplies the full counts (`SPINECTL_SOAK=1` is the full count); without it they try a tenth.
//! `SPINECTL_SOAK_SEED` repeats a run: its seed is printed, and stands in every assertion that fails.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// The number of tries of a test whose full count is `full`.
pub fn tries(full: u64) -> u64 {
    let share = match std::env::var("SPINECTL_SOAK") {
        Ok(text) => text.parse().expect("SPINECTL_SOAK is a number"),
        Err(_) => 0.1,
    };
    ((full as f64 * share) as u64).max(1)
}

/// A generator and the seed that it came from.
pub fn seeded(test: &str) -> (ChaCha8Rng, u64) {
    let seed = match std::env::var("SPINECTL_SOAK_SEED") {
        Ok(text) => text.parse().expect("SPINECTL_SOAK_SEED is a whole number"),
        Err(_) => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_nanos() as u64,
    };
    println!("{test}: SPINECTL_SOAK_SEED={seed}");
    (ChaCha8Rng::seed_from_u64(seed), seed)
}
