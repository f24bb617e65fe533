//! The peer's side of an exchange, whatever version of HTTP it speaks.

use std::io;
use std::ops::Range;
use std::task::{Context, Poll, ready};

use wmproxy_net::stream::Stream;
use wmproxy_wire::head::{Fields, Request, Response};
use wmproxy_wire::http1::{self, Length};

use super::sides::{Broken, Piece, Sink, Source};
use crate::h1::Wire;
use crate::h2::PeerStream;
use crate::scratch::Scratch;

/// What a peer is talked to through.
#[derive(Debug)]
pub(crate) enum Line {
    /// A connection of its own, which speaks HTTP/1.
    H1(Stream),
    /// A stream of a connection that speaks HTTP/2. Boxed, for it is the rarer one and large.
    H2(Box<PeerStream>),
}

impl Line {
    /// The peer's side of an exchange over it, with buffers for HTTP/1.
    pub(crate) fn back<'a>(&'a mut self, wire: &'a mut Wire) -> Back<'a> {
        match self {
            Line::H1(stream) => Back::H1(stream, wire),
            Line::H2(stream) => Back::H2(stream),
        }
    }
}

/// The peer's side: where a request goes to, and its response comes from.
#[derive(Debug)]
pub(crate) enum Back<'a> {
    /// HTTP/1.
    H1(&'a Stream, &'a mut Wire),
    /// HTTP/2.
    H2(&'a mut PeerStream),
}

/// Why no response came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoResponse {
    /// The peer says that it has not acted on the request, and will not: it may be asked again, whatever it wants (RFC 9113
    /// section 8.7).
    #[error("the request was refused unread: {0}")]
    Refused(io::Error),
    /// The connection ended or failed before the first byte of one.
    #[error("the connection was closed before a response: {0}")]
    Silent(io::Error),
    /// It ended or failed in the middle of one.
    #[error("the connection was closed in the middle of a response's head: {0}")]
    Cut(io::Error),
    /// It is none that could be passed on.
    #[error("a response that is none: {0}")]
    Bad(Box<dyn std::error::Error + Send + Sync>),
}

impl Back<'_> {
    /// Begins the request. Its body follows.
    pub(crate) fn begin(&mut self, request: &Request, body: Length) {
        match self {
            Back::H1(_, wire) => wire.begin(body, |out| http1::write_request(request, out)),
            Back::H2(stream) => stream.begin(request, body),
        }
    }

    /// Reads the head of a response, and expects the body that it announces. Answers where in `scratch` the beginning of
    /// that lies already.
    pub(crate) fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        response: &mut Response,
        to: &Request,
    ) -> Poll<Result<(Range<usize>, Length), NoResponse>> {
        match self {
            Back::H1(stream, wire) => {
                let place = ready!(crate::h1::poll_response(cx, stream, wire, scratch, response))?;
                let length = http1::response_length(to.method, response);
                let length = length.map_err(|error| NoResponse::Bad(error.into()))?;
                wire.expect(length);
                Poll::Ready(Ok((place, length)))
            }
            Back::H2(stream) => {
                let length = ready!(stream.poll_response(cx, response))?;
                Poll::Ready(Ok((scratch.read(0), length)))
            }
        }
    }

    /// Takes what came with the head as the first piece of the body.
    pub(crate) fn first_piece(
        &mut self,
        scratch: &mut Scratch,
        place: Range<usize>,
        trailers: &mut Fields,
    ) -> Result<Piece, Broken> {
        match self {
            Back::H1(_, wire) => wire.piece(scratch, place, trailers),
            Back::H2(_) => Ok(Piece { place, is_last: false }),
        }
    }

    /// From now on both directions are bytes without a length.
    pub(crate) fn tunnel(&mut self) {
        match self {
            Back::H1(_, wire) => wire.tunnel(),
            // They are already.
            Back::H2(_) => {}
        }
    }

    /// Says that nothing more follows, behind all that was sent.
    pub(crate) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        match self {
            Back::H1(stream, _) => stream.poll_shutdown_write(cx).map_err(Broken::Failed),
            // The last piece said so.
            Back::H2(_) => Poll::Ready(Ok(())),
        }
    }

    /// Gives back what came with the head and is not to be consumed now.
    pub(crate) fn keep(&mut self, bytes: &[u8]) {
        match self {
            Back::H1(_, wire) => wire.keep(bytes),
            // Nothing comes with a head.
            Back::H2(_) => {}
        }
    }
}

impl Source for Back<'_> {
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        most: usize,
        trailers: &mut Fields,
    ) -> Poll<Result<Piece, Broken>> {
        match self {
            Back::H1(stream, wire) => wire.poll_piece(cx, stream, scratch, most, trailers),
            Back::H2(stream) => stream.poll_piece(cx, scratch, most, trailers),
        }
    }

    fn bulk(&self) -> Option<u64> {
        match self {
            Back::H1(stream, wire) => wire.bulk_in(stream),
            Back::H2(_) => None,
        }
    }

    fn socket(&self) -> Option<&Stream> {
        match self {
            Back::H1(stream, _) => Some(stream),
            Back::H2(_) => None,
        }
    }

    fn took(&mut self, bytes: u64) {
        match self {
            Back::H1(_, wire) => wire.took(bytes),
            Back::H2(_) => {}
        }
    }
}

impl Sink for Back<'_> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        match self {
            Back::H1(stream, wire) => wire.poll_ready(cx, stream).map_ok(|()| usize::MAX),
            Back::H2(stream) => stream.poll_ready(cx),
        }
    }

    fn send(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        piece: Piece,
        trailers: &Fields,
    ) -> Result<(), Broken> {
        match self {
            Back::H1(stream, wire) => wire.send(cx, stream, scratch, piece, trailers),
            Back::H2(stream) => stream.send(scratch, piece, trailers),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        match self {
            Back::H1(stream, wire) => wire.poll_flush(cx, stream),
            Back::H2(_) => Poll::Ready(Ok(())),
        }
    }

    fn bulk(&self) -> Option<u64> {
        match self {
            Back::H1(stream, wire) => wire.bulk_out(stream),
            Back::H2(_) => None,
        }
    }

    fn socket(&self) -> Option<&Stream> {
        match self {
            Back::H1(stream, _) => Some(stream),
            Back::H2(_) => None,
        }
    }

    fn gave(&mut self, bytes: u64) {
        match self {
            Back::H1(_, wire) => wire.gave(bytes),
            Back::H2(_) => {}
        }
    }
}
