//! `spinectl status --watch`: the same, shown anew until the run ends or somebody stops it.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::text;
use crate::command::block_on;
use crate::{exit, metrics, output};

/// Another screen, and no cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// To the corner; what remains of a line, and of the screen, is wiped after it was written: nothing flickers.
const HOME: &str = "\x1b[H";
const WIPE_LINE: &str = "\x1b[K";
const WIPE_REST: &str = "\x1b[J";

pub fn run(run_dir: &Path, every: Duration, json: bool) -> anyhow::Result<u8> {
    // What is wrong with the directory is said before the screen is another one.
    let mut status = launcher::status(run_dir)?;
    let full_screen = !json && io::stdout().is_terminal();
    block_on(async {
        let mut asked = Asked::listen().context("cannot handle signals")?;
        let screen = match full_screen {
            true => Some(Screen::enter()?),
            false => None,
        };
        loop {
            let over = status.launcher_pid.is_none();
            let shown = text::of(&status);
            match (&screen, json) {
                (Some(screen), _) => screen.draw(&shown)?,
                (None, true) => output::print(&serde_json::to_string(&status)?)?,
                (None, false) => output::print(&format!("{shown}\n"))?,
            }
            let stop = match over {
                true => true,
                false => tokio::select! {
                    () = tokio::time::sleep(every) => false,
                    () = asked.next() => true,
                },
            };
            if stop {
                // What was shown last stays to be read.
                if screen.is_some() {
                    drop(screen);
                    output::print(&shown)?;
                    if let Some(metrics) = metrics::of_run(run_dir)?.filter(|_| over) {
                        output::print(&format!("\n{metrics}"))?;
                    }
                }
                return Ok(exit::DONE);
            }
            status = launcher::status(run_dir)?;
        }
    })?
}

/// Requests to end the watching.
struct Asked {
    interrupt: Signal,
    terminate: Signal,
}

impl Asked {
    fn listen() -> io::Result<Self> {
        Ok(Asked {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// The terminal's other screen; the first one is back when this is dropped, and before a panic is told.
struct Screen;

impl Screen {
    fn enter() -> anyhow::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let tell = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                leave();
                tell(panic);
            }));
        });
        let screen = Screen;
        write(ENTER)?;
        Ok(screen)
    }

    fn draw(&self, text: &str) -> anyhow::Result<()> {
        let (rows, columns) = console::Term::stdout().size();
        write(&frame(text, rows.into(), columns.into()))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

fn leave() {
    // There is no one to tell.
    let _ = write(LEAVE);
}

fn write(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    written.context("cannot write to the terminal")
}

/// The text as a screen of this size shows it: what is too wide or too long is cut, as it would scroll the rest away.
fn frame(text: &str, rows: usize, columns: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut frame = String::from(HOME);
    let fits = lines.len() <= rows;
    let shown = match fits {
        true => lines.len(),
        false => rows.saturating_sub(1),
    };
    for (index, line) in lines.iter().take(shown).enumerate() {
        if index > 0 {
            frame.push_str("\r\n");
        }
        frame.push_str(&console::truncate_str(line, columns, "…"));
        frame.push_str(WIPE_LINE);
    }
    if !fits {
        frame.push_str(&format!(
            "\r\n… {} more lines{WIPE_LINE}",
            lines.len() - shown
        ));
    }
    frame.push_str(WIPE_REST);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_never_exceeds_the_screen() {
        let text = "a line that is wide\n2\n3\n4\n";
        let cut = frame(text, 3, 6);
        assert!(
            cut.starts_with(&format!("{HOME}a lin…{WIPE_LINE}\r\n2{WIPE_LINE}\r\n… 2")),
            "{cut:?}"
        );
        assert_eq!(cut.matches("\r\n").count(), 2);
        let whole = frame(text, 4, 80);
        assert_eq!(whole.matches("\r\n").count(), 3);
        assert!(whole.ends_with(&format!("4{WIPE_LINE}{WIPE_REST}")));
    }
}
