//! One direction of a relay, by reading and writing.

use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll};

use super::is_gone;
use crate::stream::Stream;

/// The worker's buffer. Measured on bulk over loopback (CPU per GB): 16 KiB costs a third more than 64 KiB, and
/// 256 KiB falls out of the core's own cache without gaining anything.
const SCRATCH: usize = 64 * 1024;

/// Reads of one direction before the other tasks of the worker get their turn: at most 1 MiB.
const ROUNDS: usize = 16;

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

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// What the destination did not take yet. Nothing is read meanwhile.
    kept: Option<Kept>,
    state: State,
}

#[derive(Debug)]
struct Kept {
    bytes: Box<[u8]>,
    written: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The source has ended; what is kept is still to be written.
    Ending,
    Closed,
}

impl Lane {
    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Nothing moves here any more.
    pub(super) fn abandon(&mut self) {
        self.kept = None;
        self.state = State::Closed;
    }

    /// Moves what can be moved now. Ready when the lane is closed or broken; beside it the bytes that were read.
    pub(super) fn pump(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        to: &Stream,
    ) -> (Poll<Result<(), Broken>>, u64) {
        let mut moved = 0;
        for _ in 0..ROUNDS {
            if let Some(kept) = &mut self.kept {
                match to.poll_write(cx, &kept.bytes[kept.written..]) {
                    Poll::Pending => return (Poll::Pending, moved),
                    Poll::Ready(Err(error)) => return (broken(Broken::Destination, &error), moved),
                    Poll::Ready(Ok(n)) => kept.written += n,
                }
                if kept.written == kept.bytes.len() {
                    self.kept = None;
                }
                continue;
            }
            match self.state {
                State::Closed => return (Poll::Ready(Ok(())), moved),
                State::Ending => {
                    self.state = State::Closed;
                    let passed = to.shutdown_write();
                    return (
                        passed.map_or_else(|e| broken(Broken::Destination, &e), |()| Poll::Ready(Ok(()))),
                        moved,
                    );
                }
                State::Open => match self.exchange(cx, from, to) {
                    Poll::Ready(Ok(n)) => moved += n as u64,
                    Poll::Ready(Err((side, error))) => return (broken(side, &error), moved),
                    Poll::Pending => return (Poll::Pending, moved),
                },
            }
        }
        cx.waker().wake_by_ref();
        (Poll::Pending, moved)
    }

    /// Reads once and writes it on; what does not go is kept.
    fn exchange(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        to: &Stream,
    ) -> Poll<Result<usize, (Broken, io::Error)>> {
        BUFFER.with_borrow_mut(|buffer| {
            let n = match from.poll_read(cx, buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err((Broken::Source, error))),
                Poll::Ready(Ok(0)) => {
                    self.state = State::Ending;
                    return Poll::Ready(Ok(0));
                }
                Poll::Ready(Ok(n)) => n,
            };
            let written = match to.poll_write(cx, &buffer[..n]) {
                Poll::Pending => 0,
                Poll::Ready(Ok(written)) => written,
                Poll::Ready(Err(error)) => return Poll::Ready(Err((Broken::Destination, error))),
            };
            if written < n {
                self.kept = Some(Kept { bytes: buffer[written..n].into(), written: 0 });
            }
            Poll::Ready(Ok(n))
        })
    }
}

fn broken(side: Broken, error: &io::Error) -> Poll<Result<(), Broken>> {
    if !is_gone(error) {
        tracing::debug!(%error, ?side, "a relay ends");
    }
    Poll::Ready(Err(side))
}
