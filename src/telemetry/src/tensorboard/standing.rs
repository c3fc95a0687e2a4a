//! What a reader has of a step already: an evaluation that a resume repeats is written once.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use prost::Message;

use super::message::{Event, SESSION_START, Summary, What};
use super::{record, summary, writer};

/// What the event files of a directory hold of one step, as far as no restart has taken it back.
#[derive(Debug, Default)]
pub(super) struct Standing {
    step: i64,
    tags: BTreeSet<String>,
    /// Bytes of all pictures and histograms in the files, taken back or not.
    pub shown_bytes: u64,
}

impl Standing {
    /// Reads the files in the order in which readers do. What cannot be read stands nowhere.
    pub fn at(directory: &Path, step: u64) -> Self {
        let mut standing = Standing {
            step: signed(step),
            ..Standing::default()
        };
        for path in writer::event_files(directory).unwrap_or_default() {
            let Ok(file) = File::open(path) else {
                continue;
            };
            let mut file = BufReader::new(file);
            while let Some(event) = record::next(&mut file) {
                let bytes = event.len() as u64;
                let Ok(event) = Event::decode(&event[..]) else {
                    break;
                };
                standing.take(event, bytes);
            }
        }
        standing
    }

    fn take(&mut self, event: Event, bytes: u64) {
        match event.what {
            Some(What::SessionLog(log))
                if log.status == SESSION_START && event.step <= self.step =>
            {
                self.tags.clear();
            }
            Some(What::Summary(Summary { value })) => {
                if value.iter().any(summary::is_large) {
                    self.shown_bytes += bytes;
                }
                if event.step == self.step {
                    self.tags.extend(value.into_iter().map(|value| value.tag));
                }
            }
            _ => {}
        }
    }

    /// Whether a reader lacks this tag at this step, as far as was looked.
    pub fn lacks(&self, step: u64, tag: &str) -> bool {
        signed(step) != self.step || !self.tags.contains(tag)
    }
}

/// A step as event files hold it.
fn signed(step: u64) -> i64 {
    i64::try_from(step).unwrap_or(i64::MAX)
}
