//! The learning rate: a linear rise, then half a cosine to 0 (Loshchilov and Hutter, arXiv:1608.03983).

use std::f64::consts::PI;

/// The rate of update `step` (from 0) of `total`, rising over the first `warmup` (share) of them to `peak`.
pub fn learning_rate(peak: f64, warmup: f64, step: u64, total: u64) -> f64 {
    let rise = (warmup * total as f64).ceil();
    let step = step as f64;
    if step < rise {
        return peak * (step + 1.0) / rise;
    }
    let left = (total as f64 - rise).max(1.0);
    peak * 0.5 * (1.0 + (PI * ((step - rise) / left).min(1.0)).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_to_the_peak_and_falls_to_nothing() {
        let rate = |step| learning_rate(2.0, 0.1, step, 100);
        assert_eq!(rate(0), 0.2);
        assert_eq!(rate(9), 2.0);
        assert_eq!(rate(10), 2.0);
        assert!((rate(55) - 1.0).abs() < 1e-12, "half way down");
        assert!(rate(99) > 0.0 && rate(99) < 0.002);
    }

    #[test]
    fn no_warm_up_starts_at_the_peak() {
        assert_eq!(learning_rate(1.0, 0.0, 0, 10), 1.0);
        assert!(learning_rate(1.0, 1.0, 9, 10) == 1.0);
    }
}
