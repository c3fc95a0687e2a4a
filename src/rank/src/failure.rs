//! The one boundary at which a failure of any kind becomes a report.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use event::{FailureClass, FailureReport};
use train::TrainError;

use crate::arguments::Job;

/// What a rank can fail with.
#[derive(Debug, thiserror::Error)]
pub enum RankError {
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error("{0}")]
    Setup(String),
}

impl RankError {
    fn class(&self) -> FailureClass {
        match self {
            RankError::Train(error) => error.class(),
            RankError::Setup(_) => FailureClass::Setup,
        }
    }
}

/// Where the last panic happened: the payload that unwinds does not say.
static PANIC_PLACE: Mutex<Option<String>> = Mutex::new(None);

/// Runs the rank; an error or a panic (tch's operators panic where they cannot return) comes back as a report.
pub fn guarded<T>(run: impl FnOnce() -> Result<T, RankError>) -> Result<T, Box<FailureReport>> {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let place = info
            .location()
            .map(|place| format!("{}:{}", place.file(), place.line()));
        *PANIC_PLACE.lock().unwrap_or_else(PoisonError::into_inner) = place;
        print(info);
    }));
    let report = |class, message: String| {
        // libtorch and CUDA have one kind of error for all that ails a device; their words tell more.
        let told = match class {
            FailureClass::Other | FailureClass::Collective => FailureClass::of_message(&message),
            _ => None,
        };
        let (message, stack) = without_trace(&message);
        Box::new(FailureReport {
            stack,
            ..FailureReport::new(event::now(), told.unwrap_or(class), message)
        })
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(report(error.class(), error.to_string())),
        Err(payload) => {
            let text = payload
                .downcast_ref::<String>()
                .map(String::as_str)
                .or(payload.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            let place = PANIC_PLACE
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            let place = place.unwrap_or_else(|| "an unknown place".into());
            Err(report(
                FailureClass::Other,
                format!("panic at {place}: {text}"),
            ))
        }
    }
}

/// libtorch's errors carry the C++ frames that they came from, one a line, which nobody finds a reason among: the words
/// without them, and the frames, innermost first.
fn without_trace(message: &str) -> (String, Vec<String>) {
    let Some((words, trace)) = message.split_once("\nException raised from ") else {
        return (message.to_owned(), Vec::new());
    };
    let (place, trace) = trace.split_once('\n').unwrap_or((trace, ""));
    let place = place.split(" (most recent").next().unwrap_or(place);
    let is_frame = |line: &&str| line.starts_with("frame #");
    let frames = trace.lines().take_while(is_frame).map(|line| {
        let frame = line.split_once(": ").map_or(line, |(_, frame)| frame);
        frame.to_owned()
    });
    let stack = std::iter::once(place.to_owned()).chain(frames).collect();
    // Whoever passed the error on may have added words after it.
    let after = trace.lines().skip_while(is_frame).collect::<Vec<_>>();
    let after = after.join(" ");
    (format!("{}{after}", words.trim_end()), stack)
}

/// Leaves the report where a reader of the run directory finds it.
pub fn write(job: &Job, rank: usize, report: &FailureReport) {
    let folder = job
        .run_dir
        .join("jobs")
        .join(&job.job)
        .join(format!("attempt-{}", job.attempt));
    let path = folder.join(format!("failure-rank{rank}.json"));
    if !job.run_dir.join("plan.json").is_file() {
        // A run directory that was deleted is not begun anew.
        eprintln!("spinectl-rank: {} is gone", job.run_dir.display());
        return;
    }
    let written = serde_json::to_vec_pretty(report)
        .map_err(std::io::Error::other)
        .and_then(|json| {
            std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, json))
        });
    if let Err(error) = written {
        eprintln!("spinectl-rank: cannot write {}: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_librarys_trace_is_no_part_of_the_message() {
        let told = "libtorch: CUDA out of memory. Tried to allocate 32.00 MiB.\n\
                    Exception raised from malloc at /pytorch/c10/cuda/CUDACachingAllocator.cpp:1574 (most recent call first):\n\
                    frame #0: c10::Error::Error(std::string) + 0x9d (0x7f5c in libc10.so)\n\
                    frame #1: <unknown function> + 0x4434a (0x7f5c in libc10_cuda.so)\n\
                    ; in work";
        let (message, stack) = without_trace(told);
        assert_eq!(
            message,
            "libtorch: CUDA out of memory. Tried to allocate 32.00 MiB.; in work"
        );
        assert_eq!(
            stack,
            [
                "malloc at /pytorch/c10/cuda/CUDACachingAllocator.cpp:1574",
                "c10::Error::Error(std::string) + 0x9d (0x7f5c in libc10.so)",
                "<unknown function> + 0x4434a (0x7f5c in libc10_cuda.so)",
            ]
        );
        let plain = "two lines\nof words";
        assert_eq!(without_trace(plain), (plain.to_owned(), Vec::new()));
    }

    #[test]
    fn what_libtorch_refuses_here_is_told_in_a_line_with_its_frames() {
        let failed = guarded(|| {
            let ones = tch::Tensor::ones([2, 3], (tch::Kind::Float, tch::Device::Cpu));
            let _ = ones.f_matmul(&ones).map_err(TrainError::from)?;
            Ok(())
        });
        let report = failed.unwrap_err();
        assert_eq!(report.message.lines().count(), 1, "{}", report.message);
        assert!(
            report.message.contains("cannot be multiplied"),
            "{}",
            report.message
        );
        assert!(report.stack.len() > 3, "{:?}", report.stack);
    }
}
