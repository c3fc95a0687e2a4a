//! What a launch says at its end: the metrics, the failure and what to do about it, how to go on.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use event::{FailureClass, FailureReport, Phase};
use launcher::Outcome;

use crate::progress::{Cause, Seen};
use crate::{metrics, run_command};

/// Lines of a log that a failure quotes, and the bytes in which they are looked for.
const LOG_LINES: usize = 12;
const LOG_BYTES: u64 = 16 * 1024;
/// Frames of a stack that are shown.
const STACK_LINES: usize = 16;

/// The end of a run in words, for the terminal.
pub fn of_launch(run_dir: &Path, outcome: &Outcome, seen: &Seen) -> anyhow::Result<String> {
    let go_on = run_command::go_on(run_dir);
    Ok(match outcome {
        Outcome::Done => {
            let metrics = metrics::of_run(run_dir)?
                .unwrap_or_else(|| "all jobs are done, but there is no summary.json".into());
            format!("{metrics}\n\ncurves: {}", run_command::tensorboard(run_dir))
        }
        Outcome::Failed { job, class, reason } => {
            let cause = seen.failures.cause(job);
            let mut text = failure(job, *class, reason, cause.as_ref());
            if let Some(cause) = &cause {
                let log = run_dir
                    .join("jobs")
                    .join(job)
                    .join(format!("attempt-{}", cause.attempt))
                    .join(format!("rank{}.log", cause.rank));
                text.push_str(&quoted_log(&log));
            }
            let own = cause.as_ref().and_then(|cause| cause.report.advice.clone());
            let advice = own.unwrap_or_else(|| advice(*class).to_owned());
            format!("{text}\n{advice}\nThen go on: {go_on}")
        }
        // It says itself how to go on: not at the place where it was.
        Outcome::Lost { reason } => reason.clone(),
        Outcome::Held { paused, cancelled } => {
            let mut text =
                "nothing is left to run but what is held back, and what needs it\n".to_owned();
            for (how, jobs) in [("paused", paused), ("cancelled", cancelled)] {
                if !jobs.is_empty() {
                    text.push_str(&format!("{how}: {}\n", jobs.join(", ")));
                }
            }
            let held: Vec<&str> = paused.iter().chain(cancelled).map(String::as_str).collect();
            let resume = run_command::resume(run_dir, &held);
            format!("{text}Take it back: {resume}\nThen go on: {go_on}")
        }
        Outcome::Stopped => {
            format!("stopped, with everything saved. Go on: {go_on}")
        }
        Outcome::Interrupted { signal } => format!(
            "interrupted by signal {signal} before everything was saved; older checkpoints are whole. Go on: {go_on}"
        ),
    })
}

/// `stage2-... failed on rank 1, attempt 1, step 7, in backward (killed)` and the message.
fn failure(job: &str, class: FailureClass, reason: &str, cause: Option<&Cause>) -> String {
    let class = class_in_words(class);
    let Some(cause) = cause else {
        return format!("{job} failed ({class}): {reason}\n");
    };
    let mut place = format!("rank {}, attempt {}", cause.rank, cause.attempt);
    if let Some(step) = cause.report.step {
        place.push_str(&format!(", step {step}"));
    }
    if let Some(phase) = cause.report.phase.map(Phase::as_str) {
        place.push_str(&format!(", in {phase}"));
    }
    let exit = cause
        .report
        .exit
        .as_ref()
        .map_or_else(String::new, |exit| format!(" [{exit}]"));
    let message = &cause.report.message;
    // What the launcher adds: why it is not tried again.
    let added = reason.split_once(message.as_str());
    let added = added.map_or("", |(_, added)| added);
    let mut text = format!("{job} failed on {place} ({class}){exit}: {message}{added}\n");
    text.push_str(&found(cause.report));
    text
}

/// What the launcher or the rank found out about a failure: the state of its process, its stack.
fn found(report: &FailureReport) -> String {
    let mut text = String::new();
    if let Some(state) = &report.state {
        text.push_str(&format!("process: {state}\n"));
    }
    if !report.stack.is_empty() {
        text.push_str("stack, innermost first:\n");
    }
    for frame in report.stack.iter().take(STACK_LINES) {
        text.push_str(&format!("  {}\n", without_controls(frame)));
    }
    match report.stack.len().saturating_sub(STACK_LINES) {
        0 => {}
        more => text.push_str(&format!("  and {more} more in failure-rank<r>.json\n")),
    }
    text
}

fn class_in_words(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Data => "bad data",
        FailureClass::Setup => "setup",
        FailureClass::Disk => "disk",
        FailureClass::Collective => "a peer was lost",
        FailureClass::Killed => "killed",
        FailureClass::Stalled => "stuck",
        FailureClass::DeviceMemory => "out of device memory",
        FailureClass::HostMemory => "out of host memory",
        FailureClass::DeviceLost => "device lost",
        FailureClass::Diverged => "training diverged",
        FailureClass::Replicas => "replicas differ",
        FailureClass::Other => "program",
    }
}

