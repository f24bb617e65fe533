//! Bodies that are made while they are sent: listings and archives.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use wmproxy_files::produce::Produce;
use wmproxy_wire::head::Fields;

use super::pool::Work;
use crate::exchange::{Broken, Piece, Source};
use crate::scratch::Scratch;

/// So many are made at once, on all workers together. Each has the names of a directory in memory, some megabytes if that is a
/// large one, for as long as its client takes. One that has come to its last piece has none, and counts no more.
const MOST: usize = 64;

static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Counts as one until it is dropped.
#[derive(Debug)]
struct Counted;

impl Drop for Counted {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body that is made beside the worker, a piece at a time: the next one while one is sent, and no more.
#[derive(Debug)]
pub(super) struct ProducedSource {
    /// None when the last piece has come.
    making: Option<Work<Made>>,
    /// What has come, and how much of it went.
    piece: Vec<u8>,
    sent: usize,
    counted: Option<Counted>,
}

/// A piece, and whoever makes the next.
#[derive(Debug)]
struct Made {
    piece: Vec<u8>,
    produce: Box<dyn Produce>,
    has_more: io::Result<bool>,
}

impl ProducedSource {
    /// Begins to make a body; none when there are too many.
    pub(super) fn new(produce: Box<dyn Produce>) -> Option<ProducedSource> {
        let room = |running| (running < MOST).then_some(running + 1);
        let counted = RUNNING.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).map(|_| Counted);
        let counted = counted.ok()?;
        Some(ProducedSource {
            making: Some(make(produce)),
            piece: Vec::new(),
            sent: 0,
            counted: Some(counted),
        })
    }
}

fn make(mut produce: Box<dyn Produce>) -> Work<Made> {
    Work::start_toil(move || {
        let mut piece = Vec::new();
        let has_more = produce.produce(&mut piece);
        Made { piece, produce, has_more }
    })
}

impl Source for ProducedSource {
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        most: usize,
        _: &mut Fields,
    ) -> Poll<Result<Piece, Broken>> {
        while self.sent == self.piece.len() {
            let Some(making) = &mut self.making else { return Poll::Ready(Ok(Piece::end(scratch))) };
            let Some(Made { piece, produce, has_more }) = ready!(making.poll(cx)) else {
                return Poll::Ready(Err(Broken::Unreadable(io::ErrorKind::Other.into())));
            };
            self.making = has_more.map_err(Broken::Unreadable)?.then(|| make(produce));
            if self.making.is_none() {
                self.counted = None;
            }
            (self.piece, self.sent) = (piece, 0);
        }
        let room = scratch.room();
        let n = (self.piece.len() - self.sent).min(room.len()).min(most);
        room[..n].copy_from_slice(&self.piece[self.sent..][..n]);
        self.sent += n;
        let is_last = self.making.is_none() && self.sent == self.piece.len();
        Poll::Ready(Ok(Piece { place: scratch.read(n), is_last }))
    }
}
