//! One side of an exchange over HTTP/1: what comes from there, and what goes there.

mod incoming;
mod outgoing;

use std::io;
use std::ops::Range;
use std::task::{Context, Poll, ready};

use wmproxy_net::stream::Stream;
use wmproxy_wire::http1::{ChunkLimits, Chunks, Length};

use crate::scratch::Scratch;

/// Buffers above this are given back to the allocator when a request is over; heads of the usual size fit.
const KEPT: usize = 16 * 1024;

/// What the chunked coding may cost beside the data. Trailers have no limit of their own in the config: 16 KiB are more than
/// anybody sends.
const CHUNKS: ChunkLimits =
    ChunkLimits { extension: 1024, excess: 16 * 1024, trailer_bytes: 16 * 1024, trailer_fields: 100 };

/// Reads and writes one side's messages, one in each direction at a time. It belongs to a desk and owns its buffers; the
/// stream is whoever's turn it is.
#[derive(Debug)]
pub(crate) struct Wire {
    /// What was read and not consumed: the beginning of a head, or what came behind it. From `at` on.
    ahead: Vec<u8>,
    at: usize,
    /// How far that was looked at in vain for the end of a head.
    seen: usize,
    incoming: Incoming,
    /// Takes the chunked coding off, where the body has it.
    chunks: Chunks,
    /// What is to be written, from `sent` on.
    pending: Vec<u8>,
    sent: usize,
    /// Whether that is only a head, which waits for its body for as long as nobody has to wait for the body.
    is_held: bool,
    outgoing: Length,
    /// Bytes from this side.
    pub(crate) received: u64,
    /// Bytes that this side has taken.
    pub(crate) delivered: u64,
}

/// What is still to come of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Incoming {
    Nothing,
    Known(u64),
    Chunked,
    UntilClose,
}

/// Why there is no head.
#[derive(Debug)]
pub(crate) enum NoHead<E> {
    /// The stream ended before the first byte of one.
    Ended,
    /// It ended in the middle of one.
    Cut,
    /// It failed.
    Failed(io::Error),
    /// It is none.
    Bad(E),
}

impl Default for Wire {
    fn default() -> Wire {
        Wire {
            ahead: Vec::new(),
            at: 0,
            seen: 0,
            incoming: Incoming::Nothing,
            chunks: Chunks::new(CHUNKS),
            pending: Vec::new(),
            sent: 0,
            is_held: false,
            outgoing: Length::None,
            received: 0,
            delivered: 0,
        }
    }
}

impl Wire {
    /// Forgets the message before. What is ahead stays.
    pub(crate) fn settle(&mut self) {
        self.incoming = Incoming::Nothing;
        self.outgoing = Length::None;
        self.pending.clear();
        self.sent = 0;
        self.is_held = false;
        if self.at == self.ahead.len() {
            self.ahead.clear();
            (self.at, self.seen) = (0, 0);
        }
        for buffer in [&mut self.ahead, &mut self.pending] {
            if buffer.capacity() > KEPT && buffer.is_empty() {
                *buffer = Vec::new();
            }
        }
    }

    /// Forgets everything: another stream is next.
    pub(crate) fn reset(&mut self) {
        self.ahead.clear();
        self.at = 0;
        self.settle();
        (self.received, self.delivered) = (0, 0);
    }

    /// Whether something came that belongs to no message yet.
    pub(crate) fn has_ahead(&self) -> bool {
        self.at < self.ahead.len()
    }

    /// Whether something came that belongs to no message yet, and is what `is_it` looks for.
    pub(crate) fn begins_with(&self, is_it: impl Fn(&[u8]) -> bool) -> bool {
        self.has_ahead() && is_it(&self.ahead[self.at..])
    }

    /// Takes what came that belongs to no message yet.
    pub(crate) fn take_ahead(&mut self) -> Vec<u8> {
        let mut ahead = std::mem::take(&mut self.ahead);
        ahead.drain(..std::mem::take(&mut self.at));
        self.seen = 0;
        ahead
    }

