//! The learning rate of every update: a linear rise, then a cosine (Loshchilov and Hutter, arXiv:1608.03983), a line or steps.

use std::f64::consts::PI;

use recipe::{Optimization, Schedule};

/// The rate of update `step` (from 0) of `total`.
///
/// It rises to `learning_rate` over the first `warmup` (a share) of them. A cosine and a line then go to 0, which the update
/// after the last would have; steps lie at shares of all updates.
pub fn learning_rate(optimization: &Optimization, step: u64, total: u64) -> f64 {
    let Optimization {
        learning_rate: peak,
        warmup,
        ref schedule,
        ..
    } = *optimization;
    let rise = updates(warmup, total);
    if step < rise {
        return peak * (step + 1) as f64 / rise as f64;
    }
    // From 0 after the warm-up to 1 after the last update.
    let gone = (step - rise) as f64 / total.saturating_sub(rise).max(1) as f64;
    let gone = gone.min(1.0);
    peak * match schedule {
        Schedule::Cosine => 0.5 * (1.0 + (PI * gone).cos()),
        Schedule::Linear => 1.0 - gone,
        Schedule::Step {
            step_at,
            step_factor,
        } => {
            let passed = step_at.iter().filter(|at| step >= updates(**at, total));
            step_factor.powi(passed.count() as i32)
        }
    }
}

/// A share of the updates, rounded up; the product's own rounding error is no reason for one more.
fn updates(share: f64, total: u64) -> u64 {
    (share * total as f64 - 1e-9).ceil() as u64
}

#[cfg(test)]
mod tests {
    use recipe::Optimizer;

    use super::*;

    fn optimization(warmup: f64, schedule: Schedule) -> Optimization {
        Optimization {
            optimizer: Optimizer::AdamW,
            learning_rate: 2.0,
            backbone_learning_rate: None,
            weight_decay: 0.0,
            decay_all: false,
            warmup,
            schedule,
            clip_norm: None,
            ema: None,
        }
    }

    fn rates(warmup: f64, schedule: Schedule) -> Vec<f64> {
        let optimization = optimization(warmup, schedule);
        (0..20)
            .map(|step| learning_rate(&optimization, step, 20))
            .collect()
    }

    fn assert_near(ours: &[f64], theirs: &[f64]) {
        assert_eq!(ours.len(), theirs.len());
        for (step, (a, b)) in ours.iter().zip(theirs).enumerate() {
            assert!((a - b).abs() < 1e-12, "update {step}: {a} and {b}");
        }
    }

    // PyTorch's numbers for 20 updates, 4 of them warm-up:
    //
    // ```python
    // L = torch.optim.lr_scheduler
    // def run(make):
    //     p = torch.nn.Parameter(torch.zeros(1)); o = torch.optim.SGD([p], 2.0); s = make(o); rates = []
    //     for _ in range(20): rates.append(o.param_groups[0]["lr"]); o.step(); s.step()
    //     return rates
    // def warm(o, after): return L.SequentialLR(o, [L.LinearLR(o, 1 / 4, 1.0, 3), after], [4])
    // ```

    /// `run(lambda o: warm(o, L.CosineAnnealingLR(o, 16)))`
    #[test]
    fn the_cosine_is_pytorchs() {
        let theirs = [
            0.5,
            1.0,
            1.5,
            2.0,
            2.0,
            1.9807852804032304,
            1.9238795325112867,
            1.8314696123025453,
            1.7071067811865475,
            1.5555702330196022,
            1.3826834323650898,
            1.1950903220161284,
            1.0,
            0.8049096779838718,
            0.6173165676349103,
            0.44442976698039804,
            0.29289321881345254,
            0.16853038769745465,
            0.07612046748871326,
            0.01921471959676957,
        ];
        assert_near(&rates(0.2, Schedule::Cosine), &theirs);
    }

    /// `run(lambda o: warm(o, L.LinearLR(o, 1.0, 0.0, 16)))`
    #[test]
    fn the_line_is_pytorchs() {
        let theirs = [
            0.5, 1.0, 1.5, 2.0, 2.0, 1.875, 1.75, 1.625, 1.5, 1.375, 1.25, 1.125, 1.0, 0.875, 0.75,
            0.625, 0.5, 0.375, 0.25, 0.125,
        ];
        assert_near(&rates(0.2, Schedule::Linear), &theirs);
    }

    /// `run(lambda o: L.MultiStepLR(o, [11, 15], 0.1))`: 0.55 of 20 updates is 11, though f64 makes a little more of it.
    #[test]
    fn the_steps_are_pytorchs() {
        let steps = Schedule::Step {
            step_at: vec![0.55, 0.75],
            step_factor: 0.1,
        };
        let theirs = [[2.0; 11].as_slice(), &[0.2; 4], &[0.02; 5]].concat();
        assert_near(&rates(0.0, steps), &theirs);
    }

    #[test]
    fn any_length_has_a_rate() {
        let one = optimization(0.0, Schedule::Cosine);
        assert_eq!(learning_rate(&one, 0, 1), 2.0);
        let rising = optimization(1.0, Schedule::Linear);
        assert_eq!(learning_rate(&rising, 9, 10), 2.0);
    }
}
