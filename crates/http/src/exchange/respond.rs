//! Responses that are made here.

use std::future::poll_fn;
use std::task::{Context, Poll};

use wmproxy_net::relay::Splice;
use wmproxy_wire::head::{Fields, Known, Method};
use wmproxy_wire::http1::Length;

use super::{Broken, Cut, Exchange, Passage, Piece, Source, Waits, date};
use crate::scratch::Scratch;

/// A body that is there.
struct Ready<'a>(&'a [u8]);

/// From so much on a body is sent from where it lies. Less is copied behind its head sooner than the kernel is told of two
/// pieces.
const WORTH: usize = 8 * 1024;

impl Source for Ready<'_> {
    fn poll_piece(
        &mut self,
        _: &mut Context<'_>,
        scratch: &mut Scratch,
        most: usize,
        _: &mut Fields,
    ) -> Poll<Result<Piece, Broken>> {
        let room = scratch.room();
        let n = self.0.len().min(room.len()).min(most);
        room[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Poll::Ready(Ok(Piece { place: scratch.read(n), is_last: self.0.is_empty() }))
    }

    fn at_hand(&self) -> &[u8] {
        if self.0.len() >= WORTH { self.0 } else { &[] }
    }

    fn used(&mut self, bytes: usize) {
        self.0 = &self.0[bytes..];
    }
}

/// No body.
pub(crate) struct Nothing;

impl Source for Nothing {
    fn poll_piece(
        &mut self,
        _: &mut Context<'_>,
        scratch: &mut Scratch,
        _: usize,
        _: &mut Fields,
    ) -> Poll<Result<Piece, Broken>> {
        Poll::Ready(Ok(Piece::end(scratch)))
    }
}

impl Exchange<'_, '_> {
    /// Dates the response that is there, if whoever made it has not.
    pub(crate) fn date(&mut self) {
        date::put(self.response);
    }

    /// Answers with the response that is there, and this body, which goes through `passage`.
    pub(crate) async fn respond(&mut self, body: &[u8], passage: Passage) -> Result<(), Cut> {
        let has_none = matches!(self.response.status, 100..200 | 204 | 304);
        if has_none {
            self.response.fields.remove(Known::ContentLength);
        } else {
            let mut digits = [0; 20];
            self.response.fields.set(Known::ContentLength, decimal(body.len() as u64, &mut digits));
        }
        date::put(self.response);
        let is_bare = has_none || self.request.method == Method::Head;
        self.begin(if is_bare { Length::None } else { Length::Known(body.len() as u64) });
        self.send(&mut Ready(if is_bare { b"" } else { body }), passage).await
    }

    /// Sends the body of a response that has begun, whatever it comes from, through `passage`.
    pub(crate) async fn send(&mut self, source: &mut impl Source, mut passage: Passage) -> Result<(), Cut> {
        self.down.begin(Splice::Off);
        poll_fn(|cx| {
            let mut scratch = Scratch::take();
            let moved = passage.poll(cx, self.down, source, &mut self.front, &mut scratch);
            self.count();
            if let Poll::Ready(done) = moved {
                return Poll::Ready(done.map_err(Cut::from));
            }
            if self.front.is_gone(cx) {
                return Poll::Ready(Err(Cut::Client(Broken::Cut)));
            }
            match self.down.waits {
                Waits::Sink => self.poll_client_slow(cx),
                // The disk answers when it does; who has gone meanwhile is noticed.
                Waits::Source => Poll::Pending,
            }
        })
        .await
    }
}

/// A number in digits.
pub(crate) fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_digits() {
        for number in [0, 7, 10, 1234, u64::MAX] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string().as_bytes());
        }
    }
}
