//! One event file: scalars, values of plugins and restarts, buffered.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use prost::Message;

use super::Error;
use super::message::{Event, SESSION_START, SessionLog, Summary, SummaryValue, Value, What};
use super::record;

const FILE_VERSION: &str = "brain.Event:2";
const NAME_PREFIX: &str = "events.out.tfevents.";
const BUFFER: usize = 1 << 16;

/// Files that this process has begun: part of their names.
static FILES: AtomicU64 = AtomicU64::new(0);

/// Writes one event file. After an error, which is reported once, it is silent: what it is given it
/// drops, and every call succeeds.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    /// None after an error.
    file: Option<BufWriter<File>>,
    /// Kept to be used again.
    record: Vec<u8>,
}

impl Writer {
    /// Begins a new file in `directory`, which is made if need be; `wall_time` (seconds since the
    /// Unix epoch) goes into its name, which sorts behind those of all files there.
    pub fn create(directory: &Path, wall_time: f64) -> Result<Self, Error> {
        let (path, file) = create_file(directory, wall_time).map_err(|source| Error::Write {
            path: directory.to_owned(),
            source,
        })?;
        let mut writer = Writer {
            path,
            file: Some(BufWriter::with_capacity(BUFFER, file)),
            record: Vec::new(),
        };
        writer.event(0, wall_time, What::FileVersion(FILE_VERSION.to_owned()))?;
        writer.flush()?;
        Ok(writer)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One value; TensorBoard keeps it as an `f32`.
    pub fn scalar(
        &mut self,
        tag: &str,
        step: u64,
        value: f64,
        wall_time: f64,
    ) -> Result<(), Error> {
        self.scalars(step, wall_time, [(tag, value)])
    }

    /// Several values of one step, as one record; none where there are none.
    pub fn scalars<T: Into<String>>(
        &mut self,
        step: u64,
        wall_time: f64,
        values: impl IntoIterator<Item = (T, f64)>,
    ) -> Result<(), Error> {
        let value: Vec<SummaryValue> = values
            .into_iter()
            .map(|(tag, value)| SummaryValue {
                tag: tag.into(),
                metadata: None,
                value: Some(Value::SimpleValue(value as f32)),
            })
            .collect();
        match value.is_empty() {
            true => Ok(()),
            false => self.event(step, wall_time, What::Summary(Summary { value })),
        }
    }

    /// One value of any plugin's.
    pub(super) fn value(
        &mut self,
        step: u64,
        value: SummaryValue,
        wall_time: f64,
    ) -> Result<(), Error> {
        let value = vec![value];
        self.event(step, wall_time, What::Summary(Summary { value }))
    }

    /// Says that steps are counted anew from `first_step`: TensorBoard forgets what this and earlier
    /// files of the directory hold for it and for later steps. After a resume from the checkpoint of
    /// step n, that is n + 1: the record of step n itself still stands.
    pub fn restart(&mut self, first_step: u64, wall_time: f64) -> Result<(), Error> {
        let status = SESSION_START;
        self.event(
            first_step,
            wall_time,
            What::SessionLog(SessionLog { status }),
        )
    }

    /// Removes the event files beside this one. What cannot be removed is left: a restart has taken back what it holds.
    pub(super) fn remove_others(&self) {
        let files = self.path.parent().map(event_files);
        for file in files.and_then(Result::ok).into_iter().flatten() {
            if file != self.path {
                let _ = fs::remove_file(file);
            }
        }
    }

    /// Hands what is buffered to the operating system, so that TensorBoard sees it.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.attempt(|file, _| file.flush())
    }

    fn event(&mut self, step: u64, wall_time: f64, what: What) -> Result<(), Error> {
        let event = Event {
            wall_time,
            step: i64::try_from(step).unwrap_or(i64::MAX),
            what: Some(what),
        };
        self.attempt(|file, record| {
            record.clear();
            record::append(record, &event.encode_to_vec());
            file.write_all(record)
        })
    }

