//! Messages on a stream: one is read or written at a time, and what follows a message stays in the stream.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use tokio::time::timeout;
use wmproxy_net::stream::Stream;
use wmproxy_wire::tunnel::codec::{self, CodecError};
use wmproxy_wire::tunnel::message::Message;

/// How much is asked for where nothing is known of the message yet: as much as any takes but a registration. What was read
/// too much is given back.
const FIRST: usize = 512;

/// How much is asked for at once where that is known. A buffer grows with what has come, whatever the length says.
const MORE: usize = 16 * 1024;

/// Why no message was read.
#[derive(Debug, thiserror::Error)]
pub enum SpeechError {
    /// The other side ended in good order, and not in the middle of a message.
    #[error("the other side has ended")]
    Ended,
    /// The stream failed, or ended in the middle of a message.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What came is no message.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// Reads one message, of at most `limit` bytes as the [codec](codec::decode) counts them. What follows it stays in the stream; if the future is
/// dropped, so does what came of the message.
///
/// # Errors
/// There is none, see [`SpeechError`].
pub async fn read_message(stream: &Stream, limit: usize) -> Result<Message, SpeechError> {
    Heard { stream, bytes: Vec::new() }.message(limit).await
}

/// The same, where a message may be long in coming, and once it has begun has to be there `within` so long.
///
/// # Errors
/// As [`read_message`]; [`io::ErrorKind::TimedOut`] where the rest is late.
pub async fn read_message_begun(
    stream: &Stream,
    limit: usize,
    within: Duration,
) -> Result<Message, SpeechError> {
    let mut heard = Heard { stream, bytes: Vec::new() };
    heard.more(FIRST).await?;
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    timeout(within, heard.message(limit)).await.map_err(late)?
}

/// What was read of a message, given back to the stream unless it is consumed.
struct Heard<'a> {
    stream: &'a Stream,
    bytes: Vec<u8>,
}

impl Heard<'_> {
    async fn message(&mut self, limit: usize) -> Result<Message, SpeechError> {
        loop {
            if let Some((message, len)) = codec::decode(&self.bytes, limit)? {
                self.bytes.drain(..len);
                return Ok(message);
            }
            let wanted = match self.bytes.len() {
                0 => FIRST,
                have => (codec::needed(&self.bytes, limit)? - have).min(MORE),
            };
            self.more(wanted).await?;
        }
    }

    async fn more(&mut self, wanted: usize) -> Result<(), SpeechError> {
        let have = self.bytes.len();
        let stream = self.stream;
        let bytes = &mut self.bytes;
        // The room is there during a poll only, so that whoever waits for a message holds nothing for it.
        let read = poll_fn(|cx| {
            bytes.resize(have + wanted, 0);
            let read = stream.poll_read(cx, &mut bytes[have..]);
            bytes.truncate(match &read {
                Poll::Ready(Ok(n)) => have + n,
                _ => have,
            });
            if bytes.is_empty() {
                *bytes = Vec::new();
            }
            read
        })
        .await?;
        match (read, have) {
            (0, 0) => Err(SpeechError::Ended),
            (0, _) => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            _ => Ok(()),
        }
    }
}

impl Drop for Heard<'_> {
    fn drop(&mut self) {
        self.stream.unread(std::mem::take(&mut self.bytes));
    }
}

/// Writes one message. If the future is dropped, a part of it may have been written, and the stream is of no more use.
///
/// # Errors
/// The stream failed.
pub async fn write_message(stream: &Stream, message: &Message) -> io::Result<()> {
    let mut bytes = Vec::new();
    codec::encode(message, &mut bytes);
    write_all(stream, &bytes).await
}

/// Writes all of `bytes`.
///
/// # Errors
/// The stream failed.
pub async fn write_all(stream: &Stream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = poll_fn(|cx| stream.poll_write(cx, bytes)).await?;
        bytes = &bytes[written..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use wmproxy_wire::tunnel::message::{Register, Service};

    use super::super::tests::{finish, read, run, sockets};
    use super::*;

    const LIMIT: usize = 100_000;

    fn bytes_of(message: &Message) -> Vec<u8> {
        let mut bytes = Vec::new();
        codec::encode(message, &mut bytes);
        bytes
    }

    #[test]
    fn what_follows_a_message_stays_in_the_stream() {
        run(async {
            let (near, far) = sockets();
            let mut bytes = bytes_of(&Message::Ping(7));
            bytes.extend(bytes_of(&Message::Leaving));
            bytes.extend(b"and data");
            write_all(&near, &bytes).await.unwrap();
            assert_eq!(read_message(&far, LIMIT).await.unwrap(), Message::Ping(7));
            assert_eq!(read_message(&far, LIMIT).await.unwrap(), Message::Leaving);
            assert_eq!(read(&far, 100).await.unwrap(), b"and data");
            finish(&near).await.unwrap();
            assert!(matches!(read_message(&far, LIMIT).await, Err(SpeechError::Ended)));
        });
    }

    #[test]
    fn long_messages_and_those_that_come_in_pieces_are_whole() {
        let services = vec![service(); 200];
        let long = Message::Register(Register { epoch: 1, services });
        run(async {
            let (near, far) = sockets();
            let bytes = bytes_of(&long);
            assert!(bytes.len() > 10 * FIRST && bytes.len() < LIMIT);
            let send = async {
                for piece in bytes.chunks(501) {
                    write_all(&near, piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                for byte in bytes_of(&Message::Pong(8)) {
                    write_all(&near, &[byte]).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let receive = async {
                assert_eq!(read_message(&far, LIMIT).await.unwrap(), long);
                assert_eq!(read_message(&far, LIMIT).await.unwrap(), Message::Pong(8));
            };
            tokio::join!(send, receive);
        });
    }

    fn service() -> Service {
        Service {
            id: 1,
            name: "a name of some length".into(),
            kind: wmproxy_wire::tunnel::message::Kind::Tcp,
            is_private: false,
            port: 22,
            hosts: vec!["host.example".into()],
            paths: Vec::new(),
            visitors: Vec::new(),
            clients: Vec::new(),
            group: None,
            is_up: true,
            terminate: false,
            max_connections: 0,
            rate_up: 0,
            rate_down: 0,
            http: Default::default(),
        }
    }

    #[test]
    fn who_gives_up_in_the_middle_of_a_message_loses_nothing_of_it() {
        run(async {
            let (near, far) = sockets();
            let bytes = bytes_of(&Message::Ping(9));
            let (front, back) = bytes.split_at(8);
            write_all(&near, front).await.unwrap();
            let wait = Duration::from_millis(20);
            assert!(timeout(wait, read_message(&far, LIMIT)).await.is_err());
            write_all(&near, back).await.unwrap();
            assert_eq!(read_message(&far, LIMIT).await.unwrap(), Message::Ping(9));
        });
    }

    #[test]
    fn what_is_no_message_is_told_apart() {
        run(async {
            let (near, far) = sockets();
            write_all(&near, &[0, 1, 0xff, 0xff, 0xff, 0xff]).await.unwrap();
            assert!(matches!(read_message(&far, LIMIT).await, Err(SpeechError::Codec(_))));

            let (near, far) = sockets();
            write_all(&near, &bytes_of(&Message::Ping(9))[..7]).await.unwrap();
            finish(&near).await.unwrap();
            match read_message(&far, LIMIT).await {
                Err(SpeechError::Io(error)) => assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof),
                other => panic!("{other:?}"),
            }
        });
    }
}
