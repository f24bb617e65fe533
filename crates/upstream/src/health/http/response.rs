//! The answer to a check, as it comes in: a pure function of its bytes.
//!
//! It is read no further than it takes to decide, and it is read strictly: an answer whose length two readers could
//! take for two things (RFC 9112 section 6.3) comes from no server that is well.

use crate::health::exchange::{Quoted, contains};
use crate::health::options::HttpSpec;

/// How long all heads together may be. nginx and HAProxy give a server's head 4 to 16 KiB.
const HEAD_LIMIT: usize = 16 << 10;

/// How many fields a head may have.
const FIELD_LIMIT: usize = 100;

/// How much of a body is looked at: the page of a health check is shorter.
const BODY_LIMIT: usize = 64 << 10;

/// How long the line before a chunk may be: a number of 16 digits, and extensions that nobody uses.
const CHUNK_LINE_LIMIT: usize = 256;

/// What is wrong with an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::health) enum HttpError {
    #[error("the status is {status}, and {expected} was expected")]
    Status { status: u16, expected: String },
    #[error("the body does not have what was expected, but {0}")]
    Body(Quoted),
    #[error("the body is empty")]
    NoBody,
    #[error("what was expected is not in the first {BODY_LIMIT} bytes of the body")]
    BodyTooLong,
    #[error("the answer is not HTTP/1.1, but {0}")]
    NotHttp(Quoted),
    #[error("the head of the answer is longer than {HEAD_LIMIT} bytes or {FIELD_LIMIT} fields")]
    HeadTooLong,
    #[error("the answer's length is not clear: {0}")]
    Framing(&'static str),
    #[error("closed without an answer")]
    ClosedSilently,
    #[error("closed in the middle of the answer")]
    Closed,
}

/// An answer that is coming in.
pub(super) struct Response<'a> {
    spec: &'a HttpSpec,
    state: State,
    /// The bytes of a head, or of a line between chunks, that is not complete yet.
    pending: Vec<u8>,
    /// How many bytes of heads there were.
    heads: usize,
    body: Vec<u8>,
}

/// Where in the answer the next byte belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    /// A body of so many more bytes.
    Sized(u64),
    /// A body that lasts until the connection is closed.
    ToTheEnd,
    /// The line before a chunk.
    ChunkLine,
    /// A chunk with so many more bytes; behind the last one is the end of a line.
    Chunk(u64),
    /// Behind the last byte that matters: the answer is what was expected.
    Done,
}

impl<'a> Response<'a> {
    pub(super) fn new(spec: &'a HttpSpec) -> Response<'a> {
        Response { spec, state: State::Head, pending: vec![], heads: 0, body: vec![] }
    }

    /// Takes what came next. True when the answer is what was expected; the rest of it does not matter then.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> Result<bool, HttpError> {
        while self.state != State::Done && !bytes.is_empty() {
            let used = match self.state {
                State::Head => self.take_head(bytes)?,
                State::Sized(left) => self.take_data(bytes, left, State::Sized)?,
                State::ToTheEnd => self.take_data(bytes, u64::MAX, |_| State::ToTheEnd)?,
                State::ChunkLine => self.take_chunk_line(bytes)?,
                State::Chunk(0) => self.take_chunk_end(bytes)?,
                State::Chunk(left) => self.take_data(bytes, left, State::Chunk)?,
                State::Done => 0,
            };
            bytes = &bytes[used..];
            if self.state == State::Sized(0) {
                return Err(self.missing());
            }
        }
        Ok(self.state == State::Done)
    }

    /// Judges an answer that ends here because the connection was closed.
    pub(super) fn end(&self) -> Result<(), HttpError> {
        Err(match self.state {
            State::Done => return Ok(()),
            State::Head if self.heads == 0 && self.pending.is_empty() => HttpError::ClosedSilently,
            State::ToTheEnd => self.missing(),
            _ => HttpError::Closed,
        })
    }

    /// Why a body that is complete is not what was expected.
    fn missing(&self) -> HttpError {
        if self.body.is_empty() { HttpError::NoBody } else { HttpError::Body(Quoted::new(&self.body)) }
    }