    fn attempt(
        &mut self,
        write: impl FnOnce(&mut BufWriter<File>, &mut Vec<u8>) -> io::Result<()>,
    ) -> Result<(), Error> {
        let Some(mut file) = self.file.take() else {
            return Ok(());
        };
        match write(&mut file, &mut self.record) {
            Ok(()) => {
                self.file = Some(file);
                Ok(())
            }
            Err(source) => {
                // Without its buffer: half a record may be written, nothing can follow it.
                drop(file.into_parts());
                let path = self.path.clone();
                Err(Error::Write { path, source })
            }
        }
    }
}

/// `events.out.tfevents.<seconds>.<host>.<pid>.<counter>`, which no other writer has.
fn create_file(directory: &Path, wall_time: f64) -> io::Result<(PathBuf, File)> {
    make_directory(directory)?;
    // Readers take the files by name: a new one sorts last, also where the clock has been set back.
    let mut seconds = wall_time as u64;
    for earlier in event_files(directory)?.iter().filter_map(seconds_of) {
        seconds = seconds.max(earlier.saturating_add(1));
    }
    let (host, process) = (host_name(), std::process::id());
    let counter = FILES.fetch_add(1, Ordering::Relaxed);
    let path = directory.join(format!(
        "{NAME_PREFIX}{seconds:010}.{host}.{process}.{counter}"
    ));
    let file = File::create_new(&path)?;
    Ok((path, file))
}

/// Makes it and the one above it; not the run's: one that was deleted is not begun anew.
fn make_directory(directory: &Path) -> io::Result<()> {
    for folder in directory.parent().into_iter().chain([directory]) {
        match fs::create_dir(folder) {
            Err(error) if !folder.is_dir() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The event files of a directory, in the order in which readers take them; other files are none of theirs.
pub(super) fn event_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_file() && seconds_of(&path).is_some() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The seconds in an event file's name.
fn seconds_of(path: impl AsRef<Path>) -> Option<u64> {
    let name = path.as_ref().file_name()?.to_str()?;
    let (seconds, _) = name.strip_prefix(NAME_PREFIX)?.split_once('.')?;
    seconds.parse().ok()
}

/// The machine's name without its domain, such as it can stand in a file's name.
fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '-')
        .collect();
    if name.is_empty() {
        "localhost".to_owned()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_sorts_behind_the_others_whatever_the_clock_says() {
        let folder = tempfile::tempdir().unwrap();
        let mut names = Vec::new();
        for wall_time in [
            1_700_000_000.9,
            1_700_000_000.2,
            1_600_000_000.0,
            f64::NAN,
            1_700_000_100.0,
        ] {
            let writer = Writer::create(folder.path(), wall_time).unwrap();
            names.push(
                writer
                    .path()
                    .file_name()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned(),
            );
        }
        let mut sorted = names.clone();
        sorted.sort();
        assert_eq!(names, sorted);
        let seconds: Vec<_> = names.iter().map(|name| seconds_of(name).unwrap()).collect();
        assert_eq!(
            seconds,
            [
                1_700_000_000,
                1_700_000_001,
                1_700_000_002,
                1_700_000_003,
                1_700_000_100
            ]
        );
    }

    #[test]
    fn an_error_is_told_once_and_then_the_writer_is_silent() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(folder.path(), 1.0).unwrap();
        writer.file = Some(BufWriter::new(
            File::options().write(true).open("/dev/full").unwrap(),
        ));

        writer.scalar("train/loss", 1, 0.5, 1.0).unwrap();
        let error = writer.flush().unwrap_err().to_string();
        assert!(
            error.contains("training goes on") && error.contains("No space left"),
            "{error}"
        );
        for step in 2..10_000 {
            writer.scalar("train/loss", step, 0.5, 1.0).unwrap();
        }
        writer.flush().unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let error = Writer::create(Path::new("/dev/null/tensorboard"), 1.0).unwrap_err();
        assert!(
            error.to_string().contains("/dev/null/tensorboard"),
            "{error}"
        );
    }
}
