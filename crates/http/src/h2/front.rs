//! A client's stream: its request comes here, and its response goes.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use wmproxy_wire::head::{Fields, Response};
use wmproxy_wire::http1::Length;

use super::body::{Incoming, Outgoing};
use super::convert;
use crate::exchange::{Broken, Piece};
use crate::scratch::Scratch;

/// One request of a connection.
#[derive(Debug)]
pub(crate) struct ClientStream {
    incoming: Incoming,
    respond: SendResponse<Bytes>,
    /// Once the response has begun.
    outgoing: Option<Outgoing>,
    /// The tunnels of its connection, and this as one of them.
    tunnels: Rc<Tunnels>,
    as_tunnel: Option<AsTunnel>,
}

/// How many streams of a connection are tunnels now.
#[derive(Debug, Default)]
pub(super) struct Tunnels(Cell<u32>);

impl Tunnels {
    pub(super) fn number(&self) -> u32 {
        self.0.get()
    }
}

/// Counts as one until it is dropped.
#[derive(Debug)]
struct AsTunnel(Rc<Tunnels>);

impl Drop for AsTunnel {
    fn drop(&mut self) {
        self.0.0.set(self.0.0.get() - 1);
    }
}

impl ClientStream {
    pub(super) fn new(
        request: RecvStream,
        respond: SendResponse<Bytes>,
        tunnels: Rc<Tunnels>,
    ) -> ClientStream {
        ClientStream { incoming: Incoming::new(request), respond, outgoing: None, tunnels, as_tunnel: None }
    }

    /// Sends an interim response. One that can't be sent is missed by nobody.
    pub(crate) fn interim(&mut self, response: &Response) {
        if let Ok(response) = convert::write_response(response) {
            let _ = self.respond.send_informational(response);
        }
    }

    /// Sends the head of the response; a body follows unless `body` says that there is none. That it failed is told by
    /// what comes next.
    pub(crate) fn begin(&mut self, response: &Response, body: Length) {
        let is_over = matches!(body, Length::None | Length::Known(0));
        let Ok(response) = convert::write_response(response) else { return };
        if let Ok(stream) = self.respond.send_response(response, is_over) {
            self.outgoing = Some(Outgoing::new(stream, is_over));
        }
    }

    /// The same for one that makes a tunnel of the stream.
    pub(crate) fn begin_tunnel(&mut self, response: &Response) {
        self.begin(response, Length::UntilClose);
        self.tunnels.0.set(self.tunnels.0.get() + 1);
        self.as_tunnel = Some(AsTunnel(Rc::clone(&self.tunnels)));
    }

    /// Whether the request has come whole.
    pub(crate) fn has_come(&self) -> bool {
        self.incoming.has_come()
    }

    /// Whether the client waits for no answer any more: it reset the stream, or has gone.
    pub(crate) fn is_gone(&mut self, cx: &mut Context<'_>) -> bool {
        match &mut self.outgoing {
            Some(outgoing) => !outgoing.is_over() && outgoing.poll_reset(cx).is_ready(),
            None => self.respond.poll_reset(cx).is_ready(),
        }
    }

    /// Bytes of bodies from the client and to it since this was last asked.
    pub(crate) fn take_counts(&mut self) -> (u64, u64) {
        let sent = self.outgoing.as_mut().map_or(0, Outgoing::take_count);
        (self.incoming.take_count(), sent)
    }

    /// Ends the stream; `cut` says why it is broken off, if it is. What is missing of the response is broken off, so that nobody takes it for the whole. That a request
    /// which has not come whole is wanted no more (RFC 9113 section 8.1) the library says when the stream is dropped: behind the
    /// response, where a reset of ours would go before it.
    pub(super) fn end(&mut self, cut: Option<Reason>) {
        match &mut self.outgoing {
            Some(outgoing) if outgoing.is_over() && cut.is_none() => {}
            Some(outgoing) => outgoing.reset(cut.unwrap_or(Reason::INTERNAL_ERROR)),
            None => self.respond.send_reset(Reason::CANCEL),
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
        self.incoming.poll_piece(cx, scratch, most, trailers)
    }

    /// See [`Sink`](crate::exchange::Sink).
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        self.outgoing.as_mut().map_or(Poll::Ready(Err(Broken::Cut)), |outgoing| outgoing.poll_ready(cx))
    }

    /// See [`Sink`](crate::exchange::Sink).
    pub(crate) fn send(
        &mut self,
        scratch: &mut Scratch,
        piece: Piece,
        trailers: &Fields,
    ) -> Result<(), Broken> {
        let outgoing = self.outgoing.as_mut().ok_or(Broken::Cut)?;
        outgoing.send(scratch.at(&piece.place), piece.is_last, trailers)
    }
}
