//! Bodies that pass no faster than somebody may have them pass.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use wmproxy_net::relay::{Brake, Terms};
use wmproxy_wire::head::Fields;

use super::{Broken, Piece, Source};
use crate::scratch::Scratch;

/// What slows down both bodies of an exchange.
#[derive(Debug, Default)]
pub(crate) struct Brakes {
    pub(crate) up: Option<Box<Brake>>,
    pub(crate) down: Option<Box<Brake>>,
}

impl Brakes {
    /// Those of a tunnel.
    pub(crate) fn of(terms: Terms) -> Brakes {
        Brakes { up: terms.up, down: terms.down }
    }

    /// Waits until what has passed unasked before is paid for.
    pub(crate) async fn settle(&mut self) {
        for brake in [&mut self.up, &mut self.down].into_iter().flatten() {
            poll_fn(|cx| brake.poll_piece(cx)).await;
            brake.used(0);
        }
    }

    /// Tells of the piece of a response that came with its head.
    pub(crate) fn spent_down(&mut self, bytes: usize) {
        if let Some(brake) = &mut self.down {
            brake.spent(bytes);
        }
    }
}

/// A body that is read no faster than its brake lets it.
pub(crate) struct Braked<'a, S> {
    pub(crate) from: &'a mut S,
    pub(crate) brake: &'a mut Brake,
}

/// It never goes in bulk, for the kernel knows no rate.
impl<S: Source> Source for Braked<'_, S> {
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        most: usize,
        trailers: &mut Fields,
    ) -> Poll<Result<Piece, Broken>> {
        let allowed = ready!(self.brake.poll_piece(cx)).min(most);
        let piece = self.from.poll_piece(cx, scratch, allowed, trailers);
        // What is not there yet holds nothing that others could have.
        self.brake.used(match &piece {
            Poll::Ready(Ok(piece)) => piece.place.len(),
            _ => 0,
        });
        piece
    }
}
