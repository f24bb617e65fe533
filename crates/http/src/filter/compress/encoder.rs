//! What sits between a peer and a client, and compresses.

use std::cell::Cell;
use std::task::{Context, Poll};

use wmproxy_wire::head::Fields;

use super::coder::{Aim, Coder};
use crate::exchange::{Broken, Piece, Source};
use crate::options::Encoding;
use crate::scratch::Scratch;

/// Coders at a time on a worker. Each has up to two megabytes until the body has come whole, so who reads large ones slowly by
/// many connections must not have one for each; further responses go as they are.
const MOST: usize = 128;

/// So much of a body is compressed before the way looks around: a worker has other things to do, and brotli takes half a
/// millisecond for 64 KB.
const PIECE: usize = 16 << 10;

/// Pieces that may come to nothing before the worker's other tasks get their turn: megabytes of zeros do for a while.
const ROUNDS: usize = 16;

/// What an encoder may keep between pieces.
const KEPT: usize = 64 << 10;

thread_local! {
    static RUNNING: Cell<usize> = const { Cell::new(0) };
}

/// A body on its way from a peer, being compressed.
///
/// It holds nothing back: when nothing more comes for now, what has come is put in a form that the client can read. So
/// events that are minutes apart arrive when they happen, and a body that comes at one go is compressed as one.
#[derive(Debug)]
pub(crate) struct Encoder {
    /// None when it has failed, and when the end has come.
    coder: Option<Coder>,
    /// What is to be sent, from `sent` on.
    out: Vec<u8>,
    sent: usize,
    /// Whether the coder holds something back.
    holds: bool,
    /// Whether the end has come.
    has_ended: bool,
}

impl Encoder {
    /// One for a body, of a length that may be known; none where there are too many, or there is no memory for it.
    pub(super) fn new(coding: Encoding, length: Option<u64>) -> Option<Encoder> {
        if RUNNING.get() >= MOST {
            return None;
        }
        let coder = Some(Coder::new(coding, length)?);
        RUNNING.set(RUNNING.get() + 1);
        Some(Encoder { coder, out: Vec::new(), sent: 0, holds: false, has_ended: false })
    }

    /// Takes a piece of the body; `is_last` is whether it ends with it.
    ///
    /// # Errors
    /// The coder has failed, and the body is cut.
    pub(crate) fn feed(&mut self, data: &[u8], is_last: bool) -> Result<(), Broken> {
        let aim = if is_last { Aim::Finish } else { Aim::Take };
        self.holds = !is_last && (self.holds || !data.is_empty());
        self.has_ended = is_last;
        self.run(data, aim)
    }

    /// Puts what was fed in a form that can be read, however little it is.
    fn flush(&mut self) -> Result<(), Broken> {
        if !std::mem::take(&mut self.holds) {
            return Ok(());
        }
        self.run(b"", Aim::Flush)
    }

    fn run(&mut self, data: &[u8], aim: Aim) -> Result<(), Broken> {
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
            self.out.shrink_to(KEPT);
        }
        let done = self.coder.as_mut().map(|coder| coder.run(data, aim, &mut self.out));
        let is_well = done == Some(Ok(()));
        if aim == Aim::Finish || !is_well {
            // Who reads slowly keeps the bytes waiting, and not the coder.
            self.release();
        }
        if is_well { Ok(()) } else { Err(Broken::Cut) }
    }

    fn release(&mut self) {
        if let Some(coder) = self.coder.take() {
            RUNNING.set(RUNNING.get() - 1);
            coder.recycle();
        }
    }

    /// A body that is there, compressed.
    ///
    /// # Errors
    /// The coder has failed.
    pub(crate) fn all(mut self, body: &[u8]) -> Result<Vec<u8>, Broken> {
        self.feed(body, true)?;
        Ok(std::mem::take(&mut self.out))
    }

    /// What is there to be sent, as a piece of at most `most` bytes.
    pub(super) fn piece(&mut self, scratch: &mut Scratch, most: usize) -> Piece {
        let room = scratch.room();
        let pending = &self.out[self.sent..];
        let n = pending.len().min(room.len()).min(most);
        room[..n].copy_from_slice(&pending[..n]);
        self.sent += n;
        Piece { place: scratch.read(n), is_last: self.has_ended && self.sent == self.out.len() }
    }

    /// The body of `from`, compressed.
    pub(crate) fn through<'a, S: Source>(&'a mut self, from: &'a mut S) -> Through<'a, S> {
        Through { encoder: self, from }
    }
}

/// A body that is compressed on its way; see [`Encoder::through`].
pub(crate) struct Through<'a, S> {
    encoder: &'a mut Encoder,
    from: &'a mut S,
}

impl<S: Source> Source for Through<'_, S> {
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        most: usize,
        trailers: &mut Fields,
    ) -> Poll<Result<Piece, Broken>> {
        let encoder = &mut *self.encoder;
        for _ in 0..ROUNDS {
            if encoder.sent < encoder.out.len() || encoder.has_ended {
                return Poll::Ready(Ok(encoder.piece(scratch, most)));
            }
            match self.from.poll_piece(cx, scratch, PIECE, trailers) {
                Poll::Ready(piece) => {
                    let Piece { place, is_last } = piece?;
                    encoder.feed(scratch.at(&place), is_last)?;
                }
                Poll::Pending => {
                    encoder.flush()?;
                    if encoder.sent == encoder.out.len() {
                        return Poll::Pending;
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        self.release();
    }
}
