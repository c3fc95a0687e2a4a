//! Clusters: what a scheduler needs in order to run a plan, rendered as text that a user can read before it is submitted.
//!
//! Slurm on one node so far: [`slurm::render`] makes the batch script of a run.

pub mod shell;
pub mod slurm;

/// Why a plan cannot be rendered for a cluster.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ClusterError {
    #[error(
        "a run over {0} nodes cannot be rendered yet: leave `--nodes` out (or write `--nodes 1`) and use the GPUs of one node"
    )]
    Nodes(usize),
    #[error("the Slurm option {option} cannot be `{value}`: {expected}")]
    Option {
        option: &'static str,
        value: String,
        expected: &'static str,
    },
    #[error("the plan `{0}` has no jobs: choose at least one stage")]
    EmptyPlan(String),
    #[error(
        "the command for the batch script cannot be written in a shell script: `{0}` holds a zero byte; take it out"
    )]
    ZeroByte(String),
    #[error("there is no command to run in the batch script: give the program and its arguments")]
    NoCommand,
}
