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
        Box::new(FailureReport::new(
            event::now(),
            told.unwrap_or(class),
            message,
        ))
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
