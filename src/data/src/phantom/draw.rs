//! The phantom's random numbers: ChaCha8 streams named by (seed, index), so that no study depends on another
//! and threads do not change a byte.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One stream of random numbers.
pub(super) struct Draw(ChaCha8Rng);

impl Draw {
    /// The stream from which the cohort as a whole is drawn.
    pub fn for_cohort(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// The stream of study `index` (0-based).
    pub fn for_study(seed: u64, index: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(index as u64 + 1);
        Self(rng)
    }

    /// Uniform in `low..high`.
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        // 24 bits: every value is exact in an f32 and 1.0 is never drawn.
        let unit = (self.0.next_u32() >> 8) as f32 / (1 << 24) as f32;
        low + (high - low) * unit
    }

    pub fn chance(&mut self, probability: f32) -> bool {
        self.between(0.0, 1.0) < probability
    }

    /// -1 or 1.
    pub fn sign(&mut self) -> f32 {
        if self.chance(0.5) { 1.0 } else { -1.0 }
    }

    /// Zero mean, unit variance, nearly normal: the sum of four uniform numbers (Irwin-Hall), one draw a voxel.
    pub fn noise(&mut self) -> f32 {
        let bits = self.0.next_u64();
        let sum: u64 = (0..4).map(|part| (bits >> (16 * part)) & 0xffff).sum();
        const SCALE: f32 = 1.732_050_8; // the sum's variance is 4/12
        (sum as f32 / 65_536.0 - 2.0) * SCALE
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        items.shuffle(&mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_differ() {
        let take = |mut draw: Draw| (0..8).map(|_| draw.between(0.0, 1.0)).collect::<Vec<_>>();
        assert_eq!(take(Draw::for_study(7, 3)), take(Draw::for_study(7, 3)));
        assert_ne!(take(Draw::for_study(7, 3)), take(Draw::for_study(7, 4)));
        assert_ne!(take(Draw::for_study(7, 3)), take(Draw::for_study(8, 3)));
        assert_ne!(take(Draw::for_study(7, 0)), take(Draw::for_cohort(7)));
    }

    #[test]
    fn noise_has_zero_mean_and_unit_variance() {
        let mut draw = Draw::for_cohort(1);
        let samples: Vec<f64> = (0..100_000).map(|_| f64::from(draw.noise())).collect();
        let mean = samples.iter().sum::<f64>() / 1e5;
        let variance = samples.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.02, "{mean}");
        assert!((variance - 1.0).abs() < 0.02, "{variance}");
    }
}
