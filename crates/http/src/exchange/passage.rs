//! What the body of a response goes through on its way to the client, where its route has filters for it.

use std::task::{Context, Poll, ready};

use wmproxy_net::stream::Stream;
use wmproxy_wire::head::Fields;

use super::{Break, Broken, Piece, Sink, Source, Way};
use crate::filter::compress::Encoder;
use crate::filter::limit::pacer::Pacer;
use crate::scratch::Scratch;

/// What the body of a response goes through. Mostly there is nothing, and the body goes straight.
#[derive(Debug, Default)]
pub(crate) struct Passage {
    pub(crate) encoder: Option<Box<Encoder>>,
    pub(crate) pacer: Option<Box<Pacer>>,
}

impl Passage {
    /// Takes the first piece of a body, which came with its head.
    pub(crate) fn begin(
        &mut self,
        cx: &mut Context<'_>,
        way: &mut Way,
        to: &mut impl Sink,
        scratch: &mut Scratch,
        piece: Piece,
    ) -> Result<(), Break> {
        if let Some(encoder) = &mut self.encoder {
            return encoder.feed(scratch.at(&piece.place), piece.is_last).map_err(Break::Source);
        }
        if let Some(pacer) = &mut self.pacer {
            pacer.spent(piece.place.len());
        }
        way.pass(cx, to, scratch, piece)
    }

    /// Moves what can be moved now; see [`Way::poll`].
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        way: &mut Way,
        from: &mut impl Source,
        to: &mut impl Sink,
        scratch: &mut Scratch,
    ) -> Poll<Result<(), Break>> {
        match (&mut self.encoder, &mut self.pacer) {
            (None, None) => way.poll(cx, from, to, scratch),
            (Some(encoder), None) => way.poll(cx, &mut encoder.through(from), to, scratch),
            (None, Some(pacer)) => way.poll(cx, from, &mut Paced { to, pacer }, scratch),
            (Some(encoder), Some(pacer)) => {
                way.poll(cx, &mut encoder.through(from), &mut Paced { to, pacer }, scratch)
            }
        }
    }
}

/// A side that takes no more than its rate.
struct Paced<'a, S> {
    to: &'a mut S,
    pacer: &'a mut Pacer,
}

impl<S: Sink> Sink for Paced<'_, S> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        let room = ready!(self.to.poll_ready(cx))?;
        let allowed = ready!(self.pacer.poll_allowance(cx));
        Poll::Ready(Ok(room.min(allowed)))
    }

    fn send(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        piece: Piece,
        trailers: &Fields,
    ) -> Result<(), Broken> {
        self.pacer.used(piece.place.len());
        self.to.send(cx, scratch, piece, trailers)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.to.poll_flush(cx)
    }

    /// Nothing goes in bulk that has a rate.
    fn bulk(&self) -> Option<u64> {
        None
    }

    fn socket(&self) -> Option<&Stream> {
        None
    }

    fn gave(&mut self, bytes: u64) {
        self.to.gave(bytes);
    }
}
