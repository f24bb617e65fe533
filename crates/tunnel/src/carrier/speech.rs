//! Messages on a stream: one is read or written at a time, and what follows a message stays in the stream.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

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
    let mut heard = Heard { stream, bytes: Vec::new() };
    loop {
        if let Some((message, len)) = codec::decode(&heard.bytes, limit)? {
            heard.bytes.drain(..len);
            return Ok(message);
        }
        let wanted = match heard.bytes.len() {
            0 => FIRST,
            have => (codec::needed(&heard.bytes, limit)? - have).min(MORE),
        };
        heard.more(wanted).await?;
    }
}

/// What was read of a message, given back to the stream unless it is consumed.
struct Heard<'a> {
    stream: &'a Stream,
    bytes: Vec<u8>,
}

impl Heard<'_> {
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
