//! What ranks say, read from their sockets into one ordered stream, each rank's end after its last word.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;

use event::RunEvent;
use plan::JobId;
use tokio::sync::mpsc::Sender;

use crate::pidfd::Pidfd;

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
    /// The process has ended and can be reaped; nothing follows.
    Ended,
}

/// Reads a rank's events up to the end of its process.
pub(crate) async fn listen(
    speaker: Speaker,
    stream: UnixStream,
    process: Pidfd,
    to: Sender<(usize, Message)>,
) {
    // A closed receiver means that the supervisor is gone and nobody needs the rest.
    let _ = relay(speaker, stream, process, to).await;
}

/// The supervisor no longer listens.
struct Gone;

async fn relay(
    speaker: Speaker,
    stream: UnixStream,
    process: Pidfd,
    to: Sender<(usize, Message)>,
) -> Result<(), Gone> {
    let rank = speaker.rank;
    let mut lines = Lines::default();
    let mut chunk = vec![0; 16 << 10];
    let send = async |messages: Vec<Message>| {
        for message in messages {
            to.send((rank, message)).await.map_err(|_| Gone)?;
        }
        Ok(())
    };
    let nonblocking = stream.set_nonblocking(true);
    let stream = nonblocking.and_then(|()| tokio::net::UnixStream::from_std(stream));
    if let Ok(stream) = stream {
        loop {
            tokio::select! {
                () = process.ended() => break,
                ready = stream.readable() => match ready.and_then(|()| stream.try_read(&mut chunk)) {
                    Ok(0) => break,
                    Ok(read) => {
                        let read = chunk.get(..read).unwrap_or_default();
                        send(lines.push(&speaker, read)).await?;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => break,
                },
            }
        }
        process.ended().await;
        // What it wrote before its end is in the socket now; a child of it that holds the socket
        // open must not keep us.
        if let Ok(mut stream) = stream.into_std() {
            let mut read_in_all = 0;
            while let Ok(read @ 1..) = stream.read(&mut chunk) {
                send(lines.push(&speaker, chunk.get(..read).unwrap_or_default())).await?;
                read_in_all += read;
                if read_in_all > LAST_WORDS {
                    break;
                }
            }
        }
    }
    process.ended().await;
    send(vec![Message::Ended]).await
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
