//! Which rank's failure was the cause, of all that were reported for a job.

use std::collections::BTreeMap;

use event::{EventKind, FailureClass, FailureReport, RunEvent};

/// The failures of each job's newest attempt that had any.
#[derive(Debug, Default)]
pub struct Failures {
    jobs: BTreeMap<String, Attempt>,
}

#[derive(Debug, Default)]
struct Attempt {
    number: u32,
    reports: Vec<(usize, FailureReport)>,
}

/// The failure from which the others followed.
#[derive(Debug, PartialEq)]
pub struct Cause<'f> {
    pub attempt: u32,
    pub rank: usize,
    pub report: &'f FailureReport,
}

impl Failures {
    pub fn take(&mut self, event: &RunEvent) {
        let (EventKind::RankFailed(report), Some(job)) = (&event.kind, &event.job) else {
            return;
        };
        let number = event.attempt.unwrap_or(1);
        let attempt = self.jobs.entry(job.clone()).or_default();
        if number > attempt.number {
            *attempt = Attempt {
                number,
                reports: Vec::new(),
            };
        }
        if number == attempt.number {
            attempt
                .reports
                .push((event.rank.unwrap_or(0), report.clone()));
        }
    }

    /// The earliest failure that is not just the loss of a peer; the earliest where all are.
    pub fn cause(&self, job: &str) -> Option<Cause<'_>> {
        let attempt = self.jobs.get(job)?;
        let order = |(rank, report): &(usize, FailureReport)| {
            (
                report.class == FailureClass::Collective,
                report.failed_at,
                *rank,
            )
        };
        let (rank, report) = attempt.reports.iter().min_by(|a, b| {
            let ((a_lost, a_at, a_rank), (b_lost, b_at, b_rank)) = (order(a), order(b));
            a_lost
                .cmp(&b_lost)
                .then(a_at.total_cmp(&b_at))
                .then(a_rank.cmp(&b_rank))
        })?;
        Some(Cause {
            attempt: attempt.number,
            rank: *rank,
            report,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(attempt: u32, rank: usize, at: f64, class: FailureClass) -> RunEvent {
        let report = FailureReport {
            failed_at: at,
            class,
            message: format!("rank {rank}"),
            phase: None,
            step: None,
            exit: None,
            ..FailureReport::default()
        };
        RunEvent {
            rank: Some(rank),
            ..RunEvent::job("stage2", attempt, EventKind::RankFailed(report))
        }
    }

    #[test]
    fn a_lost_peer_is_no_cause_while_another_rank_has_one() {
        let mut failures = Failures::default();
        assert_eq!(failures.cause("stage2"), None);
        failures.take(&failed(1, 0, 1.0, FailureClass::Collective));
        assert_eq!(failures.cause("stage2").unwrap().rank, 0);
        failures.take(&failed(1, 2, 3.0, FailureClass::Killed));
        failures.take(&failed(1, 1, 2.0, FailureClass::Killed));
        assert_eq!(failures.cause("stage2").unwrap().rank, 1);
    }

    #[test]
    fn only_the_newest_attempt_counts() {
        let mut failures = Failures::default();
        failures.take(&failed(1, 0, 1.0, FailureClass::Data));
        failures.take(&failed(2, 3, 9.0, FailureClass::Other));
        failures.take(&failed(1, 1, 0.5, FailureClass::Data));
        let cause = failures.cause("stage2").unwrap();
        assert_eq!((cause.attempt, cause.rank), (2, 3));
    }
}
