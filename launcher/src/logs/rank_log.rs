//! One rank's log, read as one file: what was rotated away first, then what is being written.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A line that grows beyond this is shown in pieces: what never ends a line must not fill the memory.
const LONGEST_LINE: usize = 1 << 20;

/// `rank0.log` with `rank0.log.1` (newest) to `rank0.log.N` (oldest).
#[derive(Debug)]
pub(crate) struct RankLog {
    path: PathBuf,
    file: Option<File>,
    /// What follows the last newline.
    partial: Vec<u8>,
}

impl RankLog {
    pub fn new(path: PathBuf) -> Self {
        RankLog {
            path,
            file: None,
            partial: Vec::new(),
        }
    }

    /// Hands over every whole line that was written since the last call.
    pub fn read<E: From<io::Error>>(
        &mut self,
        each: &mut impl FnMut(String) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            self.drain(each)?;
            let Some(next) = self.next_file()? else {
                return Ok(());
            };
            // It was renamed before its writer turned to the next one: the last words may have come since.
            self.drain(each)?;
            self.file = Some(next);
        }
    }

    /// The last `count` of its whole lines.
    pub fn read_last(&mut self, count: usize) -> io::Result<VecDeque<String>> {
        let mut last = VecDeque::new();
        self.read(&mut |line| {
            last.push_back(line);
            if last.len() > count {
                last.pop_front();
            }
            Ok::<(), io::Error>(())
        })?;
        Ok(last)
    }

    /// The last line, where it has no newline.
    pub fn rest(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.partial);
        (!rest.is_empty()).then(|| text(&rest))
    }

    fn drain<E: From<io::Error>>(
        &mut self,
        each: &mut impl FnMut(String) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let mut bytes = [0; 64 << 10];
        loop {
            let read = match file.read(&mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            let mut new = bytes.get(..read).unwrap_or_default();
            if new.is_empty() {
                return Ok(());
            }
            while let Some(end) = new.iter().position(|byte| *byte == b'\n') {
                let (line, after) = new.split_at(end);
                self.partial.extend_from_slice(line);
                each(text(&self.partial))?;
                self.partial.clear();
                new = after.get(1..).unwrap_or_default();
            }
            self.partial.extend_from_slice(new);
            if self.partial.len() > LONGEST_LINE {
                each(text(&self.partial))?;
                self.partial.clear();
            }
        }
    }

    /// The file after the one that is open; none where that is the newest, or the newest is not in use yet.
    fn next_file(&self) -> io::Result<Option<File>> {
        let names = files(&self.path);
        let ids: Vec<Option<(u64, u64)>> = names
            .iter()
            .map(|name| fs::metadata(name).ok().map(|about| id(&about)))
            .collect();
        let place = match &self.file {
            None => None,
            Some(file) => {
                let open = id(&file.metadata()?);
                ids.iter().position(|known| *known == Some(open))
            }
        };
        // From the newest, which is 0. One that is open and not found was deleted: on with the oldest.
        let next = match place {
            Some(place) => place.checked_sub(1),
            None => names.len().checked_sub(1),
        };
        let Some(name) = next.and_then(|next| names.get(next)) else {
            return Ok(None);
        };
        let file = match File::open(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        // An empty one has no writer yet, who may still write to the one before it.
        let in_use = self.file.is_none() || file.metadata()?.len() > 0;
        Ok(in_use.then_some(file))
    }
}

/// The files of a log that are there, the newest first.
fn files(path: &Path) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = path.exists().then(|| path.to_owned()).into_iter().collect();
    let old = (1..).map(|number| rotated(path, number));
    names.extend(old.take_while(|name| name.exists()));
    names
}

/// `rank0.log.<number>`.
pub(crate) fn rotated(path: &Path, number: u64) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

fn id(about: &Metadata) -> (u64, u64) {
    (about.dev(), about.ino())
}

fn text(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8_lossy(line).into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;

    use super::*;

    struct Log {
        _folder: tempfile::TempDir,
        path: PathBuf,
    }

    impl Log {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("rank0.log");
            Log {
                _folder: folder,
                path,
            }
        }

        fn open(&self) -> File {
            let mut options = OpenOptions::new();
            options.create(true).append(true).open(&self.path).unwrap()
        }

        fn rotate(&self) {
            for number in (1..9).rev() {
                let _ = fs::rename(rotated(&self.path, number), rotated(&self.path, number + 1));
            }
            fs::rename(&self.path, rotated(&self.path, 1)).unwrap();
        }
    }

    fn lines(log: &mut RankLog) -> Vec<String> {
        let mut lines = Vec::new();
        log.read(&mut |line| {
            lines.push(line);
            Ok::<(), io::Error>(())
        })
        .unwrap();
        lines
    }

    #[test]
    fn rotated_files_are_read_in_order_and_followed() {
        let log = Log::new();
        log.open().write_all(b"1\n2\n").unwrap();
        log.rotate();
        log.open().write_all(b"3\n4").unwrap();
        let mut reader = RankLog::new(log.path.clone());
        assert_eq!(lines(&mut reader), ["1", "2", "3"]);

        // A writer that is between the rename and its new file.
        let mut writer = log.open();
        log.rotate();
        writer.write_all(b"4\n5\n").unwrap();
        assert_eq!(lines(&mut reader), ["44", "5"]);
        let mut next = log.open();
        writer.write_all(b"6\n").unwrap();
        assert_eq!(lines(&mut reader), ["6"], "the new one is empty");
        writer.write_all(b"7\n").unwrap();
        next.write_all(b"8\n9").unwrap();
        assert_eq!(lines(&mut reader), ["7", "8"]);
        assert_eq!(reader.rest().as_deref(), Some("9"));
        assert_eq!(reader.rest(), None);
        assert_eq!(
            RankLog::new(log.path.clone()).read_last(2).unwrap(),
            ["7", "8"]
        );
    }

    #[test]
    fn what_was_deleted_under_a_reader_is_left_behind() {
        let log = Log::new();
        log.open().write_all(b"1\n").unwrap();
        let mut reader = RankLog::new(log.path.clone());
        assert_eq!(lines(&mut reader), ["1"]);
        fs::remove_file(&log.path).unwrap();
        assert!(lines(&mut reader).is_empty());
        log.open().write_all(b"2\n").unwrap();
        assert_eq!(lines(&mut reader), ["2"]);
    }

    #[test]
    fn a_line_that_never_ends_is_cut() {
        let log = Log::new();
        log.open()
            .write_all(&vec![b'x'; 2 * LONGEST_LINE + 10])
            .unwrap();
        let mut reader = RankLog::new(log.path.clone());
        let pieces = lines(&mut reader);
        assert!(!pieces.is_empty());
        let rest = reader.rest().unwrap_or_default();
        let whole: usize = pieces.iter().map(String::len).sum::<usize>() + rest.len();
        assert_eq!(whole, 2 * LONGEST_LINE + 10);
    }
}
