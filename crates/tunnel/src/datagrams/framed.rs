//! Datagrams one behind the other on a stream.
//!
//! Whoever has datagrams puts them into a buffer, and the carrier's task writes all that is there at once: many datagrams
//! are one record of TLS and one call. The same the other way: a read brings as many as have come.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, Waker, ready};

use wmproxy_net::stream::Stream;
use wmproxy_runtime::moderation;
use wmproxy_wire::tunnel::datagram::{self, Ending, FRAME_HEADER, Frame, MAX_FRAME, Origin};

use super::arrived::{Arrived, Item, Receiver};

/// What one read asks for, and what may wait before it is written without waiting for the carrier's turn: the most that one
/// write of TLS encrypts.
const CHUNK: usize = 64 * 1024;

/// What may wait for a stream that takes no more; what comes then is dropped. It is what comes in some ten milliseconds at a
/// gigabit a second: whoever is held up for longer is better off with newer datagrams.
const MAX_WAITING: usize = 1 << 20;

/// A buffer of a burst that is larger than this is not kept for the next one.
const KEPT: usize = 2 * CHUNK;

/// Reads in one turn of the carrier's task, so that the worker's other tasks have theirs.
const READS: usize = 8;

thread_local! {
    /// Where reads go; what comes whole is dealt with there.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; MAX_FRAME + CHUNK].into());
    /// A buffer for who has something to send: a carrier without anything holds none.
    static SPARE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A stream with datagrams.
#[derive(Debug)]
pub(super) struct Framed {
    stream: Stream,
    outgoing: RefCell<Outgoing>,
    /// The part of a frame that has come.
    incoming: RefCell<Vec<u8>>,
    /// The carrier's task.
    waker: RefCell<Waker>,
    has_failed: Cell<bool>,
    /// How many flows have begun here.
    begun: Cell<u32>,
}

#[derive(Debug, Default)]
struct Outgoing {
    bytes: Vec<u8>,
    /// So many of them were written.
    written: usize,
}

impl Framed {
    pub(super) fn new(stream: Stream) -> Framed {
        Framed {
            stream,
            outgoing: RefCell::default(),
            incoming: RefCell::default(),
            waker: RefCell::new(Waker::noop().clone()),
            has_failed: Cell::new(false),
            begun: Cell::new(0),
        }
    }

    /// A number for a flow.
    pub(super) fn number(&self) -> u32 {
        let count = self.begun.get();
        self.begun.set(count.wrapping_add(1));
        count
    }

    /// Takes a datagram to send. False when there is no room for it.
    pub(super) fn put(&self, flow: u32, origin: Option<&Origin>, data: &[u8]) -> bool {
        let mut outgoing = self.outgoing.borrow_mut();
        if outgoing.waiting() >= CHUNK {
            // The batch goes on, so there will be a full write each time.
            let waker = self.waker.borrow();
            let _ = self.poll_flush(&mut Context::from_waker(&waker), &mut outgoing);
        }
        if self.has_failed.get() || outgoing.waiting() + FRAME_HEADER + data.len() > MAX_WAITING {
            return false;
        }
        datagram::put_data(outgoing.room(), flow, origin, data);
        true
    }

    /// Tells the other end that a flow is over. It is told when it sends to that flow again, if there is no room.
    pub(super) fn put_end(&self, flow: u32, why: Ending) {
        let mut outgoing = self.outgoing.borrow_mut();
        if !self.has_failed.get() && outgoing.waiting() + FRAME_HEADER <= MAX_WAITING {
            datagram::put_end(outgoing.room(), flow, why);
        }
    }

    /// Has what was put sent.
    pub(super) fn wake(&self) {
        self.waker.borrow().wake_by_ref();
    }

    /// Sends what was put, and hands over what comes, until the stream has ended.
    pub(super) async fn run(&self, receiver: &impl Receiver) -> io::Result<()> {
        poll_fn(|cx| self.poll(cx, receiver)).await
    }

    fn poll(&self, cx: &mut Context<'_>, receiver: &impl Receiver) -> Poll<io::Result<()>> {
        self.waker.borrow_mut().clone_from(cx.waker());
        if self.has_failed.get() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        for _ in 0..READS {
            let read = self.poll_receive(cx, receiver);
            // What was read may have given something to say.
            let mut outgoing = self.outgoing.borrow_mut();
            if let Poll::Ready(Err(error)) = self.poll_flush(cx, &mut outgoing) {
                return Poll::Ready(Err(error));
            }
            drop(outgoing);
            if let Some(end) = ready!(read).transpose() {
                return Poll::Ready(end);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads once. None as long as the stream goes on.
    fn poll_receive(&self, cx: &mut Context<'_>, receiver: &impl Receiver) -> Poll<io::Result<Option<()>>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut kept = self.incoming.borrow_mut();
            let before = kept.len();
            let read = ready!(self.stream.poll_read(cx, &mut scratch[before..before + CHUNK]))?;
            if read == 0 {
                return Poll::Ready(if before == 0 {
                    Ok(Some(()))
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                });
            }
            scratch[..before].copy_from_slice(&kept);
            let came = &scratch[..before + read];
            let mut arrived = Arrived::default();
            let mut used = 0;
            while let Some((frame, bytes)) = datagram::next_frame(&came[used..]).map_err(invalid)? {
                used += bytes;
                match frame {
                    Frame::Data { flow, origin, data } => arrived.push(flow, Item::Data(origin, data)),
                    Frame::End { flow, why } => arrived.push(flow, Item::End(why)),
                    Frame::Unknown => {}
                }
            }
            // Where all came whole nothing is kept, not even the room for it.
            *kept = came[used..].to_vec();
            drop(kept);
            if arrived.len() > 0 {
                moderation::note(arrived.len());
            }
            arrived.deliver(receiver);
            Poll::Ready(Ok(None))
        })
    }

    fn poll_flush(&self, cx: &mut Context<'_>, outgoing: &mut Outgoing) -> Poll<io::Result<()>> {
        while outgoing.waiting() > 0 {
            match ready!(self.stream.poll_write(cx, &outgoing.bytes[outgoing.written..])) {
                Ok(written) => outgoing.written += written,
                Err(error) => {
                    self.has_failed.set(true);
                    *outgoing = Outgoing::default();
                    // If it was not the carrier's task that found out.
                    cx.waker().wake_by_ref();
                    return Poll::Ready(Err(error));
                }
            }
        }
        outgoing.clear();
        Poll::Ready(Ok(()))
    }
}

impl Outgoing {
    fn waiting(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// The buffer, to add something.
    fn room(&mut self) -> &mut Vec<u8> {
        if self.bytes.is_empty() {
            SPARE.with_borrow_mut(|spare| std::mem::swap(spare, &mut self.bytes));
        } else if self.written >= CHUNK.max(self.waiting()) {
            // No more is moved than was written since the last time.
            self.bytes.drain(..std::mem::take(&mut self.written));
        }
        &mut self.bytes
    }

    /// All of it was written.
    fn clear(&mut self) {
        self.written = 0;
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        if bytes.capacity() <= KEPT {
            SPARE.with_borrow_mut(|spare| {
                if spare.capacity() < bytes.capacity() {
                    *spare = bytes;
                }
            });
        }
    }
}

fn invalid(error: datagram::DatagramError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
