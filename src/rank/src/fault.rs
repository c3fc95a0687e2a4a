//! Faults on demand, for tests of what supervises a rank: `SPINECTL_FAULT=KIND:RANK:STEP[:JOB]`.
//!
//! `spin` stays in user code for ever, `sleep` too but without work, `exit` ends the process without a word, `oom` fails as
//! libtorch does without device memory. It strikes in the data wait of that update, in first attempts alone, and only in jobs
//! whose name begins with JOB where that is given.

use std::str::FromStr;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Spin,
    Sleep,
    Exit,
    Oom,
}

/// What goes wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    kind: Kind,
    rank: usize,
    step: u64,
    job: String,
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let refused = || format!("`{text}` is no fault: write spin:RANK:STEP, or sleep, exit, oom");
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
                _ => return Err(refused()),
            },
            rank: rank.parse().map_err(|_| refused())?,
            step: step.parse().map_err(|_| refused())?,
            job: job.to_owned(),
        })
    }
}

impl Fault {
    /// Strikes where this is its place.
    pub fn strike(&self, job: &str, attempt: u32, rank: usize, step: u64) {
        let is_here = self.rank == rank && self.step == step && attempt == 1;
        if !is_here || !job.starts_with(&self.job) {
            return;
        }
        match self.kind {
            Kind::Spin => spin_for_a_test(),
            Kind::Sleep => loop {
                std::thread::sleep(Duration::from_secs(1));
            },
            Kind::Exit => std::process::exit(7),
            Kind::Oom => panic!("CUDA out of memory. Tried to allocate for a test"),
        }
    }
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
            (fault.rank, fault.step, fault.job.as_str()),
            (1, 3, "stage2")
        );
        for text in ["", "spin", "spin:one:3", "explode:0:1"] {
            assert!(
                text.parse::<Fault>().unwrap_err().contains("RANK:STEP"),
                "{text}"
            );
        }
    }
}
