//! One direction of a relay: copies at first, and splices once it proves to be bulk.

use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll, ready};

use super::brake::Brake;
use super::splice::{self, Pipe};
use super::{Splice, is_gone};
use crate::MARGIN;
use crate::record::Outcome;
use crate::stream::Stream;
use crate::tls;

/// The worker's buffer, and with it the largest read. Smaller ones cost a call more for each piece of bulk; with
/// larger ones what is read no longer lies in the core's own cache when it is written.
const SCRATCH: usize = 64 * 1024;

/// Reads of one direction before the other tasks of the worker get their turn.
pub(super) const ROUNDS: usize = 16;

/// Bytes of one direction before that: two full pipes. It takes about a millisecond, as do 16 reads that are copied.
pub(super) const TURN: u64 = 2 * 1024 * 1024;

/// A read of this size is a sign of bulk. Measured with questions and answers of one size over loopback, CPU of splicing
/// against copying: 0.93 at 8 KiB, 0.95 at 32 and 64 KiB, each within the noise of a tenth; with bulk under a half. So it is
/// the stream of large pieces that pays, not the single one.
const LARGE: usize = 16 * 1024;

/// So many bytes in large reads, with no small one between, are bulk. Below that the pipe's own calls would cost more
/// than the copying that they save.
const BULK_AFTER: usize = 256 * 1024;

/// A piece below this costs less to copy than to splice: two more calls, and a pipe's buffer for each fragment.
const SMALL: usize = 4 * 1024;

/// So many small pieces in a row, and it is no bulk any more.
const SMALL_IN_A_ROW: u32 = 8;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; MARGIN + SCRATCH].into_boxed_slice());
}

/// Which end of a lane failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// Where the bytes come from.
    Source,
    /// Where they go.
    Destination,
}

/// How a lane came to its end before the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Break {
    /// Which end failed.
    pub(super) at: Broken,
    /// Whether that was its TLS, and not the connection below it.
    pub(super) is_tls: bool,
}

/// The outcomes that stand for an end of a lane that is this side's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Side {
    pub(super) reset: Outcome,
    pub(super) tls: Outcome,
}

impl Break {
    /// The outcome, where these two sides are the ends of the lane.
    pub(super) fn outcome(self, source: Side, destination: Side) -> Outcome {
        let side = match self.at {
            Broken::Source => source,
            Broken::Destination => destination,
        };
        if self.is_tls { side.tls } else { side.reset }
    }
}

/// A failed end, and what the system said.
pub(super) type Failure = (Broken, io::Error);

/// One direction.
#[derive(Debug)]
pub(super) struct Lane {
    /// What the destination did not take yet. Nothing is read meanwhile.
    kept: Kept,
    state: State,
    pace: Pace,
    splice: Splice,
    brake: Option<Box<Brake>>,
}

/// What one turn of a lane moved. A byte counts when the destination has taken it, so that what was read and found nobody
/// to take it is not told as passed on.
#[derive(Debug, Default, Clone, Copy)]
pub struct Moved {
    /// Bytes that were passed on.
    pub bytes: u64,
    /// Those of them that went through a pipe.
    pub spliced: u64,
    /// Whether anything moved at all, were it only what is kept now.
    pub any: bool,
}

