//! How far a run has come, from the events that it writes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::Context;
use event::{EventKind, RunEvent};

use super::course::Course;

/// All events of a run.
pub fn events(run: &Path) -> anyhow::Result<Vec<RunEvent>> {
    Tail::new(run).read()
}

/// Reads what was added to `events.jsonl` since the last time.
struct Tail {
    path: PathBuf,
    offset: u64,
    /// The beginning of a line that is not written to its end yet.
    partial: Vec<u8>,
}

impl Tail {
    fn new(run: &Path) -> Self {
        Tail {
            path: run.join("events.jsonl"),
            offset: 0,
            partial: Vec::new(),
        }
    }

    /// The new events in order; lines that are none (a launcher that is killed leaves half of one) are passed over.
    fn read(&mut self) -> anyhow::Result<Vec<RunEvent>> {
        let mut read = || {
            let mut file = match File::open(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
                file => file?,
            };
            file.seek(SeekFrom::Start(self.offset))?;
            file.read_to_end(&mut self.partial)
        };
        let read = read().with_context(|| format!("cannot read {}", self.path.display()))?;
        self.offset += read as u64;
        let whole = self.partial.iter().rposition(|byte| *byte == b'\n');
        let lines = self.partial.drain(..whole.map_or(0, |end| end + 1));
        let text = lines.collect::<Vec<u8>>();
        let text = String::from_utf8_lossy(&text);
        let events = text.lines().filter_map(|line| event::parse_line(line).ok());
        Ok(events.collect())
    }
}

/// A run that is being disturbed.
pub struct Watch<'a> {
    tail: Tail,
    course: &'a Course,
    /// The furthest place of the course that it has reached.
    pub place: Option<usize>,
    /// The last update that was told of: its job and number.
    pub update: Option<(String, u64)>,
    /// Ranks that failed, and jobs that ended well.
    pub failures: usize,
    pub finished: usize,
    furthest: BTreeMap<String, u64>,
    repeated: u64,
}

impl<'a> Watch<'a> {
    pub fn new(run: &Path, course: &'a Course) -> Self {
        Watch {
            tail: Tail::new(run),
            course,
            place: None,
            update: None,
            failures: 0,
            finished: 0,
            furthest: BTreeMap::new(),
            repeated: 0,
        }
    }

    /// Takes in what has happened since the last look.
    pub fn look(&mut self) -> anyhow::Result<()> {
        for event in self.tail.read()? {
            self.take(event);
        }
        Ok(())
    }

    fn take(&mut self, event: RunEvent) {
        self.place = self.place.max(self.course.place(&event));
        match event.kind {
            EventKind::Step(step) if event.rank.is_none_or(|rank| rank == 0) => {
                let job = event.job.unwrap_or_default();
                let furthest = self.furthest.entry(job.clone()).or_default();
                if step.step <= *furthest {
                    self.repeated += 1;
                }
                *furthest = step.step.max(*furthest);
                self.update = Some((job, step.step));
            }
            EventKind::RankFailed(_) => self.failures += 1,
            EventKind::JobFinished { .. } => self.finished += 1,
            _ => {}
        }
    }

    /// Updates that were done once more since the last call.
    pub fn take_repeated(&mut self) -> u64 {
        std::mem::take(&mut self.repeated)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use event::StepRecord;

    use super::*;

    fn step(step: u64) -> String {
        let step = StepRecord {
            step,
            ..StepRecord::default()
        };
        event::to_line(&RunEvent::job("job", 1, EventKind::Step(step))).unwrap()
    }

    #[test]
    fn updates_that_are_done_again_are_counted_from_any_pieces_of_lines() {
        let folder = tempfile::tempdir().unwrap();
        let course = Course::of(&[], 0.0);
        let mut watch = Watch::new(folder.path(), &course);
        watch.look().unwrap();
        assert_eq!(watch.update, None);

        let torn = &step(4)[..9];
        let text: String =
            [1, 2, 3].map(step).concat() + torn + "\n" + &[2, 3, 4].map(step).concat();
        let mut file = File::create(folder.path().join("events.jsonl")).unwrap();
        for piece in text.as_bytes().chunks(7) {
            file.write_all(piece).unwrap();
            watch.look().unwrap();
        }
        assert_eq!(watch.update, Some(("job".into(), 4)));
        assert_eq!(watch.take_repeated(), 2);
        assert_eq!(watch.take_repeated(), 0);
    }
}