    /// Keeps what was read and is not to be consumed yet.
    pub(crate) fn keep(&mut self, bytes: &[u8]) {
        // What is consumed goes first, or who never stops sending ahead would never be rid of it.
        if self.at > 0 && !bytes.is_empty() {
            self.ahead.drain(..std::mem::take(&mut self.at));
        }
        self.ahead.extend_from_slice(bytes);
    }

    /// Whether the message that was coming has come whole.
    pub(crate) fn has_come(&self) -> bool {
        matches!(self.incoming, Incoming::Nothing)
    }

    /// How much of its body is still to come, if that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        match self.incoming {
            Incoming::Nothing => Some(0),
            Incoming::Known(left) => Some(left),
            Incoming::Chunked | Incoming::UntilClose => None,
        }
    }

    /// Whether both messages are over, to the last byte, and nothing came behind.
    pub(crate) fn is_clear(&self) -> bool {
        self.has_come() && !self.has_ahead() && self.pending.is_empty() && self.outgoing == Length::None
    }

    /// Reads until `parse` finds a head. Answers what was read behind it: that lies in `scratch`, and is the caller's to
    /// [take as a piece](Wire::piece) or to [keep](Wire::keep).
    pub(crate) fn poll_head<E>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &Stream,
        scratch: &mut Scratch,
        mut parse: impl FnMut(&[u8]) -> Result<Option<usize>, E>,
    ) -> Poll<Result<Range<usize>, NoHead<E>>> {
        if self.seen < self.ahead.len() - self.at
            && let Some(found) = self.head_ahead(&mut parse)
        {
            return Poll::Ready(found.map(|()| scratch.read(0)));
        }
        loop {
            let n = match ready!(stream.poll_read(cx, scratch.room())) {
                Ok(0) if self.has_ahead() => return Poll::Ready(Err(NoHead::Cut)),
                Ok(0) => return Poll::Ready(Err(NoHead::Ended)),
                Ok(n) => n,
                Err(error) => return Poll::Ready(Err(NoHead::Failed(error))),
            };
            if let Some(found) = self.head_in(scratch, n, &mut parse) {
                return Poll::Ready(found);
            }
        }
    }

    /// Looks for a head in the first `n` bytes of `scratch`, which were read behind what is ahead. What is not enough is
    /// kept.
    pub(crate) fn head_in<E>(
        &mut self,
        scratch: &Scratch,
        n: usize,
        parse: &mut impl FnMut(&[u8]) -> Result<Option<usize>, E>,
    ) -> Option<Result<Range<usize>, NoHead<E>>> {
        self.received += n as u64;
        let place = scratch.read(n);
        let came = scratch.at(&place);
        if !self.has_ahead() {
            return match parse(came) {
                Ok(Some(used)) => Some(Ok(place.start + used..place.end)),
                Ok(None) => {
                    self.keep(came);
                    self.seen = n;
                    None
                }
                Err(error) => Some(Err(NoHead::Bad(error))),
            };
        }
        self.keep(came);
        self.head_ahead(parse).map(|found| found.map(|()| scratch.read(0)))
    }

    fn head_ahead<E>(
        &mut self,
        parse: &mut impl FnMut(&[u8]) -> Result<Option<usize>, E>,
    ) -> Option<Result<(), NoHead<E>>> {
        let came = &self.ahead[self.at..];
        // A head ends with its line, so that one who sends it byte by byte does not have it parsed for each. What is too
        // long for one is looked at in any case, for it has to be refused.
        let is_worth_it = self.seen == 0 || came[self.seen..].contains(&b'\n') || came.len() > KEPT;
        self.seen = came.len();
        if !is_worth_it {
            return None;
        }
        match parse(came) {
            Ok(Some(used)) => {
                self.at += used;
                self.seen = 0;
                Some(Ok(()))
            }
            Ok(None) => None,
            Err(error) => Some(Err(NoHead::Bad(error))),
        }
    }
}
