//! The task that moves a connection's frames.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use wmproxy_net::MARGIN;
use wmproxy_net::stream::Stream;

use super::Shared;
use super::core::Stop;
use super::parser::Parser;

/// How often the other side is asked whether it is there. It also keeps what NAT knows of the connection.
pub(super) const BEAT: Duration = Duration::from_secs(20);

/// After so many of them without a sign of the other side, or without a byte that it took of many, it counts as gone.
const BEATS: u32 = 3;

/// How long a connection that is over may take to say what is still to be said.
const FAREWELL: Duration = Duration::from_secs(2);

/// How much is read at once: four records of TLS.
const PIECE: usize = 64 << 10;

/// How often reading and writing take turns before others of the worker have theirs.
const TURNS: usize = 8;

/// A buffer for frames is kept while nothing is on its way only if it is no larger.
const KEPT: usize = 16 << 10;

thread_local! {
    /// The worker's buffer for what is read. Taken while it is used.
    static PIECES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Reads and writes a connection's frames until it is over.
#[derive(Debug)]
pub(super) struct Driver {
    shared: Arc<Shared>,
    stream: Stream,
    parser: Parser,
    /// Frames on their way out, and how much of them is gone.
    out: Vec<u8>,
    written: usize,
    beat: Interval,
    /// Beats since something came, and since something went while there was something.
    unheard: u32,
    untaken: u32,
    /// Until when what is left may be said, if it is over.
    until: Option<Pin<Box<tokio::time::Sleep>>>,
    wakers: Vec<Waker>,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, stream: Stream, beat: Duration) -> Driver {
        let mut beat = interval_at(Instant::now() + beat, beat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // How long a round trip takes is to be known before windows fill.
        shared.lock().ping();
        Driver {
            shared,
            stream,
            parser: Parser::default(),
            out: Vec::new(),
            written: 0,
            beat,
            unheard: 0,
            untaken: 0,
            until: None,
            wakers: Vec::new(),
        }
    }

    /// Writes what there is. True if anything was written.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, Stop> {
        let mut has_moved = false;
        loop {
            if self.written == self.out.len() {
                self.out.clear();
                self.written = 0;
                let is_more = self.shared.lock().next_round(&mut self.out, &mut self.wakers);
                self.wake();
                if self.out.is_empty() {
                    return Ok(has_moved || is_more);
                }
            }
            match self.stream.poll_write(cx, &self.out[self.written..]) {
                Poll::Ready(Ok(n)) => {
                    self.written += n;
                    self.untaken = 0;
                    has_moved = true;
                }
                Poll::Ready(Err(error)) => return Err(lost(&error)),
                Poll::Pending => return Ok(has_moved),
            }
        }
    }

    /// Reads once. True if anything came.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, Stop> {
        if self.shared.lock().is_full() {
            return Ok(false);
        }
        let mut piece = PIECES.take();
        piece.resize(MARGIN + PIECE, 0);
        let read = self.stream.poll_read(cx, &mut piece[MARGIN..]);
        let outcome = match &read {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => {
                Err(Stop { kind: io::ErrorKind::UnexpectedEof, why: "the connection has ended" })
            }
            Poll::Ready(Ok(n)) => {
                self.unheard = 0;
                let bytes = &piece[MARGIN..MARGIN + n];
                let fed = self.parser.feed(&mut self.shared.lock(), bytes, &mut self.wakers);
                fed.map(|()| true)
            }
            Poll::Ready(Err(error)) => Err(lost(error)),
        };
        PIECES.set(piece);
        self.wake();
        outcome
    }

    fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }

    /// Counts how long the other side has been still.
    fn beat(&mut self, cx: &mut Context<'_>) -> Result<(), Stop> {
        while self.beat.poll_tick(cx).is_ready() {
            self.unheard += 1;
            self.untaken += u32::from(self.written < self.out.len());
            self.shared.lock().ping();
        }
        if self.unheard > BEATS || self.untaken > BEATS {
            return Err(Stop { kind: io::ErrorKind::TimedOut, why: "the other side is gone" });
        }
        Ok(())
    }

    /// Moves what there is to move; the task is woken when there is more.
    fn exchange(&mut self, cx: &mut Context<'_>) -> Result<(), Stop> {
        for _ in 0..TURNS {
            let (has_written, has_read) = (self.write(cx)?, self.read(cx)?);
            if !has_written && !has_read {
                self.beat(cx)?;
                self.trim();
                return Ok(());
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Gives back large buffers that hold nothing.
    fn trim(&mut self) {
        if self.out.is_empty() {
            self.out.shrink_to(KEPT);
            self.shared.lock().trim(KEPT);
        }
    }

    /// Says what is left to be said. Ready when that is done, or can't be.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = self.until.get_or_insert_with(|| Box::pin(tokio::time::sleep(FAREWELL)));
        if until.as_mut().poll(cx).is_ready() || self.write(cx).is_err() {
            return Poll::Ready(());
        }
        if self.written < self.out.len() {
            return Poll::Pending;
        }
        self.stream.poll_shutdown_write(cx).map(drop)
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let (is_over, is_deserted) = {
            let mut core = this.shared.lock();
            core.wait(cx);
            (core.over().is_some(), core.is_deserted())
        };
        if is_deserted {
            this.shared.end(io::ErrorKind::ConnectionAborted, "nobody uses it any more");
        } else if !is_over {
            match this.exchange(cx) {
                Ok(()) => return Poll::Pending,
                Err(Stop { kind, why }) => this.shared.end(kind, why),
            }
        }
        this.poll_farewell(cx)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Its worker goes, or it is over anyway.
        self.shared.end(io::ErrorKind::ConnectionAborted, "the worker of the connection has ended");
    }
}

fn lost(error: &io::Error) -> Stop {
    Stop { kind: error.kind(), why: "the connection was lost" }
}
