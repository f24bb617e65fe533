//! The message that goes: its head with the first piece of its body, its chunks put together.

use std::task::{Context, Poll, ready};

use wmproxy_net::stream::Stream;
use wmproxy_wire::head::Fields;
use wmproxy_wire::http1::{self, Length};

use super::Wire;
use crate::exchange::{Broken, Piece};
use crate::scratch::Scratch;

impl Wire {
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

    /// Sends bytes of a body with a known length from where they lie, behind what is pending, and says how many of them the
    /// stream took; none if they have to come as a piece.
    pub(crate) fn poll_put(
        &mut self,
        cx: &mut Context<'_>,
        stream: &Stream,
        bytes: &[u8],
    ) -> Poll<Result<Option<usize>, Broken>> {
        let Length::Known(left) = self.outgoing else { return Poll::Ready(Ok(None)) };
        if !stream.can_splice() {
            return Poll::Ready(Ok(None));
        }
        if bytes.len() as u64 > left {
            return Poll::Ready(Err(Broken::Overrun));
        }
        let pending = &self.pending[self.sent..];
        let n = ready!(stream.poll_write_both(cx, pending, bytes)).map_err(Broken::Failed)?;
        let before = n.min(pending.len());
        self.is_held = false;
        self.sent += before;
        self.delivered += before as u64;
        if self.sent == self.pending.len() {
            self.pending.clear();
            self.sent = 0;
        }
        self.gave((n - before) as u64);
        Poll::Ready(Ok(Some(n - before)))
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