    fn take_head(&mut self, bytes: &[u8]) -> Result<usize, HttpError> {
        let before = self.pending.len();
        let room = HEAD_LIMIT - self.heads - before;
        self.pending.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let mut fields = [httparse::EMPTY_HEADER; FIELD_LIMIT];
        let mut head = httparse::Response::new(&mut fields);
        let len = match head.parse(&self.pending) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) if bytes.len() < room => return Ok(bytes.len()),
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                return Err(HttpError::HeadTooLong);
            }
            Err(_) => return Err(HttpError::NotHttp(Quoted::new(&self.pending))),
        };
        let state = judge(self.spec, &head)?;
        self.state = state;
        self.pending.clear();
        self.heads += len;
        Ok(len - before)
    }

    /// Adds to the body what belongs to it, with `left` bytes to come before `state` changes.
    fn take_data(&mut self, bytes: &[u8], left: u64, state: fn(u64) -> State) -> Result<usize, HttpError> {
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let searched = self.body.len();
        self.body.extend_from_slice(&bytes[..n.min(BODY_LIMIT - searched)]);
        let wanted = self.spec.body.as_deref().unwrap_or_default();
        self.state = if contains(&self.body, wanted.as_bytes(), searched) {
            State::Done
        } else if self.body.len() == BODY_LIMIT {
            return Err(HttpError::BodyTooLong);
        } else {
            state(left - n as u64)
        };
        Ok(n)
    }

    fn take_chunk_line(&mut self, bytes: &[u8]) -> Result<usize, HttpError> {
        let (used, is_whole) = match bytes.iter().position(|b| *b == b'\n') {
            Some(at) => (at + 1, true),
            None => (bytes.len(), false),
        };
        if self.pending.len() + used > CHUNK_LINE_LIMIT {
            return Err(HttpError::Framing("a chunk's line is too long"));
        }
        self.pending.extend_from_slice(&bytes[..used]);
        if is_whole {
            let size = chunk_size(&self.pending).ok_or(HttpError::Framing("a chunk's size is no number"))?;
            if size == 0 {
                return Err(self.missing());
            }
            self.state = State::Chunk(size);
            self.pending.clear();
        }
        Ok(used)
    }

    fn take_chunk_end(&mut self, bytes: &[u8]) -> Result<usize, HttpError> {
        const END: &[u8] = b"\r\n";
        let used = bytes.len().min(END.len() - self.pending.len());
        self.pending.extend_from_slice(&bytes[..used]);
        if !END.starts_with(&self.pending) {
            return Err(HttpError::Framing("a chunk is longer than it says"));
        }
        if self.pending == END {
            self.state = State::ChunkLine;
            self.pending.clear();
        }
        Ok(used)
    }
}

/// What follows a head: judges its status, and finds out how long the body is if that is of interest.
fn judge(spec: &HttpSpec, head: &httparse::Response<'_, '_>) -> Result<State, HttpError> {
    let status = head.code.unwrap_or_default();
    // Interim answers, but for the one that ends HTTP on this connection (RFC 9110 section 15.2).
    if (100..200).contains(&status) && status != 101 {
        return Ok(State::Head);
    }
    if !spec.statuses.contains(status) {
        return Err(HttpError::Status { status, expected: spec.statuses.to_string() });
    }
    if spec.body.is_none() {
        return Ok(State::Done);
    }
    let length = body_length(head)?;
    match length {
        // These never have one (RFC 9112 section 6.3).
        _ if status == 204 || status == 304 => Err(HttpError::NoBody),
        State::Sized(0) => Err(HttpError::NoBody),
        length => Ok(length),
    }
}

fn body_length(head: &httparse::Response<'_, '_>) -> Result<State, HttpError> {
    let field = |name: &'static str| {
        head.headers.iter().filter(move |f| f.name.eq_ignore_ascii_case(name)).map(|f| f.value.trim_ascii())
    };
    let mut codings = field("transfer-encoding");
    let mut lengths = field("content-length");
    match (codings.next(), lengths.next()) {
        (Some(_), Some(_)) => Err(HttpError::Framing("both Transfer-Encoding and Content-Length")),
        (Some(_), None) if head.version != Some(1) => {
            Err(HttpError::Framing("Transfer-Encoding in HTTP/1.0"))
        }
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") && codings.next().is_none() => {
            Ok(State::ChunkLine)
        }
        (Some(_), None) => Err(HttpError::Framing("a Transfer-Encoding other than chunked")),
        (None, Some(length)) if lengths.all(|other| other == length) => number(length, 10)
            .map(State::Sized)
            .ok_or(HttpError::Framing("a Content-Length that is no number")),
        (None, Some(_)) => Err(HttpError::Framing("two lengths in Content-Length")),
        (None, None) => Ok(State::ToTheEnd),
    }
}

/// The size in a chunk's line: hexadecimal, and extensions behind a semicolon (RFC 9112 section 7.1).
fn chunk_size(line: &[u8]) -> Option<u64> {
    let line = line.strip_suffix(b"\r\n")?;
    let size = line.split(|b| *b == b';').next().unwrap_or_default();
    // Space before the semicolon is bad manners that is to be borne (section 7.1.1).
    number(size.trim_ascii_end(), 16)
}

/// A number of digits alone; `from_str_radix` would take a sign too.
fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let all_digits = digits.iter().all(|b| char::from(*b).is_digit(radix));
    let text = std::str::from_utf8(digits).ok().filter(|_| all_digits)?;
    u64::from_str_radix(text, radix).ok()
}

#[cfg(test)]
mod tests;
