//! Prediction: one supervised process that reads a run's checkpoints.

use std::ffi::OsString;
use std::marker::PhantomData;
use std::path::Path;
use std::time::Instant;

use event::RunEvent;
use recipe::Device;
use tokio::sync::mpsc::UnboundedSender;

use crate::action::Death;
use crate::attempt::{Attempt, Verdict};
use crate::events::Message;
use crate::guardian::Guardian;
use crate::ranks::{Order, Ranks, device_argument};
use crate::run_dir::RunDir;
use crate::signals::StopSignals;
use crate::{LaunchError, Outcome, gpu, logs, rank_program};

/// What is asked of a prediction.
#[derive(Clone, Copy, Debug)]
pub struct Prediction<'a> {
    /// The run with the finished models.
    pub run_dir: &'a Path,
    /// The folder that holds the studies.
    pub images: &'a Path,
    /// The submission to write.
    pub out: &'a Path,
    /// The folder for a JSON file of each study.
    pub details: Option<&'a Path>,
    /// Predict each study's mirror image too, and take the mean.
    pub flip: bool,
    pub device: Device,
}

/// Predicts the studies of a folder with the models of a finished run. Studies that cannot be read are left out: the report
/// beside the submission names them.
///
/// Its log is `RUN_DIR/predict.log`. As with [`launch`](crate::launch), the process dies with the
/// thread that drives this.
pub async fn predict(
    asked: Prediction<'_>,
    events: UnboundedSender<RunEvent>,
) -> Result<Outcome, LaunchError> {
    let program = rank_program()?;
    if asked.device == Device::Cuda {
        gpu::find().require(1)?;
    }
    let dir = RunDir::with_a_run(asked.run_dir)?;
    let log = dir.predict_log();
    let about = |doing| LaunchError::io(doing, &log);
    let mut signals = StopSignals::listen().map_err(about("handle signals for"))?;
    let mut guardian = Guardian::start(None).map_err(about("start a guardian for"))?;
    let order = Order {
        arguments: arguments(dir.root(), asked),
        about: None,
        visible_gpus: None,
        logs: vec![log.clone()],
        near_gpus: asked.device == Device::Cuda,
        sharers: 1,
        program,
    };
    let _one_thread = PhantomData::<*const ()>;
    let mut ranks = Ranks::start(order, &mut guardian).map_err(about("start ranks that log to"))?;
    let began = Instant::now();
    let mut attempt = Attempt::new(0, 1, 1, began.elapsed());
    let mut stop = None;
    loop {
        tokio::select! {
            signal = signals.next() => match stop.replace(signal) {
                None => {
                    attempt.asked = true;
                    ranks.terminate();
                }
                Some(_) => {
                    attempt.killed = true;
                    ranks.kill();
                }
            },
            (rank, message) = ranks.next() => match message {
                Message::Event(event) => {
                    attempt.said(rank, &event.kind, began.elapsed());
                    // Nobody need listen.
                    let _ = events.send(*event);
                }
                Message::Nonsense(_) | Message::Dying(_) => {}
                Message::Ended => {
                    if let Some(exit) = ranks.reap(rank, &mut guardian) {
                        let death = Death {
                            exit,
                            at: event::now(),
                            last_words: logs::last_words(&log),
                            oom_kill: false,
                        };
                        attempt.ended(rank, &death);
                    }
                }
            },
        }
        if let Some(verdict) = attempt.verdict() {
            return Ok(outcome(verdict, stop));
        }
    }
}

fn arguments(run_dir: &Path, asked: Prediction<'_>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["predict".into()];
    let paths = [
        ("--run-dir", Some(run_dir)),
        ("--images", Some(asked.images)),
        ("--out", Some(asked.out)),
        ("--details", asked.details),
    ];
    for (flag, path) in paths {
        let Some(path) = path else { continue };
        arguments.push(flag.into());
        arguments.push(path.into());
    }
    if asked.flip {
        arguments.push("--flip".into());
    }
    arguments.extend(["--device".into(), device_argument(asked.device).into()]);
    arguments
}

fn outcome(verdict: Verdict, stop: Option<i32>) -> Outcome {
    match verdict {
        Verdict::Succeeded => Outcome::Done,
        // There is no checkpoint to go on from.
        Verdict::Stopped | Verdict::Cut => Outcome::Interrupted {
            signal: stop.unwrap_or(libc::SIGTERM),
        },
        Verdict::Failed { class, reason, .. } => Outcome::Failed {
            job: "predict".to_owned(),
            class,
            reason,
        },
    }
}
