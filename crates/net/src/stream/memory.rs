//! Two transports that are each other's far end, in memory: for tests of streams that lie upon something else.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use super::{Stream, Transport};

/// What one direction holds.
const ROOM: usize = 10_000;

#[derive(Debug, Default)]
struct Way {
    bytes: VecDeque<u8>,
    has_ended: bool,
    is_reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Way {
    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }
}

#[derive(Debug)]
struct End {
    incoming: Arc<Mutex<Way>>,
    outgoing: Arc<Mutex<Way>>,
    resets: bool,
}

/// Two ends of a connection without a socket, each of which holds so many bytes for the other at the most.
pub(crate) fn pair() -> (Stream, Stream) {
    let ways: [Arc<Mutex<Way>>; 2] = Default::default();
    let end = |incoming: usize, outgoing: usize| End {
        incoming: ways[incoming].clone(),
        outgoing: ways[outgoing].clone(),
        resets: false,
    };
    (Stream::over(Box::new(end(0, 1))), Stream::over(Box::new(end(1, 0))))
}

impl Transport for End {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut way = self.incoming.lock().unwrap();
        if way.is_reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if way.bytes.is_empty() && !way.has_ended {
            way.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let n = way.bytes.len().min(buffer.len());
        way.bytes.drain(..n).zip(buffer).for_each(|(byte, place)| *place = byte);
        way.wake();
        Poll::Ready(Ok(n))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut way = self.outgoing.lock().unwrap();
        if way.is_reset || way.has_ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let n = data.len().min(ROOM - way.bytes.len());
        if n == 0 {
            way.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        way.bytes.extend(&data[..n]);
        way.wake();
        Poll::Ready(Ok(n))
    }

    fn poll_shutdown_write(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut way = self.outgoing.lock().unwrap();
        way.has_ended = true;
        way.wake();
        Poll::Ready(Ok(()))
    }

    fn is_reset(&mut self, cx: &mut Context<'_>) -> bool {
        let mut way = self.incoming.lock().unwrap();
        way.reader = Some(cx.waker().clone());
        way.is_reset
    }

    fn reset_on_drop(&mut self) {
        self.resets = true;
    }
}

impl Drop for End {
    fn drop(&mut self) {
        for way in [&self.incoming, &self.outgoing] {
            let mut way = way.lock().unwrap();
            way.has_ended = true;
            way.is_reset |= self.resets;
            way.wake();
        }
    }
}
