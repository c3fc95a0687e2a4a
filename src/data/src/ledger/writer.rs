//! Appends to a ledger's file.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use super::chain::line;
use super::{Chain, Record, Segment, Update};

/// An open ledger. One process writes it: rank 0.
#[derive(Debug)]
pub struct Writer {
    file: File,
    head: String,
}

impl Writer {
    /// Opens the ledger at `path`, or begins it, cuts off a line that was never finished, and begins a segment. Returns the
    /// chain as it was before.
    ///
    /// A ledger that was tampered with is written on all the same: what it says no more, the audit tells.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn open(path: &Path, segment: Segment) -> io::Result<(Self, Chain)> {
        let new = !path.exists();
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)?;
        let chain = Chain::read(path)?;
        let whole = file.metadata()?.len().saturating_sub(chain.torn as u64);
        file.set_len(whole)?;
        file.seek(SeekFrom::Start(whole))?;
        if new && let Some(folder) = path.parent() {
            // The file is durable once its folder is.
            File::open(folder)?.sync_all()?;
        }
        let head = chain.head.clone();
        let mut writer = Writer { file, head };
        writer.append(&Record::Segment(segment))?;
        Ok((writer, chain))
    }

    /// Appends what update `step` was made of. It is durable after the next [`Writer::sync`].
    ///
    /// # Errors
    /// What the operating system says. A line that was begun is cut off at the next opening.
    pub fn update(&mut self, step: u64, ranks: Vec<Vec<usize>>) -> io::Result<()> {
        self.append(&Record::Update(Update { step, ranks }))
    }

    /// Makes all lines durable and returns the hash of the last one.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn sync(&mut self) -> io::Result<&str> {
        self.file.sync_data()?;
        Ok(&self.head)
    }

    fn append(&mut self, record: &Record) -> io::Result<()> {
        let (text, hash) = line(&self.head, record)?;
        self.file.write_all(text.as_bytes())?;
        self.head = hash;
        Ok(())
    }
}
