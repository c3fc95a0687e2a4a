//! What is said of a rank that came no further: one paragraph, and what to do about it.

use event::{FailureClass, FailureReport};

use crate::facts::Facts;
use crate::stall::{Suspect, Trouble};

/// What is known of the rank when it is ended.
#[derive(Debug)]
pub(crate) struct Evidence<'e> {
    pub suspect: Suspect,
    /// Seconds since the Unix epoch.
    pub at: f64,
    /// Without a sign of life, or without progress.
    pub seconds: f64,
    /// Where it was last, in words.
    pub place: String,
    /// Where the others are, in words; empty where there are none.
    pub others: String,
    /// Two looks at it, a moment apart.
    pub looks: [&'e Facts; 2],
    /// Its own answer; empty where it gave none.
    pub stack: &'e [String],
}

/// The rank's report; its phase, step and device are for the caller to add.
pub(crate) fn report(evidence: &Evidence<'_>) -> FailureReport {
    let [first, last] = evidence.looks;
    let (what, advice) = judged(evidence);
    let place = &evidence.place;
    let mut message = format!("{what} for {:.0} s (last in {place})", evidence.seconds);
    if !evidence.others.is_empty() {
        message += &format!("; {}", evidence.others);
    }
    let kernel = last.waits_in.as_ref().or(first.waits_in.as_ref());
    let stack = match (evidence.stack, &last.kernel_stack[..]) {
        ([], []) => kernel
            .map(|function| format!("kernel: {function}"))
            .into_iter()
            .collect(),
        ([], kernel) => kernel.to_vec(),
        (own, _) => own.to_vec(),
    };
    FailureReport {
        stack,
        state: last
            .state
            .map(|state| in_words(state, kernel, last.call.as_ref())),
        done: Some("all ranks of the job were ended".to_owned()),
        advice: Some(advice.to_owned()),
        ..FailureReport::new(evidence.at, FailureClass::Stalled, message)
    }
}

/// What it is, and what to do.
fn judged(evidence: &Evidence<'_>) -> (&'static str, &'static str) {
    let [first, last] = evidence.looks;
    let works = last.ticks > first.ticks;
    match (last.state, evidence.suspect.trouble) {
        (Some('T' | 't'), _) => (
            "frozen: its process is stopped (SIGSTOP, or a debugger) and has come no further",
            "find out who stopped it: a debugger, a job manager that suspends, a Ctrl-Z",
        ),
        (Some('D'), _) => (
            "stuck in the kernel, where nothing can disturb it (state D): no progress",
            "look at the disk, the network file system or the GPU driver: `dmesg` and the kernel function above name it",
        ),
        (Some('Z'), _) => (
            "dead, but one of its threads lives on: no progress",
            "look at the end of its log",
        ),
        (_, Trouble::Silent) => (
            "frozen: no sign of life",
            "its process is there but its threads do not run: is the machine out of memory, or overloaded?",
        ),
        (_, Trouble::Local) if works => (
            "spins: it is alive and uses its processor, but has come no further",
            "its stack shows where; if the work is only slow, raise stall_timeout in the recipe",
        ),
        (_, Trouble::Local) => (
            "stuck: it is alive but sleeps, and has come no further",
            "its stack shows what it waits for: a lock, a device, a file; if the work is only slow, raise stall_timeout \
             in the recipe",
        ),
        (_, Trouble::Behind) => (
            "did not arrive: the other ranks wait in a collective, and it has issued fewer than they have; no progress",
            "its stack shows where it is; ranks must issue the same collectives in the same order",
        ),
        (_, Trouble::AllWait) => (
            "waits with all other ranks in the same collective, so that no rank but the network or its library (Gloo, NCCL) \
             is to blame; no progress",
            "see that ranks reach each other (firewall, interface); on GPUs set NCCL_DEBUG=INFO and launch again",
        ),
    }
}

fn in_words(state: char, waits_in: Option<&String>, call: Option<&String>) -> String {
    let words = match state {
        'R' => "running",
        'S' => "sleeping",
        'D' => "uninterruptible",
        'T' => "stopped by a signal",
        't' => "stopped by a debugger",
        'Z' => "dead",
        _ => "unknown",
    };
    let mut text = format!("{state} ({words})");
    if let Some(function) = waits_in {
        text += &format!(", in the kernel's {function}");
    }
    if let Some(call) = call {
        text += &format!(", system call {call}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn facts(state: char, ticks: u64) -> Facts {
        Facts {
            state: Some(state),
            waits_in: (state == 'D').then(|| "nfs_wait_bit_killable".to_owned()),
            ticks: Some(ticks),
            ..Facts::default()
        }
    }

    fn verdict(trouble: Trouble, state: char, ticks: [u64; 2], stack: &[String]) -> FailureReport {
        let looks = ticks.map(|ticks| facts(state, ticks));
        report(&Evidence {
            suspect: Suspect {
                rank: 1,
                trouble,
                since: Duration::ZERO,
            },
            at: 1.0,
            seconds: 60.2,
            place: "forward at step 7, collective 40".into(),
            others: "rank 0 waits in all-reduce".into(),
            looks: [&looks[0], &looks[1]],
            stack,
        })
    }

    #[test]
    fn every_trouble_has_its_words() {
        let own = ["spin".to_owned()];
        for (trouble, state, ticks, part) in [
            (Trouble::Silent, 'T', [5, 5], "is stopped"),
            (Trouble::Local, 't', [5, 5], "is stopped"),
            (Trouble::Silent, 'D', [5, 5], "state D"),
            (Trouble::Silent, 'R', [5, 5], "no sign of life"),
            (Trouble::Local, 'R', [5, 75], "spins"),
            (Trouble::Local, 'S', [5, 5], "sleeps"),
            (Trouble::Behind, 'S', [5, 5], "did not arrive"),
            (Trouble::AllWait, 'S', [5, 5], "the network"),
        ] {
            let report = verdict(trouble, state, ticks, &own);
            assert_eq!(report.class, FailureClass::Stalled);
            for part in [part, "for 60 s", "forward at step 7", "rank 0 waits"] {
                assert!(report.message.contains(part), "{part}: {}", report.message);
            }
            assert!(report.advice.is_some() && report.done.is_some());
            assert_eq!(report.stack, own);
        }
    }

    #[test]
    fn a_rank_that_does_not_answer_is_seen_from_outside() {
        let report = verdict(Trouble::Silent, 'D', [5, 5], &[]);
        assert_eq!(report.stack, ["kernel: nfs_wait_bit_killable"]);
        assert_eq!(
            report.state.as_deref(),
            Some("D (uninterruptible), in the kernel's nfs_wait_bit_killable")
        );
    }
}
