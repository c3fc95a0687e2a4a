//! Whole launches with real processes: `fake_rank.sh` for the ranks, the examples for the launcher.

mod faults;
mod harness;
mod parallel;
mod runs;
