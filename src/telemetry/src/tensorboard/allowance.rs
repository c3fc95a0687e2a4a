//! How much of a job's event files is for pictures and histograms.

use super::Error;

/// Bytes that they may have come to by the end of a training; half-way through, half of it.
const BYTES: u64 = 16 << 20;

/// Keeps event files small: an evaluation whose turn has not come yet is not shown, the last one always is.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    spent: u64,
    /// Updates of the whole training; 0: not known yet.
    total_steps: u64,
    /// The newest evaluation: it is shown as a whole, or not at all.
    decided: Option<(u64, bool)>,
    told: bool,
}

impl Allowance {
    /// What the files hold where a job goes on.
    pub fn resume(&mut self, spent: u64) {
        self.spent = spent;
        self.decided = None;
    }

    pub fn total_steps(&mut self, total: u64) {
        self.total_steps = total;
    }

    /// Whether this is to be shown.
    ///
    /// # Errors
    /// The first that is not, once for a job.
    pub fn takes(&mut self, job: &str, step: u64, bytes: usize) -> Result<bool, Error> {
        let takes = match self.decided {
            Some((decided, takes)) if decided == step => takes,
            _ => step >= self.total_steps || self.spent <= self.at(step),
        };
        self.decided = Some((step, takes));
        if takes {
            self.spent += bytes as u64;
            return Ok(true);
        }
        match std::mem::replace(&mut self.told, true) {
            true => Ok(false),
            false => Err(Error::Thinned {
                job: job.to_owned(),
            }),
        }
    }

    /// What may have been spent before `step` of a training whose length is known.
    fn at(&self, step: u64) -> u64 {
        let share = step as f64 / self.total_steps as f64;
        (BYTES as f64 * share) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn evaluations_are_shown_evenly_each_as_a_whole_and_the_last_one() {
        let mut allowance = Allowance::default();
        allowance.total_steps(100);
        let mut shown = Vec::new();
        let mut told = 0;
        for step in [1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100] {
            // Two pictures of 3 MiB.
            let both = [0, 1].map(|_| match allowance.takes("job", step, 3 * MIB) {
                Ok(takes) => takes,
                Err(error) => {
                    assert!(matches!(error, Error::Thinned { .. }), "{error}");
                    told += 1;
                    false
                }
            });
            assert_eq!(both[0], both[1], "step {step}");
            shown.extend(both[0].then_some(step));
        }
        // 6 MiB are a share of 0.375, 12 MiB one of 0.75.
        assert_eq!((shown, told), (vec![1, 40, 80, 100], 1));
    }

    #[test]
    fn a_job_that_goes_on_counts_what_its_files_hold() {
        let mut allowance = Allowance::default();
        allowance.resume(12 * MIB as u64);
        assert!(
            allowance.takes("job", 50, MIB).unwrap(),
            "how long is not known"
        );
        allowance.total_steps(100);
        assert!(allowance.takes("job", 60, MIB).is_err());
        assert!(allowance.takes("job", 90, MIB).unwrap());
    }
}
