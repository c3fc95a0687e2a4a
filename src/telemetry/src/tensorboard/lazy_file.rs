//! An event file that is begun with its first record, so that what has nothing to show has no folder.

use std::path::PathBuf;

use super::standing::Standing;
use super::{Error, Writer};

#[derive(Debug)]
pub(super) struct LazyFile {
    directory: PathBuf,
    state: State,
}

#[derive(Debug)]
enum State {
    NotBegun,
    Open(Writer),
    Failed,
}

impl LazyFile {
    pub fn new(directory: PathBuf) -> Self {
        LazyFile {
            directory,
            state: State::NotBegun,
        }
    }

    /// One that takes everything and writes nothing.
    pub fn closed() -> Self {
        LazyFile {
            directory: PathBuf::new(),
            state: State::Failed,
        }
    }

    /// Begins the file if that has not been tried yet, and writes to it.
    ///
    /// # Errors
    /// Once; after that it is silent.
    pub fn write(
        &mut self,
        time: f64,
        write: impl FnOnce(&mut Writer) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if let State::NotBegun = self.state {
            self.state = State::Failed;
            self.state = State::Open(Writer::create(&self.directory, time)?);
        }
        match &mut self.state {
            State::Open(writer) => write(writer),
            State::NotBegun | State::Failed => Ok(()),
        }
    }

    /// Leaves of the directory's event files only this one.
    pub fn remove_others(&self) {
        if let State::Open(writer) = &self.state {
            writer.remove_others();
        }
    }

    /// What readers have of a step, from this file and those beside it.
    pub fn standing(&mut self, step: u64) -> Result<Standing, Error> {
        self.flush()?;
        Ok(Standing::at(&self.directory, step))
    }

    /// Hands what is buffered to the operating system.
    pub fn flush(&mut self) -> Result<(), Error> {
        match &mut self.state {
            State::Open(writer) => writer.flush(),
            State::NotBegun | State::Failed => Ok(()),
        }
    }
}
