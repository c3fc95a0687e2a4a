//! A plan as a Slurm batch script: one node, stopped in time and requeued until it is done.

use plan::Plan;

use crate::ClusterError;
use crate::shell::quote_command;

/// Seconds before the time limit at which the run is asked to write a checkpoint and stop.
const WARNING_SECONDS: u32 = 120;

/// What Slurm is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlurmOptions {
    /// Letters, digits, `.`, `_` and `-`.
    pub job_name: String,
    /// One, for the time being.
    pub nodes: usize,
    /// GPUs on the node; none are asked for where 0.
    pub gpus: usize,
    /// Time limit as Slurm writes it (`12:00:00`, `1-06:00`); the partition's own where absent.
    pub time: Option<String>,
    /// Partition, or several with commas; the cluster's default where absent.
    pub partition: Option<String>,
    /// The program and its arguments. It must go on by itself when it is started again.
    pub command: Vec<String>,
}

/// The batch script that runs `options.command`, which runs `plan`.
///
/// Before the time limit, Slurm sends SIGUSR1 to the script, which hands it on; a run that stops
/// with a checkpoint exits with 75 and the script puts its own job back into the queue.
pub fn render(plan: &Plan, options: &SlurmOptions) -> Result<String, ClusterError> {
    if options.nodes != 1 {
        return Err(ClusterError::Nodes(options.nodes));
    }
    if plan.jobs.is_empty() {
        return Err(ClusterError::EmptyPlan(plan.name.clone()));
    }
    let directives = directives(options)?;
    let command = quote_command(&options.command)?;
    let (hash, jobs) = (&plan.hash, plan.jobs.len());
    Ok(format!(
        r#"#!/bin/bash
{directives}
# {jobs} jobs; plan {hash}
set -u

cancelled=no
{command} &
pid=$!
# The program is in the background because bash runs no trap while it waits for one in the foreground.
trap 'kill -USR1 "$pid" 2>/dev/null' USR1
# Slurm sends SIGTERM to every process of a job that it ends: not handed on, as a second one would be "at once".
trap 'cancelled=yes' TERM

# A trap ends `wait` early: wait until the program is gone. 127 means that its exit code is known already.
status=127
while :; do
    wait "$pid"
    code=$?
    [ "$code" -eq 127 ] || status=$code
    kill -0 "$pid" 2>/dev/null || break
done
wait "$pid" 2>/dev/null
code=$?
[ "$code" -eq 127 ] || status=$code

# 75: stopped on request with a checkpoint. Whoever cancels a job does not want it back.
if [ "$status" -eq 75 ] && [ "$cancelled" = no ]; then
    scontrol requeue "$SLURM_JOB_ID" ||
        echo "cannot requeue job $SLURM_JOB_ID: submit this script again to go on" >&2
fi
exit "$status"
"#
    ))
}

/// The `#SBATCH` lines. Slurm knows no safe quoting there, so values are checked instead.
fn directives(options: &SlurmOptions) -> Result<String, ClusterError> {
    let name = checked(
        "job name",
        &options.job_name,
        |c| c.is_ascii_alphanumeric() || "._-".contains(c),
        "write letters, digits, `.`, `_` and `-`",
    )?;
    let mut lines = vec![
        format!("--job-name={name}"),
        "--nodes=1".into(),
        "--ntasks=1".into(),
    ];
    if options.gpus > 0 {
        lines.push(format!("--gpus-per-node={}", options.gpus));
    }
    if let Some(time) = &options.time {
        let time = checked(
            "time",
            time,
            |c| c.is_ascii_digit() || ":-".contains(c),
            "write minutes, or hours:minutes:seconds, or days-hours:minutes",
        )?;
        lines.push(format!("--time={time}"));
    }
    if let Some(partition) = &options.partition {
        let partition = checked(
            "partition",
            partition,
            |c| c.is_ascii_alphanumeric() || "._-,".contains(c),
            "write the names that `sinfo` shows, with commas between them",
        )?;
        lines.push(format!("--partition={partition}"));
    }
    lines.push("--requeue".into());
    // A requeued job writes on in the same file.
    lines.push("--open-mode=append".into());
    lines.push(format!("--signal=B:USR1@{WARNING_SECONDS}"));
    let lines: Vec<String> = lines
        .into_iter()
        .map(|line| format!("#SBATCH {line}"))
        .collect();
    Ok(lines.join("\n"))
}

fn checked<'v>(
    option: &'static str,
    value: &'v str,
    allowed: impl Fn(char) -> bool,
    expected: &'static str,
) -> Result<&'v str, ClusterError> {
    // A value that starts with `-` would be taken for another option.
    let good = !value.is_empty() && !value.starts_with('-') && value.chars().all(allowed);
    good.then_some(value).ok_or_else(|| ClusterError::Option {
        option,
        value: value.to_owned(),
        expected,
    })
}