impl Moved {
    fn copied(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    fn spliced(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.spliced += bytes as u64;
    }
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
    pub(super) fn new(splice: Splice, brake: Option<Box<Brake>>) -> Lane {
        Lane { kept: Kept::default(), state: State::default(), pace: Pace::default(), splice, brake }
    }

    /// A lane that splices from the start: what is to come is known to be bulk.
    pub(super) fn bulk(splice: Splice) -> Lane {
        Lane { pace: Pace::Splicing(0), ..Lane::new(splice, None) }
    }

    /// Whether something was read that the destination has not taken.
    pub(super) fn has_kept(&self) -> bool {
        !matches!(self.kept, Kept::Nothing)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether the source is not being read from, so that its reset would go unnoticed.
    pub(super) fn is_deaf(&self) -> bool {
        self.state != State::Open || self.has_kept() || self.is_braked()
    }

    /// Whether there is something to read that its rate does not let pass yet.
    pub(super) fn is_braked(&self) -> bool {
        self.brake.as_ref().is_some_and(|brake| brake.is_waiting())
    }

    /// Nothing moves here any more.
    pub(super) fn abandon(&mut self) {
        self.kept = Kept::Nothing;
        self.state = State::Closed;
        self.brake = None;
    }

    /// Moves what can be moved now, and reads no more than `left`. Ready when the lane is closed or broken; beside it what
    /// moved.
    pub(super) fn pump(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        to: &Stream,
        left: u64,
    ) -> (Poll<Result<(), Break>>, Moved) {
        let mut moved = Moved::default();
        for _ in 0..ROUNDS {
            if moved.bytes >= TURN.min(left) {
                break;
            }
            match self.step(cx, from, to, left, &mut moved) {
                Poll::Ready(Ok(())) if self.state == State::Closed => return (Poll::Ready(Ok(())), moved),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err((side, error))) => {
                    if !is_gone(&error) {
                        tracing::debug!(%error, ?side, "a relay ends");
                    }
                    return (Poll::Ready(Err(Break { at: side, is_tls: tls::is_failure(&error) })), moved);
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
        left: u64,
        moved: &mut Moved,
    ) -> Poll<Result<(), Failure>> {
        if self.has_kept() {
            ready!(self.write_kept(cx, to, moved))?;
            return Poll::Ready(Ok(()));
        }
        match self.state {
            State::Open => self.pass(cx, from, to, left - moved.bytes, moved),
            State::Closed => Poll::Ready(Ok(())),
            State::Ending => {
                let ended = ready!(to.poll_shutdown_write(cx));
                self.state = State::Closed;
                Poll::Ready(ended.map_err(|error| (Broken::Destination, error)))
            }
        }
    }

    /// Reads once and passes it on. What breaks on its way is no use of the rate.
    fn pass(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        to: &Stream,
        left: u64,
        moved: &mut Moved,
    ) -> Poll<Result<(), Failure>> {
        let most = match &mut self.brake {
            None => usize::MAX,
            Some(brake) => ready!(brake.poll_allowance(cx, from)).map_err(|error| (Broken::Source, error))?,
        };
        let most = most.min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.move_once(cx, from, to, most, moved);
        if let Some(brake) = &mut self.brake {
            brake.used(match &read {
                Poll::Ready(Ok(n)) => *n,
                _ => 0,
            });
        }
        if ready!(read)? == 0 {
            self.state = State::Ending;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads so many bytes at the most and passes them on, through a pipe where they come in bulk. Answers how many were
    /// read, of which some may be kept; 0 is the end of the source.
    pub(super) fn move_once(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        to: &Stream,
        most: usize,
        moved: &mut Moved,
    ) -> Poll<Result<usize, Failure>> {
        let read = match self.pace {
            Pace::Splicing(_) if self.splice == Splice::Auto && from.can_splice() && to.can_splice() => {
                self.splice(cx, from, to, most, moved)
            }
            _ => self.copy(cx, from, to, most, moved),
        };
        let n = ready!(read)?;
        if n > 0 {
            moved.any = true;
            self.pace = self.pace.after(n);
        }
        Poll::Ready(Ok(n))
    }

    /// Writes what is kept, as far as the destination takes it.
    pub(super) fn write_kept(
        &mut self,
        cx: &mut Context<'_>,
        to: &Stream,
        moved: &mut Moved,
    ) -> Poll<Result<(), Failure>> {
        let failed = |error| (Broken::Destination, error);
        let done = match &mut self.kept {
            Kept::Nothing => true,
            Kept::Bytes(bytes, written) => {
                let n = ready!(to.poll_write(cx, &bytes[*written..])).map_err(failed)?;
                moved.copied(n);
                *written += n;
                *written == bytes.len()
            }
            Kept::Piped(pipe) => {
                moved.spliced(ready!(pipe.poll_drain(cx, to)).map_err(failed)?);
                pipe.is_empty()
            }
        };
        moved.any = true;
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
    fn copy(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        to: &Stream,
        most: usize,
        moved: &mut Moved,
    ) -> Poll<Result<usize, Failure>> {
        BUFFER.with_borrow_mut(|buffer| {
            let buffer = &mut buffer[MARGIN..MARGIN + most.min(SCRATCH)];
            let n = ready!(from.poll_read(cx, buffer)).map_err(|error| (Broken::Source, error))?;
            if n == 0 {
                return Poll::Ready(Ok(0));
            }
            let written = match to.poll_write(cx, &buffer[..n]) {
                Poll::Pending => 0,
                Poll::Ready(written) => written.map_err(|error| (Broken::Destination, error))?,
            };
            moved.copied(written);
            if written < n {
                self.kept = Kept::Bytes(buffer[written..n].into(), 0);
            }
            Poll::Ready(Ok(n))
        })
    }

    /// The same through a pipe, without the bytes passing through our memory. A connection holds a pipe only while
    /// there are bytes in it. Without a pipe to be had it copies.
    fn splice(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        to: &Stream,
        most: usize,
        moved: &mut Moved,
    ) -> Poll<Result<usize, Failure>> {
        let Some(mut pipe) = splice::take() else {
            self.pace = Pace::default();
            return self.copy(cx, from, to, most, moved);
        };
        let n = match pipe.poll_fill(cx, from, most) {
            Poll::Ready(Ok(n)) if n > 0 => n,
            nothing => {
                splice::give_back(pipe);
                return match nothing {
                    // At TCP's urgent mark splice(2) says 0, as at the end, or EAGAIN; recv(2) gets past it.
                    Poll::Ready(Ok(_)) => self.copy(cx, from, to, most, moved),
                    Poll::Pending if from.is_urgent() => self.copy(cx, from, to, most, moved),
                    // A failure is told once, so nobody else is asked.
                    Poll::Ready(Err(error)) => Poll::Ready(Err((Broken::Source, error))),
                    Poll::Pending => Poll::Pending,
                };
            }
        };
        match pipe.poll_drain(cx, to) {
            Poll::Ready(Err(error)) => return Poll::Ready(Err((Broken::Destination, error))),
            Poll::Ready(Ok(written)) => moved.spliced(written),
            Poll::Pending => {}
        }
        match pipe.is_empty() {
            true => splice::give_back(pipe),
            false => self.kept = Kept::Piped(pipe),
        }
        Poll::Ready(Ok(n))
    }
}
