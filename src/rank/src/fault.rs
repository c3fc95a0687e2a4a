//! Faults on demand, for tests of what supervises a rank: `SPINECTL_FAULT=KIND:RANK:STEP[:JOB]`.
//!
//! `spin` stays in user code for ever, `sleep` too but without work, `exit` ends the process without a word, `oom` fails as
//! libtorch does without device memory; `hold` sleeps until this rank is asked to stop. It strikes in the data wait of that
//! update, in first attempts alone, and only in jobs whose name begins with JOB where that is given. `PHASE@N` instead of STEP
//! strikes at the Nth study of a phase without updates (`start_up@2`, `inference@1`).

use std::str::FromStr;
use std::time::Duration;

use event::Phase;

use crate::signals::STOP;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Spin,
    Sleep,
    Exit,
    Oom,
    Hold,
}

/// What goes wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    kind: Kind,
    rank: usize,
    /// In data waits the update, elsewhere the number of the item.
    place: (Phase, u64),
    job: String,
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let refused = || {
            format!(
                "`{text}` is no fault: write spin:RANK:STEP, or sleep, exit, oom, hold; PHASE@N for STEP outside of updates"
            )
        };
        let (kind, rank, step, job) = match parts[..] {
            [kind, rank, step] => (kind, rank, step, ""),
            [kind, rank, step, job] => (kind, rank, step, job),
            _ => return Err(refused()),
        };
        Ok(Fault {
            kind: match kind {
                "spin" => Kind::Spin,
                "sleep" => Kind::Sleep,
                "exit" => Kind::Exit,
                "oom" => Kind::Oom,
                "hold" => Kind::Hold,
                _ => return Err(refused()),
            },
            rank: rank.parse().map_err(|_| refused())?,
            place: place(step).ok_or_else(refused)?,
            job: job.to_owned(),
        })
    }
}

impl Fault {
    /// Strikes where this is its place.
    pub fn strike(&self, job: &str, attempt: u32, rank: usize, place: (Phase, u64)) {
        let is_here = self.rank == rank && self.place == place && attempt == 1;
        if !is_here || !job.starts_with(&self.job) {
            return;
        }
        match self.kind {
            Kind::Spin => spin_for_a_test(),
            Kind::Sleep => loop {
                std::thread::sleep(Duration::from_secs(1));
            },
            Kind::Exit => std::process::exit(7),
            Kind::Hold => {
                while !STOP.is_requested() {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            Kind::Oom => panic!("CUDA out of memory. Tried to allocate for a test"),
        }
    }
}

/// `3`, the update of a data wait, or `inference@3`.
fn place(text: &str) -> Option<(Phase, u64)> {
    let (phase, number) = match text.split_once('@') {
        None => (Phase::DataWait, text),
        Some((phase, number)) => (serde_json::from_value(phase.into()).ok()?, number),
    };
    Some((phase, number.parse().ok()?))
}

/// Has a name in a stack.
#[inline(never)]
fn spin_for_a_test() {
    loop {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_read_or_refused_with_the_way_to_write_it() {
        let fault: Fault = "spin:1:3:stage2".parse().unwrap();
        assert_eq!(
            (fault.rank, fault.place, fault.job.as_str()),
            (1, (Phase::DataWait, 3), "stage2")
        );
        let fault: Fault = "hold:0:inference@2".parse().unwrap();
        assert_eq!(fault.place, (Phase::Inference, 2));
        for text in ["", "spin", "spin:one:3", "explode:0:1", "spin:0:lunch@1"] {
            assert!(
                text.parse::<Fault>().unwrap_err().contains("RANK:STEP"),
                "{text}"
            );
        }
    }
}