fn advice(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Data => {
            "Mend or replace what is named above, or leave the study out: `data.exclude` in the recipe."
        }
        FailureClass::Setup => {
            "The recipe asks for what this program or machine does not have: change the one or the other."
        }
        FailureClass::Disk => {
            "Free space (or raise the quota) where the run directory is, or lower `checkpoint.keep_last`."
        }
        FailureClass::Killed => {
            "Signal 9 without a word is mostly the kernel out of memory (`dmesg | tail`): lower `micro_batch` or \
             `data.workers` in the recipe, or give the job more memory."
        }
        FailureClass::Stalled => {
            "The report beside the log says where it stood; a network disk, a GPU driver or a deadlock does that. Work that \
             is only slow wants a larger `stall_timeout` in the recipe."
        }
        FailureClass::DeviceMemory => {
            "Lower `micro_batch` or `image_size` in the recipe, or free the device (`nvidia-smi` lists who uses it)."
        }
        FailureClass::HostMemory => {
            "Lower `micro_batch`, `data.memory_mb` or `data.workers` in the recipe, or give the job more memory."
        }
        FailureClass::DeviceLost => {
            "See `nvidia-smi` and the kernel's log (`dmesg | grep -i xid`); launch again without that device: \
             CUDA_VISIBLE_DEVICES."
        }
        FailureClass::Diverged => {
            "Lower `learning_rate`, or set `clip_norm`: the same steps would come to the same end."
        }
        FailureClass::Replicas => {
            "Leave the GPU or machine of the rank that is named above out; what was trained up to the newest checkpoint is good."
        }
        FailureClass::Collective | FailureClass::Other => {
            "Retries did not help: look at the log above and at those of the other ranks beside it."
        }
    }
}

/// The path of a log and its last lines; only the path where it cannot be read.
pub fn quoted_log(path: &Path) -> String {
    let lines = last_lines(path).unwrap_or_default();
    match lines.is_empty() {
        true => format!("log: {} (nothing in it)\n", path.display()),
        false => {
            let quoted: String = lines.iter().map(|line| format!("  | {line}\n")).collect();
            format!("log: {}, its end:\n{quoted}", path.display())
        }
    }
}

fn last_lines(path: &Path) -> std::io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LOG_LINES);
    Ok(lines.into_iter().skip(from).map(without_controls).collect())
}

/// A log may hold anything; escape sequences are not for the terminal of whoever reads this.
fn without_controls(line: &str) -> String {
    line.chars()
        .filter(|c| !c.is_control() || *c == '\t')
        .collect()
}

#[cfg(test)]
mod tests {
    use event::{EventKind, RunEvent};

    use super::*;

    #[test]
    fn a_failure_is_told_with_its_place_log_and_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let attempt = folder.path().join("jobs/labels/attempt-2");
        std::fs::create_dir_all(&attempt).unwrap();
        let log: String = (0..100).map(|n| format!("line {n}\x1b[31m\n")).collect();
        std::fs::write(attempt.join("rank1.log"), log).unwrap();
        let report = FailureReport {
            failed_at: 1.0,
            class: FailureClass::Data,
            message: "study 1.2.3 has no slices".into(),
            phase: Some(Phase::DataWait),
            step: Some(7),
            exit: Some("exit 4".into()),
            ..FailureReport::default()
        };
        let mut seen = Seen::default();
        seen.failures.take(&RunEvent {
            rank: Some(1),
            ..RunEvent::job("labels", 2, EventKind::RankFailed(report))
        });
        let outcome = Outcome::Failed {
            job: "labels".into(),
            class: FailureClass::Data,
            reason: "x".into(),
        };
        let text = of_launch(folder.path(), &outcome, &seen).unwrap();
        for part in [
            "labels failed on rank 1, attempt 2, step 7, in data wait (bad data) [exit 4]: study 1.2.3 has no slices",
            "rank1.log, its end:\n  | line 88[31m\n",
            "  | line 99[31m\n",
            "data.exclude",
            "Go on:",
        ] {
            assert!(
                text.to_lowercase().contains(&part.to_lowercase()),
                "no `{part}` in\n{text}"
            );
        }
        assert!(!text.contains("line 87") && !text.contains('\x1b'));
    }

    #[test]
    fn a_verdict_shows_the_state_the_stack_and_why_it_was_the_last_attempt() {
        let stack = (0..20).map(|n| format!("frame{n}\x1b[2J")).collect();
        let report = FailureReport {
            state: Some("T (stopped by a signal)".into()),
            stack,
            advice: Some("find out who stopped it".into()),
            ..FailureReport::new(1.0, FailureClass::Stalled, "frozen for 5 s")
        };
        let mut seen = Seen::default();
        seen.failures.take(&RunEvent {
            rank: Some(1),
            ..RunEvent::job("labels", 3, EventKind::RankFailed(report))
        });
        let outcome = Outcome::Failed {
            job: "labels".into(),
            class: FailureClass::Stalled,
            reason: "rank 1: frozen for 5 s; three attempts in a row".into(),
        };
        let folder = tempfile::tempdir().unwrap();
        let text = of_launch(folder.path(), &outcome, &seen).unwrap();
        for part in [
            "(stuck): frozen for 5 s; three attempts in a row",
            "process: T (stopped",
            "  frame15[2J\n  and 4 more",
            "\nfind out who stopped it\n",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }
}
