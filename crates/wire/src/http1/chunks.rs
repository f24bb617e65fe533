//! The chunked coding, taken off in place (RFC 9112 section 7.1).

use std::ops::Range;

use super::FieldError;
use super::HeadLimits;
use super::error::words;
use super::fields::{Cursor, Stop, read_fields};
use crate::head::Fields;

/// What the coding may cost beside the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkLimits {
    /// The extensions of one chunk in bytes.
    pub extension: usize,
    /// The lines of all chunks in bytes, above what chunks of that size may cost: 16 bytes each and twice their data. Who
    /// sends a kilobyte of extensions with each byte makes others read a thousand times what they let through.
    pub excess: usize,
    /// The trailer section in bytes.
    pub trailer_bytes: usize,
    /// How many trailers.
    pub trailer_fields: usize,
}

impl ChunkLimits {
    /// Trailers are held to what a head is held to. A signature of a chunk, the one extension in use, has 85 bytes; Go and
    /// hyper stop at 16 KiB of excess, too.
    pub fn with(head: &HeadLimits) -> ChunkLimits {
        ChunkLimits {
            extension: 1024,
            excess: 16 * 1024,
            trailer_bytes: head.bytes,
            trailer_fields: head.fields,
        }
    }
}

/// What the bytes were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// All bytes are used, and more are needed.
    More,
    /// Data of the body lies here, never none. Go on with the bytes behind it.
    Data(Range<usize>),
    /// The body is whole: so many bytes were used, and what follows is the next message's.
    End(usize),
}

/// What is wrong with the coding. Nothing after it means anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkError {
    /// A size that is no hexadecimal number of up to sixteen digits, or that something else follows than extensions.
    Size,
    /// A line, or the data of a chunk, that does not end where it should, with CR and LF.
    LineEnd,
    /// A control byte in an extension.
    Extension,
    /// More of extensions, or of lines, than the limit.
    Excess,
    /// One of the trailers.
    Trailer(FieldError),
    /// A trailer section over the limit.
    TrailersTooLong,
}

words!(ChunkError);

impl ChunkError {
    /// The status of the response to a request with it.
    pub fn status(self) -> u16 {
        match self {
            ChunkError::Trailer(error) => error.status(),
            ChunkError::TrailersTooLong => 431,
            _ => 400,
        }
    }

    /// What is wrong, for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            ChunkError::Size => "an invalid size of a chunk",
            ChunkError::LineEnd => "a chunk that does not end where it should",
            ChunkError::Extension => "a control byte in an extension of a chunk",
            ChunkError::Excess => "more extensions of chunks than the limit",
            ChunkError::Trailer(error) => error.as_str(),
            ChunkError::TrailersTooLong => "trailers over the limit",
        }
    }
}

/// Takes the chunked coding off a body, in whatever pieces it comes. Holds nothing but trailers.
#[derive(Debug, Clone)]
pub struct Chunks {
    limits: ChunkLimits,
    state: State,
    /// The size that is being read, or what is left of the data.
    left: u64,
    /// The length of the line that is being read.
    line: usize,
    excess: usize,
    /// The part of a trailer section that is there.
    held: Vec<u8>,
    trailers: Fields,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Within a size, behind so many digits.
    Size(u8),
    /// In whitespace behind a size, which only an extension may follow.
    Blank,
    /// In extensions.
    Extension,
    /// Behind the CR of the line of a size.
    SizeEnd,
    Data,
    /// Behind data, before its CR.
    DataEnd,
    /// Behind data and its CR.
    DataLf,
    Trailers,
    Done,
    Failed(ChunkError),
}

impl Chunks {
    /// For the front of a body.
    pub fn new(limits: ChunkLimits) -> Chunks {
        Chunks {
            limits,
            state: State::Size(0),
            left: 0,
            line: 0,
            excess: 0,
            held: Vec::new(),
            trailers: Fields::new(),
        }
    }

    /// Makes it as new, and keeps the memory.
    pub fn reset(&mut self) {
        let (mut held, mut trailers) = (std::mem::take(&mut self.held), std::mem::take(&mut self.trailers));
        held.clear();
        trailers.clear();
        *self = Chunks { held, trailers, ..Chunks::new(self.limits) };
    }

    /// The trailers, once the body is whole, without those that [may not be any](crate::head::Known::may_trail).
    pub fn trailers(&self) -> &Fields {
        &self.trailers
    }

    /// Whether the body is whole.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// So many bytes of the current chunk's data are yet to come; all of them are data, whoever reads them.
    pub fn data_left(&self) -> u64 {
        if self.state == State::Data { self.left } else { 0 }
    }

    /// Counts data of the current chunk that went past, as when it was spliced.
    ///
    /// # Panics
    /// When it is more than was [left](Chunks::data_left).
    pub fn data_passed(&mut self, len: u64) {
        assert!(len <= self.data_left(), "no more than the chunk has");
        if len > 0 {
            self.take_data(len);
        }
    }

