//! What the two sides of an exchange have in common, and the client's, whatever version of HTTP it speaks.

use std::io;
use std::ops::Range;
use std::task::{Context, Poll};

use wmproxy_net::stream::Stream;
use wmproxy_wire::head::{Fields, Response, Version};
use wmproxy_wire::http1::{self, ChunkError, Length};

use crate::h1::Wire;
use crate::h2::ClientStream;
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
    /// The file that it comes from is not the one any more that its head speaks of.
    #[error("the file has changed meanwhile")]
    Changed,
    /// That file, or directory, can't be read.
    #[error("it can't be read: {0}")]
    Unreadable(io::Error),
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

    /// All that is left, where it lies in memory until it is sent, and is worth to be sent from there.
    fn at_hand(&self) -> &[u8] {
        &[]
    }

    /// So many of those bytes were sent.
    fn used(&mut self, _bytes: usize) {}

    /// Has the kernel send the next bytes to a plain socket by itself, and says how many went; none where it can't, or that is
    /// not worth it, and a piece is to be read. Pending is for room only.
    ///
    /// # Errors
    /// The socket's.
    fn poll_send(&mut self, _cx: &mut Context<'_>, _to: &Stream) -> Poll<Result<usize, Broken>> {
        Poll::Ready(Ok(0))
    }
}

/// Where a body goes.
pub(crate) trait Sink {
    /// How many bytes it takes now; pending is none. What came before goes first, but for a head that may go with them.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>>;

    /// Takes bytes from where they lie, behind what is pending, and says how many went; none if they have to come as a piece.
    fn poll_put(&mut self, _cx: &mut Context<'_>, _bytes: &[u8]) -> Poll<Result<Option<usize>, Broken>> {
        Poll::Ready(Ok(None))
    }

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
            Front::H2(stream) => stream.begin_tunnel(response),
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

    /// Whether the client has sent something behind the request, on a connection that is this request's alone.
    pub(crate) fn has_ahead(&self) -> bool {
        match self {
            Front::H1(_, wire) => wire.has_ahead(),
            Front::H2(_) => false,
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

    fn poll_put(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<Option<usize>, Broken>> {
        match self {
            Front::H1(stream, wire) => wire.poll_put(cx, stream, bytes),
            Front::H2(_) => Poll::Ready(Ok(None)),
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
