//! The two sides of an exchange, whatever version of HTTP each of them speaks.

use std::io;
use std::ops::Range;
use std::task::{Context, Poll, ready};

use wmproxy_net::stream::Stream;
use wmproxy_wire::head::{Fields, Request, Response, Version};
use wmproxy_wire::http1::{self, ChunkError, Length};

use crate::h1::Wire;
use crate::h2::{ClientStream, PeerStream};
use crate::scratch::Scratch;

/// A piece of a body, at a place of the worker's buffer.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) place: Range<usize>,
    /// Whether the body ends with it.
    pub(crate) is_last: bool,
}

impl Piece {
    /// Nothing more.
    pub(crate) fn end(scratch: &Scratch) -> Piece {
        Piece { place: scratch.read(0), is_last: true }
    }
}

/// How a side stopped before the end of its message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The connection failed.
    #[error(transparent)]
    Failed(io::Error),
    /// It ended in the middle of a body.
    #[error("it ended in the middle of a body")]
    Cut,
    /// The body is longer than its head said.
    #[error("a body is longer than its length")]
    Overrun,
    /// The body's chunks are none.
    #[error(transparent)]
    Malformed(#[from] ChunkError),
}

/// Where a body comes from.
pub(crate) trait Source {
    /// Reads a piece of `most` bytes at the most, which is not empty unless it is the last.
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        most: usize,
        trailers: &mut Fields,
    ) -> Poll<Result<Piece, Broken>>;

    /// How much of the body is still to come, if that is known, it comes as it is from a plain socket, and nothing of it is
    /// here yet.
    fn bulk(&self) -> Option<u64> {
        None
    }

    /// The socket that it comes from then.
    fn socket(&self) -> Option<&Stream> {
        None
    }

    /// So many bytes of the body were read from that socket.
    fn took(&mut self, _bytes: u64) {}
}

/// Where a body goes.
pub(crate) trait Sink {
    /// How many bytes it takes now; pending is none. What came before goes first, but for a head that may go with them.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>>;

    /// Takes a piece, of no more bytes than it was ready for. With the last one come the trailers.
    fn send(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        piece: Piece,
        trailers: &Fields,
    ) -> Result<(), Broken>;

    /// Ready when all that it took is on its way.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>>;

    /// How much of the body is still to go, if that is known, it goes as it is to a plain socket, and nothing is before it.
    fn bulk(&self) -> Option<u64>;

    /// The socket that it goes to then.
    fn socket(&self) -> Option<&Stream>;

    /// So many bytes of the body were written to that socket.
    fn gave(&mut self, bytes: u64);
}

/// The client's side: where a request comes from, and its response goes to.
#[derive(Debug)]
pub(crate) enum Front<'a> {
    /// HTTP/1.
    H1(&'a Stream, &'a mut Wire),
    /// HTTP/2.
    H2(&'a mut ClientStream),
}

impl Front<'_> {
    /// The client's connection, where it is this request's alone.
    pub(crate) fn stream(&self) -> Option<&Stream> {
        match self {
            Front::H1(stream, _) => Some(stream),
            Front::H2(_) => None,
        }
    }

    /// Begins an interim response.
    pub(crate) fn interim(&mut self, response: &Response) {
        match self {
            Front::H1(_, wire) => wire.begin(Length::None, |out| http1::write_response(response, out)),
            Front::H2(stream) => stream.interim(response),
        }
    }

    /// Begins the response to a request of `version`, of which a body follows as `body` says. `is_persistent` is whether
    /// another request may follow.
    pub(crate) fn begin(
        &mut self,
        version: Version,
        response: &mut Response,
        body: Length,
        is_persistent: bool,
    ) {
        match self {
            Front::H1(_, wire) => {
                crate::h1::frame_response(version, response, body, is_persistent);
                wire.begin(body, |out| http1::write_response(response, out));
            }
            Front::H2(stream) => stream.begin(response, body),
        }
    }

    /// From now on both directions are bytes without a length. In HTTP/2 they are what follows the response, and in HTTP/1
    /// what follows the interim one that was sent.
    pub(crate) fn tunnel(&mut self, response: &Response) {
        match self {
            Front::H1(_, wire) => wire.tunnel(),
            Front::H2(stream) => stream.begin(response, Length::UntilClose),
        }
    }

    /// Says that nothing more follows, behind all that was sent.
    pub(crate) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        match self {
            Front::H1(stream, _) => stream.poll_shutdown_write(cx).map_err(Broken::Failed),
            // The last piece said so.
            Front::H2(_) => Poll::Ready(Ok(())),
        }
    }

    /// Whether the request has come whole.
    pub(crate) fn has_come(&self) -> bool {
        match self {
            Front::H1(_, wire) => wire.has_come(),
            Front::H2(stream) => stream.has_come(),
        }
    }

    /// Whether the client has certainly gone: it waits for no answer any more.
    pub(crate) fn is_gone(&mut self, cx: &mut Context<'_>) -> bool {
        match self {
            Front::H1(stream, _) => stream.is_reset(cx),
            Front::H2(stream) => stream.is_gone(cx),
        }
    }

    /// Bytes from the client and to it since this was last asked, with all framing.
    pub(crate) fn take_counts(&mut self) -> (u64, u64) {
        match self {
            Front::H1(_, wire) => (std::mem::take(&mut wire.received), std::mem::take(&mut wire.delivered)),
            Front::H2(stream) => stream.take_counts(),
        }
    }
}

impl Source for Front<'_> {
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        most: usize,
        trailers: &mut Fields,
    ) -> Poll<Result<Piece, Broken>> {
        match self {
            Front::H1(stream, wire) => wire.poll_piece(cx, stream, scratch, most, trailers),
            Front::H2(stream) => stream.poll_piece(cx, scratch, most, trailers),
        }
    }

    fn bulk(&self) -> Option<u64> {
        match self {
            Front::H1(stream, wire) => wire.bulk_in(stream),
            Front::H2(_) => None,
        }
    }

    fn socket(&self) -> Option<&Stream> {
        match self {
            Front::H1(stream, _) => Some(stream),
            Front::H2(_) => None,
        }
    }

    fn took(&mut self, bytes: u64) {
        match self {
            Front::H1(_, wire) => wire.took(bytes),
            Front::H2(_) => {}
        }
    }
}

impl Sink for Front<'_> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        match self {
            Front::H1(stream, wire) => wire.poll_ready(cx, stream).map_ok(|()| usize::MAX),
            Front::H2(stream) => stream.poll_ready(cx),
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
            Front::H1(stream, wire) => wire.send(cx, stream, scratch, piece, trailers),
            Front::H2(stream) => stream.send(scratch, piece, trailers),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        match self {
            Front::H1(stream, wire) => wire.poll_flush(cx, stream),
            // The connection sends it in its turn.
            Front::H2(_) => Poll::Ready(Ok(())),
        }
    }

    fn bulk(&self) -> Option<u64> {
        match self {
            Front::H1(stream, wire) => wire.bulk_out(stream),
            Front::H2(_) => None,
        }
    }

    fn socket(&self) -> Option<&Stream> {
        match self {
            Front::H1(stream, _) => Some(stream),
            Front::H2(_) => None,
        }
    }

    fn gave(&mut self, bytes: u64) {
        match self {
            Front::H1(_, wire) => wire.gave(bytes),
            Front::H2(_) => {}
        }
    }
}

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
