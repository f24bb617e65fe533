//! Bodies of HTTP/2: the same in both directions, and on both sides.
//!
//! Flow control is passed through. A piece is read from one side only when the other takes it, and only what was read is
//! given back to the sender's window: whoever stops to read stops who sends to them.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use wmproxy_wire::head::Fields;

use super::convert;
use crate::exchange::{Broken, Piece};
use crate::scratch::Scratch;

/// The largest piece that is given to the library at once. It may keep that much for each stream whose client has stopped
/// to read, so it is not much more than a frame; two frames at a time were measured to need few wake-ups enough. With the head
/// of a frame it fills records of TLS to the last byte.
pub(super) const PIECE: usize = 32 * 1024 - FRAME_HEAD;

/// The head of a frame (RFC 9113 section 4.1).
const FRAME_HEAD: usize = 9;

/// The largest frame that everybody takes (RFC 9113 section 4.2).
pub(super) const FRAME: u32 = 16 * 1024;

/// The largest frame of a tunnel, for both ends of it: a piece goes by one call, where frames of the usual size take two.
pub(super) const TUNNEL_FRAME: u32 = 32 * 1024;

/// A body that comes.
#[derive(Debug)]
pub(super) struct Incoming {
    stream: RecvStream,
    /// Of a frame, what was not asked for yet.
    ahead: Bytes,
    has_come: bool,
    /// Bytes of it that came since this was last asked.
    received: u64,
}

impl Incoming {
    pub(super) fn new(stream: RecvStream) -> Incoming {
        let has_come = stream.is_end_stream();
        Incoming { stream, ahead: Bytes::new(), has_come, received: 0 }
    }

    /// Whether it has come whole, with its trailers.
    pub(super) fn has_come(&self) -> bool {
        self.has_come
    }

    pub(super) fn take_count(&mut self) -> u64 {
        std::mem::take(&mut self.received)
    }

    /// Waits until something is there; false at the end, behind the trailers if there are any.
    fn poll_ahead(
        &mut self,
        cx: &mut Context<'_>,
        trailers: impl FnOnce(&HeaderMap) -> Result<(), Broken>,
    ) -> Poll<Result<bool, Broken>> {
        while self.ahead.is_empty() {
            if self.has_come {
                return Poll::Ready(Ok(false));
            }
            match ready!(self.stream.poll_data(cx)) {
                Some(data) => self.ahead = data.map_err(broken)?,
                None => {
                    let came = ready!(self.stream.poll_trailers(cx)).map_err(broken)?;
                    self.has_come = true;
                    return Poll::Ready(came.as_ref().map_or(Ok(()), trailers).map(|()| false));
                }
            }
            // The end may lie in the last frame of data, which spares a look for trailers.
            self.has_come |= self.stream.is_end_stream();
        }
        Poll::Ready(Ok(true))
    }

    /// Takes of what is there, and lets as much more come.
    fn take(&mut self, into: &mut [u8]) -> Result<usize, Broken> {
        let n = self.ahead.len().min(into.len());
        into[..n].copy_from_slice(&self.ahead[..n]);
        self.ahead.advance(n);
        self.received += n as u64;
        self.stream.flow_control().release_capacity(n).map_err(broken)?;
        Ok(n)
    }

    /// Reads what is there; 0 is the end. Trailers say nothing here.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<Result<usize, Broken>> {
        if !ready!(self.poll_ahead(cx, |_| Ok(())))? {
            return Poll::Ready(Ok(0));
        }
        Poll::Ready(self.take(into))
    }

    /// See [`Source`](crate::exchange::Source).
    pub(super) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        most: usize,
        trailers: &mut Fields,
    ) -> Poll<Result<Piece, Broken>> {
        if !ready!(self.poll_ahead(cx, |came| {
            let malformed = |error| Broken::Failed(io::Error::other(error));
            convert::read_trailers(came, trailers).map_err(malformed)
        }))? {
            return Poll::Ready(Ok(Piece::end(scratch)));
        }
        let room = scratch.room();
        let most = most.min(room.len());
        let n = self.take(&mut room[..most])?;
        Poll::Ready(Ok(Piece { place: scratch.read(n), is_last: self.has_come && self.ahead.is_empty() }))
    }
}

/// A body that goes.
#[derive(Debug)]
pub(super) struct Outgoing {
    stream: SendStream<Bytes>,
    is_over: bool,
    /// Bytes of it that went since this was last asked.
    sent: u64,
}

impl Outgoing {
    /// `is_over` says that the head was all.
    pub(super) fn new(stream: SendStream<Bytes>, is_over: bool) -> Outgoing {
        Outgoing { stream, is_over, sent: 0 }
    }

    pub(super) fn take_count(&mut self) -> u64 {
        std::mem::take(&mut self.sent)
    }

    /// See [`Sink`](crate::exchange::Sink). It asks for no more of the connection's window than a byte: what a stream holds
    /// of it while it has nothing to send the others would lack.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        if self.is_over {
            return Poll::Ready(Ok(PIECE));
        }
        self.stream.reserve_capacity(1);
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(grown) => grown.map_err(broken)?,
                None => return Poll::Ready(Err(Broken::Cut)),
            };
        }
        Poll::Ready(Ok(PIECE))
    }

    /// See [`Sink`](crate::exchange::Sink).
    pub(super) fn send(&mut self, data: &[u8], is_last: bool, trailers: &Fields) -> Result<(), Broken> {
        if self.is_over {
            return Ok(());
        }
        let has_trailers = is_last && !trailers.is_empty();
        if !data.is_empty() || (is_last && !has_trailers) {
            self.stream.send_data(Bytes::copy_from_slice(data), is_last && !has_trailers).map_err(broken)?;
        }
        if has_trailers {
            let trailers = convert::write_trailers(trailers);
            let trailers = trailers.map_err(|error| Broken::Failed(io::Error::other(error)))?;
            self.stream.send_trailers(trailers).map_err(broken)?;
        }
        self.sent += data.len() as u64;
        self.is_over = is_last;
        Ok(())
    }

    /// Ready with why when the other end wants no more of it.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        self.stream.poll_reset(cx).map(|reason| reason.unwrap_or(Reason::INTERNAL_ERROR))
    }

    /// Breaks it off, so that nobody takes it for the whole.
    pub(super) fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }
}

/// How the library says that a stream or its connection failed.
pub(super) fn broken(error: h2::Error) -> Broken {
    if error.is_io() {
        return Broken::Failed(error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()));
    }
    Broken::Failed(io::Error::new(io::ErrorKind::ConnectionReset, error))
}
