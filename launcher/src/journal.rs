//! `events.jsonl`: every event of a run in order, appended line by line; and whoever else listens.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use event::RunEvent;
use tokio::sync::mpsc::UnboundedSender;

use crate::LaunchError;

#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
    /// The file does not end with a newline: a writer died, or the disk was full.
    torn: bool,
    /// Said once that events are lost.
    warned: bool,
    listener: UnboundedSender<RunEvent>,
}

impl Journal {
    /// Opens the file to go on at its end.
    pub fn open(path: &Path, listener: UnboundedSender<RunEvent>) -> Result<Self, LaunchError> {
        let open = || -> io::Result<(File, bool)> {
            let mut options = OpenOptions::new();
            let mut file = options.create(true).append(true).read(true).open(path)?;
            let torn = file.metadata()?.len() > 0 && {
                let mut last = [b'\n'];
                file.seek(SeekFrom::End(-1))?;
                file.read_exact(&mut last)?;
                last != *b"\n"
            };
            Ok((file, torn))
        };
        let (file, torn) = open().map_err(LaunchError::io("open", path))?;
        Ok(Journal {
            file,
            path: path.to_owned(),
            torn,
            warned: false,
            listener,
        })
    }

    /// Writes an event and passes it on. A disk that takes no events does not end a training.
    pub fn tell(&mut self, event: RunEvent) {
        if let Err(error) = self.append(&event)
            && !std::mem::replace(&mut self.warned, true)
        {
            eprintln!(
                "spinectl: events are missing from {} from now on ({error}); the run goes on. \
                 Free some space on that disk",
                self.path.display()
            );
        }
        // Nobody need listen.
        let _ = self.listener.send(event);
    }

    fn append(&mut self, event: &RunEvent) -> io::Result<()> {
        let mut line = event::to_line(event).map_err(io::Error::other)?;
        if self.torn {
            line.insert(0, '\n');
        }
        // One write a line, so that other readers see whole lines.
        let written = self.file.write_all(line.as_bytes());
        self.torn = written.is_err();
        written
    }
}

#[cfg(test)]
mod tests {
    use event::EventKind;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    fn event(message: &str) -> RunEvent {
        RunEvent::run(EventKind::Warning {
            message: message.into(),
        })
    }

    #[test]
    fn a_torn_line_does_not_spoil_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        std::fs::write(&path, "{\"time\":1.0,\"eve").unwrap();
        let (listener, _) = unbounded_channel();
        let mut journal = Journal::open(&path, listener).unwrap();
        journal.tell(event("a"));
        journal.tell(event("b"));
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().map(event::parse_line).collect();
        assert!(lines[0].is_err() && lines[1].is_ok() && lines[2].is_ok());
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn a_full_disk_loses_lines_and_nothing_else() {
        let (listener, mut heard) = unbounded_channel();
        let mut journal = Journal::open(Path::new("/dev/full"), listener).unwrap();
        journal.tell(event("a"));
        journal.tell(event("b"));
        assert!(journal.warned);
        assert_eq!(heard.try_recv().unwrap().kind, event("a").kind);
        assert_eq!(heard.try_recv().unwrap().kind, event("b").kind);
    }
}
