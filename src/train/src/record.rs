//! The sample ledger of a training: rank 0 writes what each update was made of, ahead of the checkpoint that holds it.

use std::path::{Path, PathBuf};

use collective::ProcessGroup;
use data::ledger::{Chain, Segment, Writer};
use event::EventKind;

use crate::report::Report;
use crate::restore::Restored;
use crate::{Result, TrainError};

/// Where rank 0 records samples; elsewhere nothing is written.
pub(crate) struct Record {
    path: PathBuf,
    writer: Option<Writer>,
}

impl Record {
    /// Begins the segment of this attempt, which goes on from `restored`. A checkpoint that the ledger does not know is told
    /// and trained on: its audit says what cannot be proved.
    ///
    /// # Errors
    /// `Write`, where the ledger cannot be opened or written.
    pub fn begin(
        path: &Path,
        group: &ProcessGroup,
        restored: &Restored,
        report: &dyn Report,
        segment: impl FnOnce() -> Segment,
    ) -> Result<Self> {
        let path = path.to_owned();
        if group.rank() != 0 {
            return Ok(Record { path, writer: None });
        }
        let (writer, chain) =
            Writer::open(&path, segment()).map_err(|source| write_error(&path, source))?;
        if let Some(message) = doubt(&path, &chain, restored) {
            report.report(EventKind::Warning { message });
        }
        let writer = Some(writer);
        Ok(Record { path, writer })
    }

    /// Records what update `step` was made of: the samples of each rank, in its order.
    ///
    /// # Errors
    /// `Write`, where the disk is full or not writable.
    pub fn update(&mut self, step: u64, samples: Vec<Vec<usize>>) -> Result<()> {
        match &mut self.writer {
            None => Ok(()),
            Some(writer) => writer
                .update(step, samples)
                .map_err(|source| write_error(&self.path, source)),
        }
    }

    /// Makes the ledger durable and returns its hash, for the checkpoint that is written next.
    ///
    /// # Errors
    /// As [`Record::update`].
    pub fn seal(&mut self) -> Result<Option<String>> {
        match &mut self.writer {
            None => Ok(None),
            Some(writer) => match writer.sync() {
                Ok(head) => Ok(Some(head.to_owned())),
                Err(source) => Err(write_error(&self.path, source)),
            },
        }
    }
}

fn write_error(path: &Path, source: std::io::Error) -> TrainError {
    TrainError::Write {
        path: path.display().to_string(),
        source,
    }
}

/// Why what was trained before `restored` will not be proved, in words.
fn doubt(path: &Path, chain: &Chain, restored: &Restored) -> Option<String> {
    let step = restored.step;
    let problem = match &restored.ledger {
        _ if step == 0 => return None,
        None => "the checkpoint says nothing of a ledger".to_owned(),
        Some(hash) if chain.find(step, hash).is_some() => return None,
        Some(hash) => format!("the checkpoint's ledger hash {hash:.12}.. is not in it"),
    };
    Some(format!(
        "{}: {problem}: the training goes on from update {step}, but which samples went into the updates up to it is not \
         proved; see `spinectl audit`",
        path.display()
    ))
}

#[cfg(test)]
mod tests;
