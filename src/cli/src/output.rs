//! Writing to stdout and stderr, whose readers may go away at any time.

use std::fmt;
use std::io::{self, Write};

use anyhow::Context;
use serde::Serialize;

/// Nobody reads stdout any more: an end, and no error.
#[derive(Debug)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stdout was closed")
    }
}

impl std::error::Error for Closed {}

/// Writes a result to stdout, with a newline where it has none.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = match text.ends_with('\n') {
        true => write!(stdout, "{text}"),
        false => writeln!(stdout, "{text}"),
    };
    match written.and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Closed.into()),
        result => result.map_err(|error| anyhow::anyhow!("cannot write to stdout: {error}")),
    }
}

/// Writes a result to stdout as indented JSON.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value).context("cannot write the result as JSON")?;
    print(&text)
}

/// Writes a line to stderr; where nobody reads it there is nothing to be done.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Adds a line of somebody else's to a text. Control characters are written as `\x1b`: escape sequences are not for the
/// terminal of whoever reads it.
pub fn push_printable(text: &mut String, line: &str) {
    for c in line.chars() {
        match c {
            '\t' => text.push(c),
            c if c.is_control() => text.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_a_terminal_is_written_out() {
        let mut text = String::new();
        push_printable(&mut text, "a\tb\x1b[31m\r\u{9b}2J é");
        assert_eq!(text, "a\tb\\x1b[31m\\x0d\\x9b2J é");
    }
}
