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

/// Predicts the studies below `images` with the models of a finished run and writes `out`.
///
/// Its log is `RUN_DIR/predict.log`. As with [`launch`](crate::launch), the process dies with the
/// thread that drives this.
pub async fn predict(
    run_dir: &Path,
    images: &Path,
    out: &Path,
    device: Device,
    events: UnboundedSender<RunEvent>,
) -> Result<Outcome, LaunchError> {
    let program = rank_program()?;
    if device == Device::Cuda {
        gpu::require(1)?;
    }
    let dir = RunDir::with_a_run(run_dir)?;
    let log = dir.predict_log();
    let about = |doing| LaunchError::io(doing, &log);
    let mut signals = StopSignals::listen().map_err(about("handle signals for"))?;
    let mut guardian = Guardian::start(None).map_err(about("start a guardian for"))?;
    let order = Order {
        arguments: arguments(dir.root(), images, out, device),
        about: None,
        visible_gpus: None,
        logs: vec![log.clone()],
        near_gpus: device == Device::Cuda,
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

fn arguments(run_dir: &Path, images: &Path, out: &Path, device: Device) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["predict".into()];
    for (flag, path) in [("--run-dir", run_dir), ("--images", images), ("--out", out)] {
        arguments.push(flag.into());
        arguments.push(path.into());
    }
    arguments.extend(["--device".into(), device_argument(device).into()]);
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
