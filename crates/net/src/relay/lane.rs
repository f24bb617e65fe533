//! One direction of a relay: copies at first, and splices once it proves to be bulk.

use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll, ready};

use super::is_gone;
use super::splice::{self, Pipe};
use crate::stream::Stream;

/// The worker's buffer, and with it the largest read. Smaller ones cost a call more for each piece of bulk; with
/// larger ones what is read no longer lies in the core's own cache when it is written.
const SCRATCH: usize = 64 * 1024;

/// Reads of one direction before the other tasks of the worker get their turn: at most 1 MiB by copying.
const ROUNDS: usize = 16;

/// A read of this size is a sign of bulk.
const LARGE: usize = 16 * 1024;

/// So many bytes in large reads, with no small one between, are bulk. Below that the pipe's own calls would cost more
/// than the copying that they save.
const BULK_AFTER: usize = 256 * 1024;

/// A piece below this costs less to copy than to splice: two more calls, and a pipe's buffer for each fragment.
const SMALL: usize = 4 * 1024;

/// So many small pieces in a row, and it is no bulk any more.
const SMALL_IN_A_ROW: u32 = 8;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// Which end of a lane failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// Where the bytes come from.
    Source,
    /// Where they go.
    Destination,
}

impl Broken {
    pub(super) fn side<T>(self, source: T, destination: T) -> T {
        match self {
            Broken::Source => source,
            Broken::Destination => destination,
        }
    }
}

/// A failed end, and what the system said.
type Failure = (Broken, io::Error);

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// What the destination did not take yet. Nothing is read meanwhile.
    kept: Kept,
    state: State,
    pace: Pace,
}

/// What one turn of a lane moved.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Moved {
    /// Bytes that were read.
    pub(super) bytes: u64,
    /// Whether anything moved at all, were it only what was kept.
    pub(super) any: bool,
}

#[derive(Debug, Default)]
enum Kept {
    #[default]
    Nothing,
    /// Bytes that were read, of which so many are written.
    Bytes(Box<[u8]>, usize),
    /// Bytes that lie in a pipe.
    Piped(Pipe),
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The source has ended; what is kept is still to be written.
    Ending,
    Closed,
}

/// How the bytes have come of late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// So many bytes in large reads since the last small one.
    Copying(usize),
    /// So many small pieces in a row since the last one that was not.
    Splicing(u32),
}

impl Default for Pace {
    fn default() -> Self {
        Pace::Copying(0)
    }
}

impl Pace {
    fn after(self, bytes: usize) -> Pace {
        match self {
            Pace::Copying(_) if bytes < LARGE => Pace::Copying(0),
            Pace::Copying(so_far) if so_far + bytes < BULK_AFTER => Pace::Copying(so_far + bytes),
            Pace::Copying(_) => Pace::Splicing(0),
            Pace::Splicing(_) if bytes >= SMALL => Pace::Splicing(0),
            Pace::Splicing(small) if small + 1 < SMALL_IN_A_ROW => Pace::Splicing(small + 1),
            Pace::Splicing(_) => Pace::Copying(0),
        }
    }
}

impl Lane {
    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether the source is not being read from, so that its reset would go unnoticed.
    pub(super) fn is_deaf(&self) -> bool {
        self.state != State::Open || !matches!(self.kept, Kept::Nothing)
    }

    /// Nothing moves here any more.
    pub(super) fn abandon(&mut self) {
        self.kept = Kept::Nothing;
        self.state = State::Closed;
    }

