//! The body that comes: its end found, its chunks taken apart.

use std::ops::Range;
use std::task::{Context, Poll, ready};

use wmproxy_net::stream::Stream;
use wmproxy_wire::head::Fields;
use wmproxy_wire::http1::{Length, Step};

use super::{Incoming, Wire};
use crate::exchange::{Broken, Piece};
use crate::scratch::{ROOM, Scratch};

impl Wire {
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
}
