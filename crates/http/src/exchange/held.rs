//! A request's body that is read before a peer is asked.

use std::future::poll_fn;
use std::task::{Context, Poll};

use wmproxy_wire::head::{Fields, Known, Response};
use wmproxy_wire::http1::{self, Length};

use super::respond::decimal;
use super::sides::Sink;
use super::{Broken, Exchange, Front, Piece, Source, Trouble};
use crate::scratch::{ROOM, Scratch};
use crate::timer::after;

/// So much of a body is held. With more the request goes on its way as it comes, behind what is held; then it can't be
/// asked again.
const MOST: usize = 1024 * 1024;

/// The beginning of a body, or all of it.
#[derive(Debug)]
pub(crate) struct Held {
    bytes: Vec<u8>,
    /// How much of it is on its way.
    at: usize,
    is_whole: bool,
    /// What came behind it.
    trailers: Fields,
}

impl Held {
    /// Whether nothing of the body is anywhere else.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Begins at its front once more.
    pub(super) fn rewind(&mut self) {
        self.at = 0;
    }
}

/// A body of which a part is held.
pub(super) struct Continued<'a, 'f> {
    pub(super) held: &'a mut Held,
    pub(super) rest: &'a mut Front<'f>,
}

impl Source for Continued<'_, '_> {
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        most: usize,
        trailers: &mut Fields,
    ) -> Poll<Result<Piece, Broken>> {
        let Held { bytes, at, is_whole, trailers: behind } = &mut *self.held;
        if *at == bytes.len() && !*is_whole {
            return self.rest.poll_piece(cx, scratch, most, trailers);
        }
        let room = scratch.room();
        let n = (bytes.len() - *at).min(room.len()).min(most);
        room[..n].copy_from_slice(&bytes[*at..][..n]);
        *at += n;
        let is_last = *is_whole && *at == bytes.len();
        if is_last {
            trailers.clone_from(behind);
        }
        Poll::Ready(Ok(Piece { place: scratch.read(n), is_last }))
    }
}

impl Exchange<'_, '_> {
    /// Reads the request's body, as far as it is held. The client that waits to be asked for it is asked.
    pub(crate) async fn hold(&mut self) -> Result<(), Trouble> {
        if self.body == Length::None {
            return Ok(());
        }
        if http1::expects_continue(self.request) {
            self.request.fields.remove(Known::Expect);
            self.front.interim(&Response::with_status(100));
        }
        let mut held = Box::new(Held { bytes: Vec::new(), at: 0, is_whole: false, trailers: Fields::new() });
        let body = self.service.spec().timeouts.body.get();
        let limit = self.service.spec().limits.body.bytes();
        let (mut due, mut counted) = (after(body), 0);
        while held.bytes.len() <= MOST && !held.is_whole {
            let piece = poll_fn(|cx| {
                let mut scratch = Scratch::take();
                // A client that does not take a line of 25 bytes waits for nothing.
                let _ = self.front.poll_flush(cx).map_err(Trouble::Client)?;
                match self.front.poll_piece(cx, &mut scratch, ROOM, &mut held.trailers) {
                    Poll::Ready(piece) => {
                        let piece = piece.map_err(Trouble::Client)?;
                        held.bytes.extend_from_slice(scratch.at(&piece.place));
                        Poll::Ready(Ok(piece.is_last))
                    }
                    Poll::Pending => self.timer.poll_until(cx, due).map(|()| Err(Trouble::ClientSlow)),
                }
            });
            held.is_whole = piece.await?;
            let came = held.bytes.len() as u64;
            if came - counted >= self.least() {
                (due, counted) = (after(body), came);
            }
            self.count();
            if came > limit {
                return Err(Trouble::TooLarge);
            }
        }
        if held.is_whole && held.trailers.is_empty() {
            let length = held.bytes.len() as u64;
            self.body = Length::Known(length);
            self.request.fields.remove(Known::TransferEncoding);
            self.request.fields.set(Known::ContentLength, decimal(length, &mut [0; 20]));
        }
        self.held = Some(held);
        Ok(())
    }
}