    /// Moves what can be moved now. Ready when the lane is closed or broken; beside it what moved.
    pub(super) fn pump(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        to: &Stream,
    ) -> (Poll<Result<(), Broken>>, Moved) {
        let mut moved = Moved::default();
        for _ in 0..ROUNDS {
            match self.step(cx, from, to, &mut moved) {
                Poll::Ready(Ok(())) if self.state == State::Closed => return (Poll::Ready(Ok(())), moved),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err((side, error))) => {
                    if !is_gone(&error) {
                        tracing::debug!(%error, ?side, "a relay ends");
                    }
                    return (Poll::Ready(Err(side)), moved);
                }
                Poll::Pending => return (Poll::Pending, moved),
            }
        }
        cx.waker().wake_by_ref();
        (Poll::Pending, moved)
    }

    fn step(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        to: &Stream,
        moved: &mut Moved,
    ) -> Poll<Result<(), Failure>> {
        if !matches!(self.kept, Kept::Nothing) {
            ready!(self.write_kept(cx, to))?;
            moved.any = true;
            return Poll::Ready(Ok(()));
        }
        let read = match (self.state, self.pace) {
            (State::Closed, _) => return Poll::Ready(Ok(())),
            (State::Ending, _) => {
                self.state = State::Closed;
                return Poll::Ready(to.shutdown_write().map_err(|error| (Broken::Destination, error)));
            }
            (State::Open, Pace::Copying(_)) => ready!(self.copy(cx, from, to))?,
            (State::Open, Pace::Splicing(_)) => ready!(self.splice(cx, from, to))?,
        };
        match read {
            0 => self.state = State::Ending,
            n => {
                *moved = Moved { bytes: moved.bytes + n as u64, any: true };
                // Bytes that change on their way through us never are the kernel's to move.
                let splices = from.can_splice() && to.can_splice();
                self.pace = if splices { self.pace.after(n) } else { Pace::default() };
            }
        }
        Poll::Ready(Ok(()))
    }

    fn write_kept(&mut self, cx: &mut Context<'_>, to: &Stream) -> Poll<Result<(), Failure>> {
        let failed = |error| (Broken::Destination, error);
        let done = match &mut self.kept {
            Kept::Nothing => true,
            Kept::Bytes(bytes, written) => {
                *written += ready!(to.poll_write(cx, &bytes[*written..])).map_err(failed)?;
                *written == bytes.len()
            }
            Kept::Piped(pipe) => {
                ready!(pipe.poll_drain(cx, to)).map_err(failed)?;
                pipe.is_empty()
            }
        };
        if done {
            self.keep(Kept::Nothing);
        }
        Poll::Ready(Ok(()))
    }

    /// Puts something in the place of what was kept; an empty pipe goes back to the pool.
    fn keep(&mut self, kept: Kept) {
        if let Kept::Piped(pipe) = std::mem::replace(&mut self.kept, kept) {
            splice::give_back(pipe);
        }
    }

    /// Reads once and writes it on; what does not go is kept. Answers how much was read.
    fn copy(&mut self, cx: &mut Context<'_>, from: &Stream, to: &Stream) -> Poll<Result<usize, Failure>> {
        BUFFER.with_borrow_mut(|buffer| {
            let n = ready!(from.poll_read(cx, buffer)).map_err(|error| (Broken::Source, error))?;
            if n == 0 {
                return Poll::Ready(Ok(0));
            }
            let written = match to.poll_write(cx, &buffer[..n]) {
                Poll::Pending => 0,
                Poll::Ready(written) => written.map_err(|error| (Broken::Destination, error))?,
            };
            if written < n {
                self.kept = Kept::Bytes(buffer[written..n].into(), 0);
            }
            Poll::Ready(Ok(n))
        })
    }

    /// The same through a pipe, without the bytes passing through our memory. A connection holds a pipe only while
    /// there are bytes in it. Without a pipe to be had it copies.
    fn splice(&mut self, cx: &mut Context<'_>, from: &Stream, to: &Stream) -> Poll<Result<usize, Failure>> {
        let Some(mut pipe) = splice::take() else {
            self.pace = Pace::default();
            return self.copy(cx, from, to);
        };
        let n = match pipe.poll_fill(cx, from) {
            Poll::Ready(Ok(n)) if n > 0 => n,
            nothing => {
                splice::give_back(pipe);
                return match nothing {
                    // At TCP's urgent mark splice(2) says 0, as at the end, or EAGAIN; recv(2) gets past it.
                    Poll::Ready(Ok(_)) => self.copy(cx, from, to),
                    Poll::Pending if from.is_urgent() => self.copy(cx, from, to),
                    // A failure is told once, so nobody else is asked.
                    Poll::Ready(Err(error)) => Poll::Ready(Err((Broken::Source, error))),
                    Poll::Pending => Poll::Pending,
                };
            }
        };
        if let Poll::Ready(Err(error)) = pipe.poll_drain(cx, to) {
            return Poll::Ready(Err((Broken::Destination, error)));
        }
        match pipe.is_empty() {
            true => splice::give_back(pipe),
            false => self.kept = Kept::Piped(pipe),
        }
        Poll::Ready(Ok(n))
    }
}
