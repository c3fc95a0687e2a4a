//! Whole launches with real processes: `fake_rank.sh` for the ranks, the examples for the launcher.

mod fake_nvml;
mod faults;
mod gpus;
mod harness;
mod parallel;
mod runs;
