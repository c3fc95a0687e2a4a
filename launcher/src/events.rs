//! What ranks say, read from their sockets into one ordered stream, each rank's end after its last word.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;

use event::RunEvent;
use plan::JobId;
use tokio::sync::mpsc::Sender;

use crate::exit::Exit;
use crate::lifeline::{Change, Life};

/// Longer lines are no events.
const LONGEST_LINE: usize = 1 << 20;
/// More than a socket holds: what is still read once the process has ended.
const LAST_WORDS: usize = 4 << 20;

/// Who speaks. Events are stamped with it, whatever they say themselves.
#[derive(Clone, Debug)]
pub(crate) struct Speaker {
    pub job: Option<JobId>,
    pub attempt: Option<u32>,
    pub rank: usize,
}

#[derive(Debug)]
pub(crate) enum Message {
    /// An event of the rank.
    Event(Box<RunEvent>),
    /// A line that is not an event, and why.
    Nonsense(String),
    /// The process begins to die, and will have ended so; what it had to say has been said.
    Dying(Exit),
    /// The process has ended and can be reaped; nothing follows.
    Ended,
}

/// Reads a rank's events up to the end of its process.
pub(crate) async fn listen(
    speaker: Speaker,
    stream: UnixStream,
    life: Life,
    to: Sender<(usize, Message)>,
) {
    // A closed receiver means that the supervisor is gone and nobody needs the rest.
    let _ = relay(speaker, stream, life, to).await;
}

/// The supervisor no longer listens.
struct Gone;

async fn relay(
    speaker: Speaker,
    stream: UnixStream,
    mut life: Life,
    to: Sender<(usize, Message)>,
) -> Result<(), Gone> {
    let rank = speaker.rank;
    let mut lines = Lines::default();
    let mut chunk = vec![0; 16 << 10];
    let nonblocking = stream.set_nonblocking(true);
    let both = nonblocking.and_then(|()| {
        let direct = stream.try_clone()?;
        Ok((direct, tokio::net::UnixStream::from_std(stream)?))
    });
    if let Ok((mut direct, stream)) = both {
        loop {
            tokio::select! {
                change = life.change() => match change {
                    Change::Ended => break,
                    Change::Dies(exit) => {
                        last_words(&speaker, &mut direct, &mut lines, &to).await?;
                        send(&to, rank, vec![Message::Dying(exit)]).await?;
                    }
                },
                ready = stream.readable() => match ready.and_then(|()| stream.try_read(&mut chunk)) {
                    Ok(0) => break,
                    Ok(read) => {
                        life.speaks();
                        let read = chunk.get(..read).unwrap_or_default();
                        send(&to, rank, lines.push(&speaker, read)).await?;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => break,
                },
            }
        }
        life.end().await;
        last_words(&speaker, &mut direct, &mut lines, &to).await?;
    }
    life.end().await;
    send(&to, rank, vec![Message::Ended]).await
}

async fn send(
    to: &Sender<(usize, Message)>,
    rank: usize,
    messages: Vec<Message>,
) -> Result<(), Gone> {
    for message in messages {
        to.send((rank, message)).await.map_err(|_| Gone)?;
    }
    Ok(())
}

/// Takes what a rank has written from its socket, whether the runtime knows of it yet or not; a child of it that holds the
/// socket open and writes on must not keep us.
async fn last_words(
    speaker: &Speaker,
    from: &mut UnixStream,
    lines: &mut Lines,
    to: &Sender<(usize, Message)>,
) -> Result<(), Gone> {
    let mut chunk = vec![0; 16 << 10];
    let mut read_in_all = 0;
    while read_in_all <= LAST_WORDS
        && let Ok(read @ 1..) = from.read(&mut chunk)
    {
        let read = chunk.get(..read).unwrap_or_default();
        send(to, speaker.rank, lines.push(speaker, read)).await?;
        read_in_all += read.len();
    }
    Ok(())
}

/// Bytes put together to lines.
#[derive(Debug, Default)]
struct Lines {
    partial: Vec<u8>,
    /// The line that is being read is too long and thrown away.
    overlong: bool,
}

impl Lines {
    fn push(&mut self, speaker: &Speaker, bytes: &[u8]) -> Vec<Message> {
        let mut messages = Vec::new();
        let mut pieces = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            if self.partial.len() + piece.len() > LONGEST_LINE {
                self.overlong = true;
            }
            match self.overlong {
                true => self.partial.clear(),
                false => self.partial.extend_from_slice(piece),
            }
            if pieces.peek().is_some() {
                let line = std::mem::take(&mut self.partial);
                messages.extend(match std::mem::take(&mut self.overlong) {
                    true => Some(Message::Nonsense("a line of more than 1 MiB".into())),
                    false => message(speaker, &line),
                });
            }
        }
        messages
    }
}

fn message(speaker: &Speaker, line: &[u8]) -> Option<Message> {
    let line = String::from_utf8_lossy(line);
    if line.trim().is_empty() {
        return None;
    }
    Some(match event::parse_line(&line) {
        Ok(event) => Message::Event(Box::new(RunEvent {
            job: speaker.job.as_ref().map(JobId::to_string),
            attempt: speaker.attempt,
            rank: Some(speaker.rank),
            ..event
        })),
        Err(error) => Message::Nonsense(error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use event::EventKind;

    use super::*;

    fn speaker() -> Speaker {
        Speaker {
            job: JobId::new("labels"),
            attempt: Some(2),
            rank: 1,
        }
    }

    #[test]
    fn lines_come_together_from_any_pieces_and_carry_their_speaker() {
        let forged = RunEvent::job("another", 9, EventKind::JobStarted { world_size: 1 });
        let line = event::to_line(&forged).unwrap();
        for cut in 0..line.len() {
            let mut lines = Lines::default();
            let mut messages = lines.push(&speaker(), &line.as_bytes()[..cut]);
            messages.extend(lines.push(&speaker(), &line.as_bytes()[cut..]));
            let [Message::Event(event)] = &messages[..] else {
                panic!("{messages:?}");
            };
            assert_eq!(event.job.as_deref(), Some("labels"));
            assert_eq!((event.attempt, event.rank), (Some(2), Some(1)));
        }
    }

    #[test]
    fn an_endless_line_takes_no_memory_and_the_next_one_counts() {
        let mut lines = Lines::default();
        for _ in 0..64 {
            assert!(lines.push(&speaker(), &[b'x'; 1 << 16]).is_empty());
            assert!(lines.partial.capacity() <= 2 * LONGEST_LINE);
        }
        let event = event::to_line(&RunEvent::run(EventKind::JobStarted { world_size: 1 }));
        let messages = lines.push(&speaker(), format!("\n{}", event.unwrap()).as_bytes());
        assert!(
            matches!(messages[..], [Message::Nonsense(_), Message::Event(_)]),
            "{messages:?}"
        );
    }
}
