//! One side of an exchange over HTTP/1: what comes from there, and what goes there.

use std::io;
use std::ops::Range;
use std::task::{Context, Poll, ready};

use wmproxy_net::stream::Stream;
use wmproxy_wire::head::Fields;
use wmproxy_wire::http1::{self, ChunkLimits, Chunks, Length, Step};

use crate::exchange::{Broken, Piece};
use crate::scratch::{ROOM, Scratch};

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

    /// Expects a body behind the head that was read.
    pub(crate) fn expect(&mut self, length: Length) {
        self.incoming = match length {
            Length::None | Length::Known(0) => Incoming::Nothing,
            Length::Known(length) => Incoming::Known(length),
            Length::Chunked => {
                self.chunks.reset();
                Incoming::Chunked
            }
            Length::UntilClose => Incoming::UntilClose,
        };
    }

    /// From now on both directions are bytes without a length.
    pub(crate) fn tunnel(&mut self) {
        self.expect(Length::UntilClose);
        self.outgoing = Length::UntilClose;
    }

    /// Reads a piece of the body, of `most` bytes at the most.
    pub(crate) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        stream: &Stream,
        scratch: &mut Scratch,
        most: usize,
        trailers: &mut Fields,
    ) -> Poll<Result<Piece, Broken>> {
        loop {
            let most = match self.incoming {
                Incoming::Nothing => return Poll::Ready(Ok(Piece::end(scratch))),
                Incoming::Known(left) => usize::try_from(left).unwrap_or(usize::MAX).min(most),
                Incoming::Chunked | Incoming::UntilClose => most,
            };
            let room = &mut scratch.room()[..most.min(ROOM)];
            let is_ahead = self.has_ahead();
            let n = if is_ahead {
                let ahead = &self.ahead[self.at..];
                let n = ahead.len().min(room.len());
                room[..n].copy_from_slice(&ahead[..n]);
                self.at += n;
                n
            } else {
                let n = ready!(stream.poll_read(cx, room)).map_err(Broken::Failed)?;
                self.received += n as u64;
                n
            };
            if n == 0 {
                return Poll::Ready(self.end_of_stream(scratch));
            }
            let (piece, surplus) = self.unframe(scratch, scratch.read(n), trailers)?;
            if is_ahead {
                self.at -= surplus.len();
            } else {
                self.keep(scratch.at(&surplus));
            }
            if !piece.place.is_empty() || piece.is_last {
                return Poll::Ready(Ok(piece));
            }
        }
    }

    fn end_of_stream(&mut self, scratch: &Scratch) -> Result<Piece, Broken> {
        if !matches!(self.incoming, Incoming::UntilClose) {
            return Err(Broken::Cut);
        }
        self.incoming = Incoming::Nothing;
        Ok(Piece::end(scratch))
    }

    /// Takes what was read to `place` as a piece of the body, which may be empty. What lies behind its end is ahead then.
    pub(crate) fn piece(
        &mut self,
        scratch: &mut Scratch,
        place: Range<usize>,
        trailers: &mut Fields,
    ) -> Result<Piece, Broken> {
        let (piece, surplus) = self.unframe(scratch, place, trailers)?;
        self.keep(scratch.at(&surplus));
        Ok(piece)
    }

    /// What at `place` is of the body, and what is beyond its end.
    fn unframe(
        &mut self,
        scratch: &mut Scratch,
        place: Range<usize>,
        trailers: &mut Fields,
    ) -> Result<(Piece, Range<usize>), Broken> {
        let end = match &mut self.incoming {
            Incoming::Nothing => place.start,
            Incoming::UntilClose => place.end,
            Incoming::Known(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(place.len());
                *left -= n as u64;
                if *left == 0 {
                    self.incoming = Incoming::Nothing;
                }
                place.start + n
            }
            Incoming::Chunked => return self.unchunk(scratch, place, trailers),
        };
        let is_last = self.incoming == Incoming::Nothing;
        Ok((Piece { place: place.start..end, is_last }, end..place.end))
    }

    /// Takes the chunked coding off, and moves the data together.
    fn unchunk(
        &mut self,
        scratch: &mut Scratch,
        place: Range<usize>,
        trailers: &mut Fields,
    ) -> Result<(Piece, Range<usize>), Broken> {
        let mut rest = place.clone();
        let mut data = place.start..place.start;
        loop {
            match self.chunks.next(scratch.at(&rest))? {
                Step::More => return Ok((Piece { place: data, is_last: false }, place.end..place.end)),
                Step::Data(found) => {
                    let found = rest.start + found.start..rest.start + found.end;
                    rest.start = found.end;
                    if data.is_empty() {
                        data = found;
                    } else {
                        let len = found.len();
                        scratch.shift(found, data.end);
                        data.end += len;
                    }
                }
                Step::End(used) => {
                    self.incoming = Incoming::Nothing;
                    if !self.chunks.trailers().is_empty() {
                        trailers.clone_from(self.chunks.trailers());
                    }
                    return Ok((Piece { place: data, is_last: true }, rest.start + used..place.end));
                }
            }
        }
    }

    /// How much of the body is still to come, if the stream's next bytes are it, as they are.
    pub(crate) fn bulk_in(&self, stream: &Stream) -> Option<u64> {
        match self.incoming {
            Incoming::Known(left) if !self.has_ahead() && stream.can_splice() => Some(left),
            _ => None,
        }
    }

    /// So many bytes of the body were read from the stream by somebody else.
    pub(crate) fn took(&mut self, bytes: u64) {
        self.received += bytes;
        if let Incoming::Known(left) = &mut self.incoming {
            *left -= bytes;
            if *left == 0 {
                self.incoming = Incoming::Nothing;
            }
        }
    }

    /// How much of the body is still to go, if the stream may get it as it is.
    pub(crate) fn bulk_out(&self, stream: &Stream) -> Option<u64> {
        match self.outgoing {
            Length::Known(left) if self.pending.is_empty() && stream.can_splice() => Some(left),
            _ => None,
        }
    }

    /// So many bytes of the body were written to the stream by somebody else.
    pub(crate) fn gave(&mut self, bytes: u64) {
        self.delivered += bytes;
        if let Length::Known(left) = &mut self.outgoing {
            *left -= bytes;
            if *left == 0 {
                self.outgoing = Length::None;
            }
        }
    }

    /// Begins a message: `write` writes its head. It goes out with the first piece of its body, or else when it is
    /// [flushed](Wire::poll_flush).
    pub(crate) fn begin(&mut self, body: Length, write: impl FnOnce(&mut Vec<u8>)) {
        self.is_held = self.pending.is_empty();
        write(&mut self.pending);
        self.outgoing = body;
    }

    /// Ready when a piece can be sent: what is pending but for a head that is held has gone.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>, stream: &Stream) -> Poll<Result<(), Broken>> {
        if self.is_held { Poll::Ready(Ok(())) } else { self.poll_flush(cx, stream) }
    }

    /// Sends what is pending.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>, stream: &Stream) -> Poll<Result<(), Broken>> {
        self.is_held = false;
        while self.sent < self.pending.len() {
            let n = ready!(stream.poll_write(cx, &self.pending[self.sent..])).map_err(Broken::Failed)?;
            self.sent += n;
            self.delivered += n as u64;
        }
        self.pending.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Sends a piece, framed as the message wants it. What the stream does not take is pending. To be called when
    /// [ready](Wire::poll_ready); with the last piece come the trailers, which only a chunked body has room for.
    pub(crate) fn send(
        &mut self,
        cx: &mut Context<'_>,
        stream: &Stream,
        scratch: &mut Scratch,
        piece: Piece,
        trailers: &Fields,
    ) -> Result<(), Broken> {
        let Piece { mut place, is_last } = piece;
        match &mut self.outgoing {
            Length::None => place.end = place.start,
            Length::Known(left) => {
                *left = left.checked_sub(place.len() as u64).ok_or(Broken::Overrun)?;
                if is_last && *left > 0 {
                    return Err(Broken::Cut);
                }
            }
            Length::UntilClose => {}
            Length::Chunked => {
                if !place.is_empty() {
                    let size = http1::chunk_head(place.len());
                    scratch.put_before(&mut place, &size);
                    scratch.put_behind(&mut place, b"\r\n");
                }
                if is_last && trailers.is_empty() {
                    scratch.put_behind(&mut place, http1::LAST_CHUNK);
                }
            }
        }
        let is_joined = self.sent == 0 && scratch.put_before(&mut place, &self.pending);
        if is_joined {
            self.pending.clear();
            self.write(cx, stream, scratch.at(&place))?;
        } else {
            self.pending.extend_from_slice(scratch.at(&place));
        }
        self.is_held = false;
        if is_last && !trailers.is_empty() && matches!(self.outgoing, Length::Chunked) {
            http1::write_trailers(trailers, &mut self.pending);
        }
        if is_last {
            self.outgoing = Length::None;
        }
        Ok(())
    }

    /// Writes what the stream takes; the rest is pending.
    fn write(&mut self, cx: &mut Context<'_>, stream: &Stream, bytes: &[u8]) -> Result<(), Broken> {
        if bytes.is_empty() {
            return Ok(());
        }
        let n = match stream.poll_write(cx, bytes) {
            Poll::Ready(n) => n.map_err(Broken::Failed)?,
            Poll::Pending => 0,
        };
        self.delivered += n as u64;
        self.pending.extend_from_slice(&bytes[n..]);
        Ok(())
    }
}
