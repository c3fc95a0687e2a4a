//! Writes checkpoints beside the training: a thread of its own hashes, syncs and renames a copy of the state, and deletes
//! what is no longer wanted, while the updates go on.
//!
//! Each rank that writes a part has such a thread; that of rank 0 completes the checkpoint, once all parts are on the disk.
//! At most one checkpoint is in flight, and none once this is dropped. The thread touches host memory and files only,
//! never libtorch.

use std::mem;
use std::panic::resume_unwind;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use checkpoint::{Checkpoint, Retention, TensorData, Written};
use event::EventKind;

use crate::report::Report;
use crate::trainer::CheckpointPlace;
use crate::writers::Writers;
use crate::{Result, TrainError};

/// The checkpoints that one training writes, or this rank's parts of them.
pub(crate) struct CheckpointWriter<'a> {
    place: &'a CheckpointPlace,
    writers: &'a Writers,
    report: &'a dyn Report,
    in_flight: Option<InFlight>,
    memory: Memory,
    warming: Option<JoinHandle<Memory>>,
}

/// Where a copy of the state goes, tensor by tensor. Pages that were written to before take it several times faster than
/// fresh ones: the memory of one copy is that of the next.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub model: Vec<Vec<u8>>,
    pub optimizer: Vec<Vec<u8>>,
}

impl Memory {
    fn of(copy: Checkpoint) -> Self {
        let bytes = |tensors: Vec<TensorData>| tensors.into_iter().map(|tensor| tensor.bytes);
        Memory {
            model: bytes(copy.model).collect(),
            optimizer: bytes(copy.optimizer).collect(),
        }
    }
}

struct InFlight {
    step: u64,
    began: Instant,
    /// How long the training stood still for this checkpoint.
    stalled: Duration,
    thread: JoinHandle<Done>,
}

struct Done {
    copy: Checkpoint,
    /// None where another rank completes the checkpoint.
    written: std::result::Result<Option<Written>, checkpoint::Error>,
    at: Instant,
}

impl<'a> CheckpointWriter<'a> {
    pub fn new(place: &'a CheckpointPlace, writers: &'a Writers, report: &'a dyn Report) -> Self {
        CheckpointWriter {
            place,
            writers,
            report,
            in_flight: None,
            memory: Memory::default(),
            warming: None,
        }
    }

    /// Makes memory ready for the first copy, beside the next updates: of so many bytes for each tensor of the model and
    /// of the optimizer. Where the recipe wants no writing beside the training, it does nothing.
    pub fn warm(&mut self, [model, optimizer]: [Vec<usize>; 2]) {
        let written_to = |sizes: Vec<usize>| sizes.into_iter().map(|bytes| vec![1; bytes]);
        let work = move || Memory {
            model: written_to(model).collect(),
            optimizer: written_to(optimizer).collect(),
        };
        if self.place.settings.asynchronous {
            let thread = thread::Builder::new().name("checkpoint".into());
            // Without the thread the first copy takes longer, and that is all.
            self.warming = thread.spawn(work).ok();
        }
    }

    /// Waits for the checkpoint before this one, lets `copy` fill host memory (that of the earlier copy, where there is
    /// one), and starts to write it; returns when it is durable where the recipe wants no writing beside the training.
    /// After it, all but the newest and that of step `best` may go.
    ///
    /// # Errors
    /// Those of the checkpoint before this one, too.
    pub fn write(
        &mut self,
        best: Option<u64>,
        copy: impl FnOnce(Memory) -> Result<Checkpoint>,
    ) -> Result<()> {
        self.wait()?;
        let began = Instant::now();
        if let Some(Ok(memory)) = self.warming.take().map(JoinHandle::join) {
            self.memory = memory;
        }
        let checkpoint = copy(mem::take(&mut self.memory))?;
        let step = checkpoint.step;
        let root = self.place.root.clone();
        let retention = Retention {
            keep_last: usize::try_from(self.place.settings.keep_last).unwrap_or(usize::MAX),
            keep_every: self.place.settings.keep_every,
            keep_best: best,
        };
        let share = self.writers.share().cloned();
        let work = move || {
            let written = match &share {
                Some(share) => checkpoint::write_part(&root, &checkpoint, share),
                None => checkpoint::write(&root, &checkpoint).map(Some),
            };
            let written = written.and_then(|written| {
                if written.is_some() {
                    checkpoint::retain(&root, &checkpoint.meta.plan_hash, &retention)?;
                }
                Ok(written)
            });
            Done {
                copy: checkpoint,
                written,
                at: Instant::now(),
            }
        };
        if !self.place.settings.asynchronous {
            let done = work();
            return self.done(step, began, began.elapsed(), done);
        }
        let thread = thread::Builder::new()
            .name("checkpoint".into())
            .spawn(work)
            .map_err(TrainError::Thread)?;
        self.in_flight = Some(InFlight {
            step,
            began,
            stalled: began.elapsed(),
            thread,
        });
        Ok(())
    }

    /// Takes note of the checkpoint in flight if it is done by now: reports it, or fails as it failed.
    pub fn poll(&mut self) -> Result<()> {
        match &self.in_flight {
            Some(writing) if writing.thread.is_finished() => self.wait(),
            _ => Ok(()),
        }
    }

    /// Waits until the checkpoint in flight, or this rank's part of it, is durable, and reports it if it is complete.
    ///
    /// # Errors
    /// What it failed with; it is in flight no more.
    pub fn wait(&mut self) -> Result<()> {
        let Some(writing) = self.in_flight.take() else {
            return Ok(());
        };
        let waiting = Instant::now();
        let done = match writing.thread.join() {
            Ok(done) => done,
            Err(panic) => resume_unwind(panic),
        };
        let stalled = writing.stalled + waiting.elapsed();
        self.done(writing.step, writing.began, stalled, done)
    }

    fn done(&mut self, step: u64, began: Instant, stalled: Duration, done: Done) -> Result<()> {
        self.memory = Memory::of(done.copy);
        let Some(written) = done.written? else {
            return Ok(());
        };
        self.report.report(EventKind::CheckpointWritten {
            step,
            bytes: written.bytes,
            seconds: done.at.duration_since(began).as_secs_f64(),
            stalled_seconds: stalled.as_secs_f64(),
            age_seconds: done.at.elapsed().as_secs_f64(),
        });
        Ok(())
    }
}

impl Drop for CheckpointWriter<'_> {
    /// A training that ends by an error still ends with no write in flight. Its error is the one to tell; that of the
    /// checkpoint goes to the log.
    fn drop(&mut self) {
        if thread::panicking() {
            // Another panic here would abort the process before its failure is reported.
            if let Some(writing) = self.in_flight.take() {
                mem::drop(writing.thread.join());
            }
        } else if let Err(error) = self.wait() {
            eprintln!("{error}");
        }
    }
}

#[cfg(test)]
mod tests;
