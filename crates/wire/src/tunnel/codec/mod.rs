//! Messages as bytes.
//!
//! A message is a type of 16 bits, the length of its body in 32 bits, and the body: fields, each of which is a tag of 16
//! bits, the length of its value in 32 bits, and the value. Fields stand in the order of their tags; a list is its tag
//! several times. What is zero, empty, none or no is left out. A value is a number in its full width, most significant byte
//! first; text in UTF-8; bytes as they are; or fields again.
//!
//! So it grows: a field with an unknown tag is passed over, and so is a message with an unknown type above
//! [`PASSED_OVER`]. Any other unknown type is an error.

mod fields;
mod kinds;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::fmt;

use super::message::Message;

/// What stands before a message's body: its type and length.
pub const HEADER_LEN: usize = 6;

/// The most bytes of a message from somebody who has not proven anything yet. All of those messages take a few hundred.
pub const LOGIN_LIMIT: usize = 4 << 10;

/// The most bytes of a message in a session: enough for [`MAX_SERVICES`] services with some hosts and fields each.
pub const LIMIT: usize = 4 << 20;

/// The most services of one registration, ten times as many as anybody was seen to need. An empty one takes six bytes on
/// the wire and some hundred in memory, which is why bytes alone are no limit.
pub const MAX_SERVICES: usize = 10_000;

/// The most entries of any other list.
pub const MAX_LIST: usize = 1024;

/// The most bytes of a text: more than any name, host, path or hash of a password has, and as much as a field of HTTP
/// should have.
pub const MAX_TEXT: usize = 8 << 10;

/// Types from this one on may be passed over by who does not know them.
pub const PASSED_OVER: u16 = 0x8000;

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodecError {
    /// It says that it has more bytes than it may have.
    TooLong(u32),
    /// There is no message of this type, and it may not be passed over.
    UnknownType(u16),
    /// Without this it has no meaning.
    Missing(&'static str),
    /// It breaks the rules; says which part does.
    Malformed(&'static str),
    /// There are more of these than may be.
    TooMany(&'static str),
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CodecError::TooLong(length) => write!(f, "a message of {length} bytes is too long"),
            CodecError::UnknownType(kind) => write!(f, "unknown type of message {kind:#06x}"),
            CodecError::Missing(field) => write!(f, "a message without its {field}"),
            CodecError::Malformed(part) => write!(f, "malformed message: {part}"),
            CodecError::TooMany(part) => write!(f, "a message with too many {part}"),
        }
    }
}

impl std::error::Error for CodecError {}

/// Writes a message behind what is in `out`. Texts that are only for people are cut to [`MAX_TEXT`]; that others are no
/// longer is the caller's to see to, for the other end will not take them.
pub fn encode(message: &Message, out: &mut Vec<u8>) {
    write::message(message, out);
}

/// Reads the message at the front of `bytes`, and how many bytes it takes; nothing where more are needed. `limit` is the most
/// bytes of its body, and of what is passed over before it.
///
/// # Errors
/// What is there is no message. Lengths are judged before the bytes are there.
pub fn decode(bytes: &[u8], limit: usize) -> Result<Option<(Message, usize)>, CodecError> {
    match split(bytes, limit)? {
        Split::Short(_) => Ok(None),
        Split::Whole { kind, start, end } => Ok(Some((read::message(kind, &bytes[start..end])?, end))),
    }
}

/// How many bytes, counted from the first of `bytes`, have to be there for [`decode`] to get any further, with the same
/// limit. For who must not take a byte that lies behind the message.
///
/// # Errors
/// As [`decode`] has them, for what stands before a body.
pub fn needed(bytes: &[u8], limit: usize) -> Result<usize, CodecError> {
    Ok(match split(bytes, limit)? {
        Split::Short(total) => total,
        Split::Whole { end, .. } => end,
    })
}

/// Where the first message is that is known.
enum Split {
    /// So many bytes are needed, at least.
    Short(usize),
    /// Its body is there.
    Whole { kind: u16, start: usize, end: usize },
}

fn split(bytes: &[u8], limit: usize) -> Result<Split, CodecError> {
    let (mut at, mut left) = (0, limit);
    loop {
        let start = at + HEADER_LEN;
        let Some((kind, length)) = bytes.get(at..start).and_then(fields::header) else {
            return Ok(Split::Short(start));
        };
        let is_known = kinds::ALL.contains(&kind);
        if !is_known && kind < PASSED_OVER {
            return Err(CodecError::UnknownType(kind));
        }
        let end = match usize::try_from(length) {
            Ok(length) if length <= left => start + length,
            _ => return Err(CodecError::TooLong(length)),
        };
        if bytes.len() < end {
            return Ok(Split::Short(end));
        }
        if is_known {
            return Ok(Split::Whole { kind, start, end });
        }
        // Their headers count, or a row of empty ones would have no end.
        (at, left) = (end, left.saturating_sub(end - at));
    }
}