    /// Says what the bytes are, up to the next data or the end. Call it again with what is behind the data until it wants
    /// more.
    ///
    /// # Errors
    /// The coding is broken or over a limit; from then on every call says so.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Step, ChunkError> {
        let step = self.step(bytes);
        if let Err(error) = step {
            self.state = State::Failed(error);
        }
        step
    }

    fn step(&mut self, bytes: &[u8]) -> Result<Step, ChunkError> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.state {
                State::Data => {
                    let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    self.take_data(len as u64);
                    return Ok(Step::Data(at..at + len));
                }
                State::Trailers => return self.take_trailers(&bytes[at..], at),
                State::Done => return Ok(Step::End(at)),
                State::Failed(error) => return Err(error),
                _ => self.state = self.of_line(byte)?,
            }
            at += 1;
        }
        match self.state {
            State::Done => Ok(Step::End(at)),
            State::Failed(error) => Err(error),
            _ => Ok(Step::More),
        }
    }

    fn take_data(&mut self, len: u64) {
        self.left -= len;
        if self.left == 0 {
            self.state = State::DataEnd;
        }
    }

    /// What follows a byte of a size's line, or of the end of data.
    fn of_line(&mut self, byte: u8) -> Result<State, ChunkError> {
        self.line += 1;
        match (self.state, byte) {
            (State::Size(digits), _) if byte.is_ascii_hexdigit() => self.push_digit(digits, byte),
            (State::Size(1..) | State::Extension, b'\r') => Ok(State::SizeEnd),
            (State::Size(1..) | State::Blank, b' ' | b'\t') => self.within_limit(State::Blank),
            (State::Size(1..) | State::Blank, b';') => self.within_limit(State::Extension),
            (State::Size(_) | State::Blank, _) => Err(ChunkError::Size),
            (State::Extension, b'\n') => Err(ChunkError::LineEnd),
            (State::Extension, 0..=8 | 11..=31 | 127) => Err(ChunkError::Extension),
            (State::Extension, _) => self.within_limit(State::Extension),
            (State::SizeEnd, b'\n') => self.end_line(),
            (State::DataEnd, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => {
                self.left = 0;
                Ok(State::Size(0))
            }
            _ => Err(ChunkError::LineEnd),
        }
    }

    fn push_digit(&mut self, digits: u8, byte: u8) -> Result<State, ChunkError> {
        // More digits would not fit, and zeros before them would be without bound.
        if digits == 16 {
            return Err(ChunkError::Size);
        }
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            _ => (byte | 0x20) - b'a' + 10,
        };
        self.left = self.left << 4 | u64::from(digit);
        Ok(State::Size(digits + 1))
    }

    fn within_limit(&self, state: State) -> Result<State, ChunkError> {
        if self.line > self.limits.extension.saturating_add(16) { Err(ChunkError::Excess) } else { Ok(state) }
    }

    /// Goes from the line of a size to what it announces.
    fn end_line(&mut self) -> Result<State, ChunkError> {
        let line = std::mem::take(&mut self.line);
        let fair = usize::try_from(self.left).unwrap_or(usize::MAX).saturating_mul(2).saturating_add(16);
        self.excess = self.excess.saturating_add(line).saturating_sub(fair);
        if self.excess > self.limits.excess {
            return Err(ChunkError::Excess);
        }
        Ok(if self.left == 0 { State::Trailers } else { State::Data })
    }

    /// Reads the trailer section, of which earlier bytes may be held; `before` bytes were used in front of these.
    fn take_trailers(&mut self, bytes: &[u8], before: usize) -> Result<Step, ChunkError> {
        if self.held.is_empty() && bytes.starts_with(b"\r\n") {
            self.state = State::Done;
            return Ok(Step::End(before + 2));
        }
        let held = self.held.len();
        let room = self.limits.trailer_bytes.saturating_sub(held);
        self.held.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.trailers.clear();
        let mut cursor = Cursor::new(&self.held);
        match read_fields(&mut cursor, self.limits.trailer_fields, &mut self.trailers) {
            Ok(()) => {
                let len = cursor.at;
                self.trailers.fill(&self.held[..len]);
                self.trailers.retain(|field| field.known.may_trail());
                self.held.clear();
                self.state = State::Done;
                Ok(Step::End(before + len - held))
            }
            Err(stop) => {
                // They point to what is not there.
                self.trailers.clear();
                match stop {
                    Stop::Fault(error) => Err(ChunkError::Trailer(error)),
                    Stop::More if self.held.len() >= self.limits.trailer_bytes => {
                        Err(ChunkError::TrailersTooLong)
                    }
                    Stop::More => Ok(Step::More),
                }
            }
        }
    }
}
