//! A stream to a peer: a request goes here, and its response comes.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream};
use wmproxy_wire::head::{Fields, Known, Request, Response, Scheme};
use wmproxy_wire::http1::Length;

use super::body::{self, Incoming, Outgoing};
use super::common::Entered;
use super::convert::{self, Malformed};
use super::pool::Free;
use crate::exchange::{Broken, NoResponse, Piece};
use crate::scratch::Scratch;

/// One request to a peer, on a connection that has room for it.
#[derive(Debug)]
pub(crate) struct PeerStream {
    connection: SendRequest<Bytes>,
    scheme: Scheme,
    state: State,
    /// Among the streams of its connection.
    place: Entered,
}

#[derive(Debug)]
enum State {
    /// Nothing was sent.
    Fresh,
    /// It could not be.
    Failed(Option<NoResponse>),
    Asked {
        response: ResponseFuture,
        outgoing: Outgoing,
    },
    Answered {
        incoming: Incoming,
        outgoing: Outgoing,
    },
}

impl PeerStream {
    /// Of a connection that has room for it.
    pub(super) fn new(Free { connection, scheme, place }: Free) -> PeerStream {
        PeerStream { connection, scheme, state: State::Fresh, place }
    }

    /// Whether a stream may become something else (RFC 8441 section 3). The peer says so first of all; whoever asks before it
    /// has been heard waits for that.
    pub(crate) async fn takes_connect(&mut self) -> bool {
        if !self.connection.is_extended_connect_protocol_enabled() {
            self.place.hear().await;
        }
        self.connection.is_extended_connect_protocol_enabled()
    }

    /// Sends the head of the request; a body follows unless `body` says that there is none. That it failed is told by
    /// [`poll_response`](PeerStream::poll_response).
    pub(crate) fn begin(&mut self, request: &Request, body: Length) {
        // With a protocol the stream stays open, for what it becomes.
        let is_over = matches!(body, Length::None | Length::Known(0)) && request.protocol().is_none();
        let sent = match convert::write_request(request, self.scheme) {
            // Of what can't be sent the peer has seen nothing.
            Ok(request) => self
                .connection
                .send_request(request, is_over)
                .map_err(|error| NoResponse::Refused(io::Error::other(error))),
            Err(malformed) => Err(NoResponse::Bad(malformed.into())),
        };
        self.state = match sent {
            Ok((response, stream)) => State::Asked { response, outgoing: Outgoing::new(stream, is_over) },
            Err(error) => State::Failed(Some(error)),
        };
    }

    /// Reads the head of a response, or of an interim one, and says how long its body is.
    pub(crate) fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Response,
    ) -> Poll<Result<Length, NoResponse>> {
        let State::Asked { response, .. } = &mut self.state else {
            let State::Failed(error) = &mut self.state else { return Poll::Pending };
            let gone = || NoResponse::Silent(io::ErrorKind::ConnectionReset.into());
            return Poll::Ready(Err(error.take().unwrap_or_else(gone)));
        };
        if let Poll::Ready(Some(interim)) = response.poll_informational(cx) {
            let (parts, ()) = interim.map_err(no_response)?.into_parts();
            convert::read_response(&parts, into).map_err(bad)?;
            return Poll::Ready(Ok(Length::None));
        }
        let (parts, stream) =
            ready!(std::pin::Pin::new(response).poll(cx)).map_err(no_response)?.into_parts();
        convert::read_response(&parts, into).map_err(bad)?;
        let length = length(&stream, into).map_err(bad)?;
        let State::Asked { outgoing, .. } = std::mem::replace(&mut self.state, State::Fresh) else {
            return Poll::Pending;
        };
        self.state = State::Answered { incoming: Incoming::new(stream), outgoing };
        Poll::Ready(Ok(length))
    }

    /// Whether the whole of the exchange is over, so that nothing has to be broken off.
    fn is_over(&self) -> bool {
        match &self.state {
            State::Answered { incoming, outgoing } => incoming.has_come() && outgoing.is_over(),
            State::Fresh | State::Failed(_) => true,
            State::Asked { .. } => false,
        }
    }

    fn outgoing(&mut self) -> Option<&mut Outgoing> {
        match &mut self.state {
            State::Asked { outgoing, .. } | State::Answered { outgoing, .. } => Some(outgoing),
            State::Fresh | State::Failed(_) => None,
        }
    }

    /// See [`Source`](crate::exchange::Source).
    pub(crate) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        most: usize,
        trailers: &mut Fields,
    ) -> Poll<Result<Piece, Broken>> {
        match &mut self.state {
            State::Answered { incoming, .. } => incoming.poll_piece(cx, scratch, most, trailers),
            _ => Poll::Ready(Err(Broken::Cut)),
        }
    }

    /// See [`Sink`](crate::exchange::Sink).
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        self.outgoing().map_or(Poll::Ready(Err(Broken::Cut)), |outgoing| outgoing.poll_ready(cx))
    }

    /// See [`Sink`](crate::exchange::Sink).
    pub(crate) fn send(
        &mut self,
        scratch: &mut Scratch,
        piece: Piece,
        trailers: &Fields,
    ) -> Result<(), Broken> {
        let outgoing = self.outgoing().ok_or(Broken::Cut)?;
        outgoing.send(scratch.at(&piece.place), piece.is_last, trailers)
    }
}

impl Drop for PeerStream {
    fn drop(&mut self) {
        if self.is_over() {
            return self.place.mark_whole();
        }
        // Who is not interested any more says so, or the peer would work for nothing.
        if let Some(outgoing) = self.outgoing() {
            outgoing.reset(Reason::CANCEL);
        }
    }
}

/// How long a response is, as its fields say or the end of its stream does.
fn length(stream: &RecvStream, response: &Response) -> Result<Length, Malformed> {
    if stream.is_end_stream() {
        let has_none = matches!(response.status, 204 | 304);
        return Ok(if has_none { Length::None } else { Length::Known(0) });
    }
    let Some(length) = response.fields.get(Known::ContentLength) else { return Ok(Length::Chunked) };
    let length = std::str::from_utf8(length).ok().and_then(|length| length.parse().ok());
    Ok(Length::Known(length.ok_or(Malformed("a Content-Length that is no number"))?))
}

fn bad(malformed: Malformed) -> NoResponse {
    NoResponse::Bad(malformed.into())
}

/// How the library says that no response came.
fn no_response(error: h2::Error) -> NoResponse {
    // By REFUSED_STREAM, or by a GOAWAY that names an earlier stream as the last: only those it leaves out hear of it.
    let is_refused = error.reason() == Some(Reason::REFUSED_STREAM) || error.is_go_away();
    if error.is_remote() && is_refused {
        return NoResponse::Refused(io::Error::other(error));
    }
    match body::broken(error) {
        Broken::Failed(error) => NoResponse::Silent(error),
        _ => NoResponse::Silent(io::ErrorKind::ConnectionReset.into()),
    }
}
