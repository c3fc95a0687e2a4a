//! What ranks have printed: the last words of one that failed without a report, and all of it for a reader.

mod rank_log;
mod view;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

pub use view::{LogLine, LogQuery, Logs};

const LINES: usize = 5;
const BYTES: u64 = 2048;

/// The last lines that are not empty, joined by ` | `; empty where there is nothing to read.
pub(crate) fn last_words(log: &Path) -> String {
    let mut text = tail(log, BYTES).unwrap_or_default();
    if text.len() < BYTES as usize / 2 {
        // It may have been rotated a moment ago.
        let older = tail(&rank_log::rotated(log, 1), BYTES).unwrap_or_default();
        text.insert_str(0, &older);
    }
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let mut lines: Vec<String> = text
        .lines()
        .rev()
        .map(|line| line.trim().chars().map(printable).collect())
        .filter(|line: &String| !line.is_empty())
        .take(LINES)
        .collect();
    lines.reverse();
    lines.join(" | ")
}

/// Up to `bytes` from the end of a file, from the beginning of a line on.
pub(crate) fn tail(path: &Path, bytes: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let start = length.saturating_sub(bytes);
    file.seek(SeekFrom::Start(start))?;
    let mut read = Vec::new();
    file.take(bytes).read_to_end(&mut read)?;
    let text = String::from_utf8_lossy(&read);
    Ok(match text.split_once('\n') {
        Some((_, whole_lines)) if start > 0 => whole_lines.to_owned(),
        _ => text.into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_in_order_and_escapes_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("rank0.log");
        let filler = "x".repeat(5000);
        std::fs::write(&log, format!("{filler}\na\nb\n\nc\nd\n\u{1b}[31me\nf\n")).unwrap();
        assert_eq!(last_words(&log), "b | c | d |  [31me | f");
        assert_eq!(last_words(&folder.path().join("none")), "");
        std::fs::rename(&log, folder.path().join("rank0.log.1")).unwrap();
        std::fs::write(&log, "g\n").unwrap();
        assert_eq!(last_words(&log), "c | d |  [31me | f | g");
    }
}
