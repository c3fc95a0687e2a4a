//! Lines of a ledger, each held against the one before it.

use std::io;
use std::path::Path;

use super::{BEGINNING, Record, link};

const HASH: &str = "{\"sha256\":\"";
const DIGITS: usize = BEGINNING.len();

/// A whole line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Counted from 1.
    pub number: usize,
    /// The hash that it states.
    pub hash: String,
    pub record: Record,
}

/// A line that is not what was written, or not where it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Break {
    #[error(
        "line {line} is not what was written: it states the hash {stated:.12}.., and after the line before it its content \
         comes to {found:.12}..; the line was changed, or a line before it was taken out or put in"
    )]
    Hash {
        line: usize,
        stated: String,
        found: String,
    },
    #[error("line {line} cannot be read: {problem}")]
    Form { line: usize, problem: String },
}

impl Break {
    pub fn line(&self) -> usize {
        match self {
            Break::Hash { line, .. } | Break::Form { line, .. } => *line,
        }
    }
}

/// A ledger as its file holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub lines: Vec<Line>,
    /// The hash that the last line states.
    pub head: String,
    pub breaks: Vec<Break>,
    /// Bytes of a last line that was never finished: its writer was killed.
    pub torn: usize,
}

impl Chain {
    /// # Errors
    /// What the operating system says.
    pub fn read(path: &Path) -> io::Result<Self> {
        Ok(Self::parse(&std::fs::read(path)?))
    }

    /// Reads all lines. One that does not fit is noted and the chain goes on with the hash that it states, so that every
    /// place that was touched is found, and not only the first.
    pub fn parse(bytes: &[u8]) -> Self {
        let whole = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        let mut chain = Chain {
            lines: Vec::new(),
            head: BEGINNING.to_owned(),
            breaks: Vec::new(),
            torn: bytes.len() - whole,
        };
        let lines = bytes[..whole].split_inclusive(|byte| *byte == b'\n');
        for (number, line) in (1..).zip(lines) {
            let (hash, content) = match parts(line.strip_suffix(b"\n").unwrap_or(line)) {
                Ok(parts) => parts,
                Err(problem) => {
                    let line = number;
                    chain.breaks.push(Break::Form { line, problem });
                    continue;
                }
            };
            let found = link(&chain.head, &content);
            if found != hash {
                chain.breaks.push(Break::Hash {
                    line: number,
                    stated: hash.to_owned(),
                    found,
                });
            }
            chain.head = hash.to_owned();
            match serde_json::from_str(&content) {
                Ok(record) => chain.lines.push(Line {
                    number,
                    hash: chain.head.clone(),
                    record,
                }),
                Err(error) => chain.breaks.push(Break::Form {
                    line: number,
                    problem: error.to_string(),
                }),
            }
        }
        chain
    }

    /// The line of update `step` with this hash.
    pub fn find(&self, step: u64, hash: &str) -> Option<&Line> {
        let is_it = |line: &&Line| {
            line.hash == hash
                && matches!(&line.record, Record::Update(update) if update.step == step)
        };
        self.lines.iter().find(is_it)
    }
}

/// A line's own hash, and its content as it was hashed.
fn parts(line: &[u8]) -> Result<(&str, String), String> {
    let text = std::str::from_utf8(line).map_err(|error| error.to_string())?;
    let no_hash = || "it does not begin with its hash".to_owned();
    let rest = text.strip_prefix(HASH).ok_or_else(no_hash)?;
    let (hash, rest) = rest.split_at_checked(DIGITS).ok_or_else(no_hash)?;
    let content = rest.strip_prefix("\",").ok_or_else(no_hash)?;
    match hash.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        true => Ok((hash, format!("{{{content}"))),
        false => Err(no_hash()),
    }
}

/// A line with its hash in front, and the hash.
pub(super) fn line(before: &str, record: &Record) -> serde_json::Result<(String, String)> {
    let content = serde_json::to_string(record)?;
    let hash = link(before, &content);
    // The content is an object: what follows its opening brace follows the hash.
    let text = format!("{HASH}{hash}\",{}\n", &content[1..]);
    Ok((text, hash))
}
