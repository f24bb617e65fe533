//! Copies of requests for somebody who watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use wmproxy_wire::head::{Fields, Known, Method, Request};
use wmproxy_wire::http1::Length;

use crate::exchange::{Broken, Piece, Source};
use crate::scratch::Scratch;

/// Copies of a route that are under way at a time. One that is slow must cost no more than this; what comes meanwhile has no
/// copy.
const MOST: usize = 64;

/// The largest body that is copied; larger requests have no copy. With [`MOST`] it says how much memory copies may take.
const LARGEST: usize = 64 << 10;

/// Copies the requests of a route.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    running: Arc<AtomicUsize>,
}

/// A copy of a request. It is made while the request passes, and never makes that wait.
#[derive(Debug)]
pub(crate) struct Copy {
    request: Request,
    has_body: bool,
    body: Vec<u8>,
    place: Place,
}

/// A body of which a copy is made on its way.
pub(crate) struct Tapped<'a, S> {
    pub(crate) from: &'a mut S,
    /// Gone once the body has become too large.
    pub(crate) copy: &'a mut Option<Box<Copy>>,
}

impl<S: Source> Source for Tapped<'_, S> {
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        most: usize,
        trailers: &mut Fields,
    ) -> Poll<Result<Piece, Broken>> {
        let piece = ready!(self.from.poll_piece(cx, scratch, most, trailers))?;
        if !self.copy.as_mut().is_none_or(|copy| copy.add(scratch.at(&piece.place))) {
            *self.copy = None;
        }
        Poll::Ready(Ok(piece))
    }
}

/// A copy that is whole, to be sent. Its answer is nobody's.
#[derive(Debug)]
pub(crate) struct Mirrored {
    /// Its head.
    pub(crate) request: Request,
    /// Its body.
    pub(crate) body: Vec<u8>,
    /// To be held until the answer has come, or was given up.
    pub(crate) place: Place,
}

/// Counts as a copy that is under way until it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Mirror {
    /// A copy of a request as it goes to a peer, with a body of this length. None of one that has too large a body, that
    /// wants to become something else than HTTP, or that comes while there are too many.
    pub(crate) fn copy(&self, request: &Request, length: Length) -> Option<Copy> {
        let fits = match length {
            Length::Known(bytes) => bytes <= LARGEST as u64,
            Length::None | Length::Chunked | Length::UntilClose => true,
        };
        let stays = request.method != Method::Connect && !request.fields.has(Known::Upgrade);
        if !fits || !stays {
            return None;
        }
        let room = |running| (running < MOST).then_some(running + 1);
        self.running.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        let place = Place(Arc::clone(&self.running));
        let mut request = request.clone();
        for known in [Known::ContentLength, Known::TransferEncoding, Known::Expect, Known::Trailer] {
            request.fields.remove(known);
        }
        Some(Copy { request, has_body: length != Length::None, body: Vec::new(), place })
    }
}

impl Copy {
    /// Adds a piece of the body. False when it is too large; the copy is then to be dropped.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> bool {
        let fits = self.body.len() + bytes.len() <= LARGEST;
        if fits {
            self.body.extend_from_slice(bytes);
        }
        fits
    }

    /// Forgets the body, for it comes from its front once more.
    pub(crate) fn rewind(&mut self) {
        self.body.clear();
    }

    /// Its head, which may be changed for whom it goes to.
    pub(crate) fn request(&mut self) -> &mut Request {
        &mut self.request
    }

    /// The copy, now that all of the request has come.
    pub(crate) fn finish(mut self) -> Mirrored {
        if self.has_body {
            let length = self.body.len().to_string();
            self.request.fields.push_known(Known::ContentLength, length.as_bytes());
        }
        Mirrored { request: self.request, body: self.body, place: self.place }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::get;

    fn post() -> Request {
        let (mut request, _) = get("/a?b");
        request.set_method(b"POST");
        request.fields.push_known(Known::ContentLength, b"5");
        request.fields.push_known(Known::Expect, b"100-continue");
        request.fields.push(b"X-Kept", b"1");
        request
    }

    #[test]
    fn a_copy_is_the_request_with_its_body() {
        let mirror = Mirror::default();
        let mut copy = mirror.copy(&post(), Length::Known(5)).unwrap();
        assert!(copy.add(b"he") && copy.add(b"llo"));
        let mirrored = copy.finish();
        assert_eq!((mirrored.request.target(), &*mirrored.body), (&b"/a?b"[..], &b"hello"[..]));
        let names: Vec<_> = mirrored.request.fields.iter().map(|field| field.name).collect();
        assert_eq!(names, [&b"X-Kept"[..], b"Content-Length"]);
        assert_eq!(mirror.running.load(Ordering::Relaxed), 1);
        drop(mirrored.place);
        assert_eq!(mirror.running.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_is_too_much_is_not_copied() {
        let mirror = Mirror::default();
        assert!(mirror.copy(&post(), Length::Known(1 << 20)).is_none());
        let mut chunked = mirror.copy(&post(), Length::Chunked).unwrap();
        assert!(chunked.add(&[0; 60_000]) && !chunked.add(&[0; 6_000]));
        drop(chunked);
        let mut upgrade = post();
        upgrade.fields.push_known(Known::Upgrade, b"websocket");
        assert!(mirror.copy(&upgrade, Length::None).is_none());
        let copies: Vec<_> = (0..100).filter_map(|_| mirror.copy(&post(), Length::None)).collect();
        assert_eq!(copies.len(), MOST);
    }
}
